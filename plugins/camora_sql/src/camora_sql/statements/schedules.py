"""Schedules, and lending them out."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ColumnElement, and_, bindparam, case, delete, func, literal_column, or_, select, update

from camora_sql.dialects.base import Dialect
from camora_sql.schema import SCHEDULE_COLUMNS, Tables
from camora_sql.statements.parts import Shape, first, names, one_of, rows

__all__ = [
    "SCHEDULE_COLUMNS",
    "advance_fired",
    "advance_only",
    "delete_schedules",
    "due_schedules",
    "due_schedules_of",
    "lend_schedules",
    "list_schedules",
    "list_schedules_of",
    "next_schedule",
    "next_schedule_of",
    "pause_schedule",
    "plan_schedule",
    "put_schedule",
    "read_schedules",
]

_UNLENT: dict[str, Any] = {"receipt": literal_column("0"), "lent_until": literal_column("0")}


def _columns(t: Tables) -> list[Column[Any]]:
    return [t.schedules.c[name] for name in SCHEDULE_COLUMNS]


def _counted(t: Tables) -> dict[str, Any]:
    return {"version": t.schedules.c.version + literal_column("1")}


def put_schedule(dialect: Dialect, size: int) -> Shape:
    """A whole schedule, in place of one of the same key, and its loan."""
    t = dialect.tables
    names = [*SCHEDULE_COLUMNS, "receipt", "lent_until"]
    values, order = rows(t.schedules, 1, names)
    return dialect.upsert(t.schedules, values, key="key", change=[name for name in names if name != "key"]), order


def read_schedules(dialect: Dialect, size: int) -> Shape:
    """Whole schedules, with their loans, kept from others until the end of the transaction."""
    t = dialect.tables
    found = select(*_columns(t), t.schedules.c.receipt, t.schedules.c.lent_until)
    return found.where(one_of(t.schedules.c.key, "key", size)).with_for_update(), names("key", size)


def list_schedules(dialect: Dialect, size: int) -> Shape:
    """All schedules."""
    t = dialect.tables
    return select(*_columns(t)), ()


def list_schedules_of(dialect: Dialect, size: int) -> Shape:
    """Those of a group."""
    t = dialect.tables
    return select(*_columns(t)).where(t.schedules.c.family == bindparam("family")), ("family",)


def delete_schedules(dialect: Dialect, size: int) -> Shape:
    """Delete schedules."""
    t = dialect.tables
    return delete(t.schedules).where(one_of(t.schedules.c.key, "key", size)), names("key", size)


def pause_schedule(dialect: Dialect, size: int) -> Shape:
    """Pause or resume one; NULL leaves that as it is."""
    t = dialect.tables
    paused = func.coalesce(bindparam("new_paused", type_=t.schedules.c.paused.type), t.schedules.c.paused)
    changed: dict[str, Any] = {"paused": paused, **_counted(t)}
    # SQLAlchemy sorts what is set by the columns of the table.
    return update(t.schedules).values(changed).where(t.schedules.c.key == bindparam("of")), ("new_paused", "of")


def plan_schedule(dialect: Dialect, size: int) -> Shape:
    """Give one another tick, which ends its loan."""
    t = dialect.tables
    changed: dict[str, Any] = {"next": bindparam("new_next"), **_UNLENT}
    return update(t.schedules).values(changed).where(t.schedules.c.key == bindparam("of")), ("new_next", "of")


def _is_free(t: Tables) -> ColumnElement[bool]:
    """Not lent, or no more: the loan has lapsed, or would end so late that the clock must have been set back."""
    lapsed = or_(t.schedules.c.lent_until <= bindparam("lapsed"), t.schedules.c.lent_until > bindparam("absurd"))
    return or_(t.schedules.c.receipt == literal_column("0"), lapsed)


def _open(t: Tables) -> ColumnElement[bool]:
    return t.schedules.c.paused == literal_column("0")


def due_schedules(dialect: Dialect, size: int) -> Shape:
    """Schedules that are due and not lent."""
    return _due(dialect.tables, ())


def due_schedules_of(dialect: Dialect, size: int) -> Shape:
    """The same, of these groups."""
    t = dialect.tables
    return _due(t, names("family", size), one_of(t.schedules.c.family, "family", size))


def _due(t: Tables, order: Any, *wanted: ColumnElement[bool]) -> Shape:
    found = select(*_columns(t)).where(_open(t), *wanted, t.schedules.c.next <= bindparam("now"), _is_free(t))
    # Where rows are locked, two schedulers who ask at once take different ones.
    found = found.order_by(t.schedules.c.next, t.schedules.c.key).with_for_update(skip_locked=True)
    return first(found), (*order, "now", "lapsed", "absurd", "limit")


def lend_schedules(dialect: Dialect, size: int) -> Shape:
    """Lend these out."""
    t = dialect.tables
    lent: dict[str, Any] = {"receipt": bindparam("new_receipt"), "lent_until": bindparam("until")}
    return update(t.schedules).values(lent).where(one_of(t.schedules.c.key, "key", size)), (
        "new_receipt",
        "until",
        *names("key", size),
    )


def _lent(t: Tables) -> ColumnElement[bool]:
    return and_(t.schedules.c.key == bindparam("of"), t.schedules.c.receipt == bindparam("token"))


def advance_fired(dialect: Dialect, size: int) -> Shape:
    """Move a schedule on after a fire, if this token holds it."""
    t = dialect.tables
    fired: dict[str, Any] = {"last": bindparam("new_last"), "last_job": bindparam("job"), "next": bindparam("new_next")}
    changed = {**fired, **_counted(t), **_UNLENT}
    return update(t.schedules).values(changed).where(_lent(t)), ("new_last", "job", "new_next", "of", "token")


def advance_only(dialect: Dialect, size: int) -> Shape:
    """Move a schedule on without a fire, if this token holds it."""
    t = dialect.tables
    changed = {"next": bindparam("new_next"), **_counted(t), **_UNLENT}
    return update(t.schedules).values(changed).where(_lent(t)), ("new_next", "of", "token")


def next_schedule(dialect: Dialect, size: int) -> Shape:
    """When the first of all comes due, or back."""
    return _next(dialect.tables), ()


def next_schedule_of(dialect: Dialect, size: int) -> Shape:
    """When the first of these groups does."""
    t = dialect.tables
    return _next(t, one_of(t.schedules.c.family, "family", size)), names("family", size)


def _next(t: Tables, *wanted: ColumnElement[bool]) -> Any:
    moment = case((t.schedules.c.receipt == literal_column("0"), t.schedules.c.next), else_=t.schedules.c.lent_until)
    return select(func.min(moment)).where(_open(t), *wanted, t.schedules.c.next.is_not(None))
