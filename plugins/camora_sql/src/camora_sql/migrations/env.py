"""Alembic's entry: it gets an open connection, in a transaction, from `camora_sql.migrating`."""

from __future__ import annotations

from alembic import context

from camora_sql.schema import VERSION_TABLE, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    # Each revision in the transaction that is open already.
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
