"""Schedules, and lending them out."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, case, delete, func, literal_column, or_, select, update

from camora_sql.dialects.base import Dialect
from camora_sql.schema import schedules
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

SCHEDULE_COLUMNS = tuple(column.name for column in schedules.c if column.name not in ("receipt", "lent_until"))
_COLUMNS = [schedules.c[name] for name in SCHEDULE_COLUMNS]
_UNLENT: dict[str, Any] = {"receipt": literal_column("0"), "lent_until": literal_column("0")}
_COUNTED: dict[str, Any] = {"version": schedules.c.version + literal_column("1")}


def put_schedule(dialect: Dialect, size: int) -> Shape:
    """A whole schedule, in place of one of the same key, and its loan."""
    names = [*SCHEDULE_COLUMNS, "receipt", "lent_until"]
    values, order = rows(schedules, 1, names)
    return dialect.upsert(schedules, values, key="key", change=[name for name in names if name != "key"]), order


def read_schedules(dialect: Dialect, size: int) -> Shape:
    """Whole schedules, with their loans, kept from others until the end of the transaction."""
    found = select(*_COLUMNS, schedules.c.receipt, schedules.c.lent_until)
    return found.where(one_of(schedules.c.key, "key", size)).with_for_update(), names("key", size)


def list_schedules(dialect: Dialect, size: int) -> Shape:
    """All schedules."""
    return select(*_COLUMNS), ()


def list_schedules_of(dialect: Dialect, size: int) -> Shape:
    """Those of a group."""
    return select(*_COLUMNS).where(schedules.c.family == bindparam("family")), ("family",)


def delete_schedules(dialect: Dialect, size: int) -> Shape:
    """Delete schedules."""
    return delete(schedules).where(one_of(schedules.c.key, "key", size)), names("key", size)


def pause_schedule(dialect: Dialect, size: int) -> Shape:
    """Pause or resume one; NULL leaves that as it is."""
    paused = func.coalesce(bindparam("new_paused", type_=schedules.c.paused.type), schedules.c.paused)
    changed: dict[str, Any] = {"paused": paused, **_COUNTED}
    # SQLAlchemy sorts what is set by the columns of the table.
    return update(schedules).values(changed).where(schedules.c.key == bindparam("of")), ("new_paused", "of")


def plan_schedule(dialect: Dialect, size: int) -> Shape:
    """Give one another tick, which ends its loan."""
    changed: dict[str, Any] = {"next": bindparam("new_next"), **_UNLENT}
    return update(schedules).values(changed).where(schedules.c.key == bindparam("of")), ("new_next", "of")


def _is_free() -> ColumnElement[bool]:
    """Not lent, or no more: the loan has lapsed, or would end so late that the clock must have been set back."""
    lapsed = or_(schedules.c.lent_until <= bindparam("lapsed"), schedules.c.lent_until > bindparam("absurd"))
    return or_(schedules.c.receipt == literal_column("0"), lapsed)


_OPEN = schedules.c.paused == literal_column("0")


def due_schedules(dialect: Dialect, size: int) -> Shape:
    """Schedules that are due and not lent."""
    return _due(_OPEN, ())


def due_schedules_of(dialect: Dialect, size: int) -> Shape:
    """The same, of these groups."""
    return _due(and_(_OPEN, one_of(schedules.c.family, "family", size)), names("family", size))


def _due(wanted: ColumnElement[bool], order: Any) -> Shape:
    found = select(*_COLUMNS).where(wanted, schedules.c.next <= bindparam("now"), _is_free())
    # Where rows are locked, two schedulers who ask at once take different ones.
    found = found.order_by(schedules.c.next, schedules.c.key).with_for_update(skip_locked=True)
    return first(found), (*order, "now", "lapsed", "absurd", "limit")


def lend_schedules(dialect: Dialect, size: int) -> Shape:
    """Lend these out."""
    lent: dict[str, Any] = {"receipt": bindparam("new_receipt"), "lent_until": bindparam("until")}
    return update(schedules).values(lent).where(one_of(schedules.c.key, "key", size)), (
        "new_receipt",
        "until",
        *names("key", size),
    )


def _lent() -> ColumnElement[bool]:
    return and_(schedules.c.key == bindparam("of"), schedules.c.receipt == bindparam("token"))


def advance_fired(dialect: Dialect, size: int) -> Shape:
    """Move a schedule on after a fire, if this token holds it."""
    fired: dict[str, Any] = {"last": bindparam("new_last"), "last_job": bindparam("job"), "next": bindparam("new_next")}
    changed = {**fired, **_COUNTED, **_UNLENT}
    return update(schedules).values(changed).where(_lent()), ("new_last", "job", "new_next", "of", "token")


def advance_only(dialect: Dialect, size: int) -> Shape:
    """Move a schedule on without a fire, if this token holds it."""
    changed = {"next": bindparam("new_next"), **_COUNTED, **_UNLENT}
    return update(schedules).values(changed).where(_lent()), ("new_next", "of", "token")


def next_schedule(dialect: Dialect, size: int) -> Shape:
    """When the first of all comes due, or back."""
    return _next(_OPEN), ()


def next_schedule_of(dialect: Dialect, size: int) -> Shape:
    """When the first of these groups does."""
    return _next(and_(_OPEN, one_of(schedules.c.family, "family", size))), names("family", size)


def _next(wanted: ColumnElement[bool]) -> Any:
    moment = case((schedules.c.receipt == literal_column("0"), schedules.c.next), else_=schedules.c.lent_until)
    return select(func.min(moment)).where(wanted, schedules.c.next.is_not(None))
