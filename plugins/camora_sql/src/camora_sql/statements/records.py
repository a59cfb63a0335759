"""Records of jobs, and deleting what is past its time."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, Table, bindparam, delete, literal_column, or_, select

from camora_sql.dialects.base import Dialect
from camora_sql.schema import RECORD_COLUMNS, Tables
from camora_sql.statements.parts import Shape, among, first, names, one_of, rows

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
    "some_surplus",
    "unrecord",
]


def put_records(dialect: Dialect, size: int) -> Shape:
    """Records, each unless there is a finished one whose time is not over."""
    t = dialect.tables
    values, order = rows(t.results, size, RECORD_COLUMNS)
    change = tuple(name for name in RECORD_COLUMNS if name != "id")
    open_ = or_(t.results.c.final == literal_column("0"), t.results.c.expires <= bindparam("now"))
    return dialect.upsert(t.results, values, key="id", change=change, where=open_), (*order, "now")


def read_records(dialect: Dialect, size: int) -> Shape:
    """Whole records."""
    t = dialect.tables
    return select(*t.results.c).where(one_of(t.results.c.id, "id", size)), names("id", size)


def read_finished(dialect: Dialect, size: int) -> Shape:
    """Whole records, if they are finished."""
    t = dialect.tables
    final = t.results.c.final == literal_column("1")
    return select(*t.results.c).where(one_of(t.results.c.id, "id", size), final), names("id", size)


def delete_records(dialect: Dialect, size: int) -> Shape:
    """Forget records that are not past their time."""
    t = dialect.tables
    known = (t.results.c.expires > bindparam("now"), one_of(t.results.c.id, "id", size))
    return delete(t.results).where(*known), ("now", *names("id", size))


def some_finished(dialect: Dialect, size: int) -> Shape:
    """Ids of some records that finished before a moment, and when."""
    return first(_finished(dialect.tables)), ("before", "limit")


def some_succeeded(dialect: Dialect, size: int) -> Shape:
    """The same, of those that succeeded."""
    t = dialect.tables
    return first(_finished(t).where(t.results.c.status == bindparam("status"))), ("before", "status", "limit")


def _finished(t: Tables) -> Select[Any]:
    # Of no index: one for every settlement to keep would cost more than a walk over the table now and then.
    old = (t.results.c.final == literal_column("1"), t.results.c.finished < bindparam("before"))
    return select(t.results.c.id, t.results.c.finished).where(*old)


def some_surplus(dialect: Dialect, size: int) -> Shape:
    """The same, of those beyond so many that are kept for longest."""
    t = dialect.tables
    found = select(t.results.c.id, t.results.c.finished).where(t.results.c.final == literal_column("1"))
    found = found.order_by(t.results.c.expires.desc(), t.results.c.id.desc())
    return found.limit(bindparam("limit")).offset(bindparam("most")), ("limit", "most")


def unrecord(dialect: Dialect, size: int) -> Shape:
    """Delete records that finished before a moment."""
    t = dialect.tables
    old = (t.results.c.final == literal_column("1"), t.results.c.finished < bindparam("before"))
    return delete(t.results).where(*old, one_of(t.results.c.id, "id", size)), ("before", *names("id", size))


def prune_results(dialect: Dialect, size: int) -> Shape:
    """Delete some records whose time is over."""
    t = dialect.tables
    return _prune(dialect, t.results, t.results.c.id, t.results.c.expires)


def prune_done(dialect: Dialect, size: int) -> Shape:
    """Delete some tombstones whose time is over."""
    t = dialect.tables
    return _prune(dialect, t.done, t.done.c.id, t.done.c.until)


def prune_keys(dialect: Dialect, size: int) -> Shape:
    """Delete some keys that are free."""
    t = dialect.tables
    return _prune(dialect, t.keys, t.keys.c.key, t.keys.c.until)


def _prune(dialect: Dialect, table: Table, key: ColumnElement[Any], until: ColumnElement[Any]) -> Shape:
    over = first(select(key).where(until <= bindparam("now")).order_by(until)).with_for_update(skip_locked=True)
    return delete(table).where(among(dialect, over, key)), ("now", "limit")
