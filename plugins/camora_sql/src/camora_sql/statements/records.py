"""Records of jobs, and deleting what is past its time."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, Table, bindparam, delete, literal_column, or_, select

from camora_sql.dialects.base import Dialect
from camora_sql.schema import done, keys, results
from camora_sql.statements.parts import Shape, first, names, one_of, rows

__all__ = [
    "RECORD_COLUMNS",
    "delete_records",
    "prune_done",
    "prune_keys",
    "prune_results",
    "put_records",
    "read_finished",
    "read_records",
    "some_finished",
    "some_succeeded",
    "unrecord",
]

RECORD_COLUMNS = tuple(results.c.keys())


def put_records(dialect: Dialect, size: int) -> Shape:
    """Records, each unless there is a finished one whose time is not over."""
    values, order = rows(results, size, RECORD_COLUMNS)
    change = tuple(name for name in RECORD_COLUMNS if name != "id")
    open_ = or_(results.c.final == literal_column("0"), results.c.expires <= bindparam("now"))
    return dialect.upsert(results, values, key="id", change=change, where=open_), (*order, "now")


def read_records(dialect: Dialect, size: int) -> Shape:
    """Whole records."""
    return select(*results.c).where(one_of(results.c.id, "id", size)), names("id", size)


def read_finished(dialect: Dialect, size: int) -> Shape:
    """Whole records, if they are finished."""
    final = results.c.final == literal_column("1")
    return select(*results.c).where(one_of(results.c.id, "id", size), final), names("id", size)


def delete_records(dialect: Dialect, size: int) -> Shape:
    """Forget records that are not past their time."""
    known = (results.c.expires > bindparam("now"), one_of(results.c.id, "id", size))
    return delete(results).where(*known), ("now", *names("id", size))


def some_finished(dialect: Dialect, size: int) -> Shape:
    """Ids of some records that finished before a moment, and when."""
    return first(_finished()), ("before", "limit")


def some_succeeded(dialect: Dialect, size: int) -> Shape:
    """The same, of those that succeeded."""
    return first(_finished().where(results.c.status == bindparam("status"))), ("before", "status", "limit")


def _finished() -> Select[Any]:
    # Of no index: one for every settlement to keep would cost more than a walk over the table now and then.
    old = (results.c.final == literal_column("1"), results.c.finished < bindparam("before"))
    return select(results.c.id, results.c.finished).where(*old)


def unrecord(dialect: Dialect, size: int) -> Shape:
    """Delete records that finished before a moment."""
    old = (results.c.final == literal_column("1"), results.c.finished < bindparam("before"))
    return delete(results).where(*old, one_of(results.c.id, "id", size)), ("before", *names("id", size))


def prune_results(dialect: Dialect, size: int) -> Shape:
    """Delete some records whose time is over."""
    return _prune(results, results.c.id, results.c.expires)


def prune_done(dialect: Dialect, size: int) -> Shape:
    """Delete some tombstones whose time is over."""
    return _prune(done, done.c.id, done.c.until)


def prune_keys(dialect: Dialect, size: int) -> Shape:
    """Delete some keys that are free."""
    return _prune(keys, keys.c.key, keys.c.until)


def _prune(table: Table, key: ColumnElement[Any], until: ColumnElement[Any]) -> Shape:
    over = first(select(key).where(until <= bindparam("now")).order_by(until))
    return delete(table).where(key.in_(over)), ("now", "limit")
