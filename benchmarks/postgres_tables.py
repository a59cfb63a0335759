"""What a database of PostgreSQL takes on the disk, and a session that others have to put up with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Size", "held_horizon", "size", "vacuum"]

_SIZES = """
SELECT COALESCE(sum(pg_table_size(c.oid)), 0)::bigint, COALESCE(sum(pg_indexes_size(c.oid)), 0)::bigint
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
"""
_MIB = 1 << 20


@dataclass(frozen=True)
class Size:
    """All tables that are not the system's, in MiB: themselves, with what is kept beside them; and their indexes."""

    tables: float
    indexes: float

    @property
    def total(self) -> float:
        """Both."""
        return self.tables + self.indexes


def size(url: str) -> Size:
    """Now. Blocks."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        [[tables, indexes]] = connection.execute(_SIZES).fetchall()
    return Size(tables / _MIB, indexes / _MIB)


def vacuum(url: str) -> None:
    """A plain VACUUM of everything, as the server does by itself from time to time. Blocks.

    Twice: an index has the pages that the first one takes out of it only when no earlier transaction is left.
    """
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(2):
            connection.execute("SELECT pg_current_xact_id()")
            connection.execute("VACUUM")


@contextlib.contextmanager
def held_horizon(url: str) -> Iterator[None]:
    """A session that is idle in a transaction: for the length of the block nothing that it might see is cleaned up."""
    import psycopg

    with psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute("SELECT pg_current_xact_id()")
        yield
        connection.rollback()
