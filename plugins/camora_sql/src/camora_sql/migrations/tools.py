"""What revisions are written with: tables under the names that this database has for them.

Revisions are plain statements: they never read what is in a table, so that they can also be printed and run by others.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

from camora_sql.functions import function_text
from camora_sql.schema import WORKS_WITH, Tables

__all__ = [
    "BIG",
    "BYTES",
    "FLOAT",
    "KEY",
    "NAME",
    "TEXT",
    "create_functions",
    "create_index",
    "create_table",
    "drop_functions",
    "drop_table",
    "has_partial_indexes",
    "works_with",
]

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
NAME = sa.String(255).with_variant(sa.String(255, collation="C"), "postgresql")
KEY = sa.String(512).with_variant(sa.String(512, collation="C"), "postgresql")
TEXT = sa.Text().with_variant(sa.Text(2**32 - 1), "mysql", "mariadb")
BYTES = sa.LargeBinary().with_variant(sa.LargeBinary(2**32 - 1), "mysql", "mariadb")
FLOAT = sa.Float().with_variant(sa.Double(), "mysql", "mariadb")


def _tables() -> Tables:
    tables = op.get_context().config.attributes["tables"]  # type: ignore[union-attr]
    assert isinstance(tables, Tables)
    return tables


def has_partial_indexes() -> bool:
    """Whether this database has indexes of some rows alone."""
    return _tables().partial


def create_table(name: str, *columns: Any, **options: Any) -> None:
    """A table, by its name without the prefix."""
    tables = _tables()
    op.create_table(f"{tables.prefix}{name}", *columns, schema=tables.schema, **tables.options, **options)


def drop_table(name: str) -> None:
    """Drop it."""
    op.drop_table(f"{_tables().prefix}{name}", schema=_tables().schema)


def create_index(name: str, table: str, columns: list[Any], *, where: str | None = None, unique: bool = False) -> None:
    """An index, by names without the prefix; of some rows alone if `where` says which."""
    condition = None if where is None else sa.text(where)
    prefix, schema = _tables().prefix, _tables().schema
    options: dict[str, Any] = {"sqlite_where": condition, "postgresql_where": condition} if where else {}
    op.create_index(f"{prefix}{name}", f"{prefix}{table}", columns, schema=schema, unique=unique, **options)


def works_with(oldest: str) -> None:
    """Note down which code can work with the tables from here on: that of this revision, and of those after it."""
    facts = _tables().facts
    op.execute(facts.delete().where(facts.c.name == op.inline_literal(WORKS_WITH[0])))
    if oldest:
        op.execute(facts.insert().values(name=op.inline_literal(WORKS_WITH[0]), value=op.inline_literal(oldest)))


def create_functions(*names: str) -> None:
    """Functions of `camora_sql.functions`, where the database has them."""
    if op.get_context().dialect.name == "postgresql":
        for name in names:
            op.execute(sa.text(function_text(name, _tables()).replace(":", r"\:")))


def drop_functions(*names: str) -> None:
    """Drop them."""
    if op.get_context().dialect.name == "postgresql":
        where = f"{_tables().schema}." if _tables().schema else ""
        for name in names:
            op.execute(f"DROP FUNCTION {where}{_tables().prefix}{name}")
