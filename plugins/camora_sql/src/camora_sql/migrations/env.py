"""Alembic's entry: revisions become statements, which `camora_sql.migrating` runs, or prints."""

from __future__ import annotations

from alembic import context

_attributes = context.config.attributes
_tables = _attributes["tables"]

context.configure(
    dialect_name=_attributes["dialect"],
    as_sql=True,
    output_buffer=_attributes["statements"],
    target_metadata=_tables.metadata,
    version_table=_tables.version.name,
    version_table_schema=_tables.schema,
    # Whoever runs them has a transaction around them already.
    transactional_ddl=False,
)
with context.begin_transaction():
    context.run_migrations()
