"""Functions inside the database, one file each: what there would else take a transaction of many statements.

A file never changes once it was released, because processes of several releases work side by side: what is to be
another way gets the next number, and a migration that brings it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from camora_sql.schema import Tables

__all__ = ["CURRENT", "function_names", "function_text"]

CURRENT = ("publish_1", "publish_one_1", "claim_1", "claim_from_1", "extend_1", "settle_1")
"""Those that this release calls, each after those that it calls itself."""


def function_text(name: str, tables: Tables) -> str:
    """The statement that creates it."""
    return _source(name).format(**_names(tables))


def function_names(tables: Tables) -> dict[str, str]:
    """What they are called in the database."""
    return {name: _qualified(name, tables) for name in CURRENT}


@cache
def _source(name: str) -> str:
    return (Path(__file__).parent / f"{name}.sql").read_text(encoding="utf-8")


def _names(tables: Tables) -> dict[str, str]:
    every = {table.name.removeprefix(tables.prefix) for table in tables.metadata.sorted_tables}
    return {name: _qualified(name, tables) for name in (*every, *CURRENT)}


def _qualified(name: str, tables: Tables) -> str:
    # Both are checked to be plain names.
    where = f"{tables.schema}." if tables.schema else ""
    return f"{where}{tables.prefix}{name}"
