"""What statements are put together from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Executable,
    Select,
    Table,
    and_,
    bindparam,
    exists,
    literal_column,
    not_,
    select,
    tuple_,
)

from camora_sql.dialects.base import Dialect
from camora_sql.schema import Tables

__all__ = ["Builder", "Shape", "among", "first", "is_open", "many", "names", "one_of", "rows", "state_is"]

Shape = tuple[Executable, Sequence[str]]
Builder = Callable[[Dialect, int], Shape]


def state_is(t: Tables, state: int) -> ColumnElement[bool]:
    """In this state."""
    # Spelt out, not bound: only then does the planner see that a partial index fits.
    return t.jobs.c.state == literal_column(str(state))


def many(name: str, size: int) -> list[BindParameter[Any]]:
    """Numbered values."""
    return [bindparam(f"{name}_{place}") for place in range(size)]


def names(name: str, size: int) -> list[str]:
    """What `many` calls them."""
    return [f"{name}_{place}" for place in range(size)]


def rows(table: Table, size: int, columns: Iterable[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Values of many rows, and their order."""
    names = list(columns)
    values = [{name: bindparam(f"{name}_{place}", type_=table.c[name].type) for name in names} for place in range(size)]
    return values, [f"{name}_{place}" for place in range(size) for name in names]


def is_open(t: Tables, name: BindParameter[Any]) -> ColumnElement[bool]:
    """The queue is not paused; evaluated once, before any row is read."""
    paused: Select[Any] = select(literal_column("1")).where(
        t.queues.c.name == name, t.queues.c.paused == literal_column("1")
    )
    return not_(exists(paused))


def one_of(column: ColumnElement[Any], name: str, size: int) -> ColumnElement[bool]:
    """One of these values."""
    return column.in_(many(name, size))


def first(found: Select[Any], limit: str = "limit") -> Select[Any]:
    """No more than so many rows."""
    # The offset is spelt out because SQLite's compiler binds one where none is given.
    return found.limit(bindparam(limit)).offset(literal_column("0"))


def among(dialect: Dialect, found: Select[Any], *key: ColumnElement[Any]) -> ColumnElement[bool]:
    """The rows whose keys a look finds; for a statement that changes them."""
    if dialect.joins_found:
        picked = found.subquery("picked")
        return and_(*(column == picked.c[str(column.key)] for column in key))
    return (key[0] if len(key) == 1 else tuple_(*key)).in_(found)
