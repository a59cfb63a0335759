"""Making the schema in an empty database, at its newest revision.

Without alembic: its import would be most of a first start's time and memory.
"""

from __future__ import annotations

from sqlalchemy.schema import CreateIndex, CreateTable

from camora_sql import statements
from camora_sql.schema import HEAD, WORKS_WITH
from camora_sql.session import Session
from camora_sql.store import Store

__all__ = ["create"]


def create(session: Session, store: Store) -> None:
    """Create what `migrations` would lead to, in one transaction; does nothing when somebody was quicker."""
    dialect = store.dialect
    compiler = dialect.compiler()
    version = dialect.tables.version
    tables = [*dialect.tables.metadata.sorted_tables, version]
    indexes = sorted((index for table in tables for index in table.indexes), key=lambda index: str(index.name))
    texts = [str(CreateTable(table).compile(dialect=compiler)) for table in tables]
    texts += [str(CreateIndex(index).compile(dialect=compiler)) for index in indexes]
    texts += dialect.routines()

    def make(session: Session) -> None:
        session.lock("schema")
        if dialect.revision(session.driver) is not None:
            return
        dialect.change_schema(session.driver, texts, f"new-{HEAD}")
        session.driver.change(str(version.insert().values(version_num=HEAD).compile(dialect=compiler)), (HEAD,))
        session.change(statements.write_fact, WORKS_WITH)

    session.write(make)
