"""The path of a job where a statement cannot both change rows and answer them: look and lock first, change then.

What is locked is of this transaction alone until its end, so what changes it need not ask again.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Select, Update, bindparam, delete, func, literal_column, select, union_all, update

from camora_sql.dialects.base import Dialect
from camora_sql.schema import State, Tables
from camora_sql.statements.lending import UNLENT
from camora_sql.statements.parts import Shape, first, is_open, many, names, one_of, state_is

__all__ = [
    "delete_newer",
    "keep",
    "lend",
    "look_held",
    "make_ready",
    "note_newest",
    "pick",
    "pick_due",
    "pick_lapsed",
    "try_held",
]

_SERVERS = ("mysql", "mariadb")
_BY_PLACE = "FORCE INDEX (PRIMARY)"
"""Else a small table might be gone through, and rows of others be waited for."""
_NEWEST: ColumnElement[Any] = literal_column("@camora_newest")


def pick(dialect: Dialect, size: int) -> Shape:
    """Lock the most urgent messages of these queues, and pass over what others have locked; as they are delivered."""
    t = dialect.tables
    jobs = t.jobs.c
    lent = (jobs.deliveries + literal_column("1")).label("deliveries")
    answer = (jobs.seq, jobs.priority, jobs.due, jobs.id, jobs.queue, jobs.body, lent, jobs.key, jobs.key_ttl)
    if size == 1:
        [name] = many("queue", 1)
        found = _urgent(t, select(*answer), name, "limit_0")
        return found, ("queue_0", "queue_0", "limit_0")
    keys = (jobs.seq, jobs.urgency, jobs.due)
    parts, order = [], []
    for place, name in enumerate(many("queue", size)):
        # Each queue by itself, so that its part of the index is read in order and no further than needed.
        parts.append(select(_urgent(t, select(*keys), name, f"limit_{place}").subquery()))
        order += [f"queue_{place}", f"queue_{place}", f"limit_{place}"]
    together = union_all(*parts).subquery("ready").c
    best = first(select(together.seq).order_by(together.urgency, together.due, together.seq)).subquery("best")
    # The rows are read as they were locked, which may be newer than when the statement began.
    rows = select(*answer).select_from(best.join(t.jobs, jobs.seq == best.c.seq)).with_for_update()
    return rows.prefix_with("STRAIGHT_JOIN"), (*order, "limit")


def _urgent(t: Tables, wanted: Select[Any], name: Any, limit: str) -> Select[Any]:
    ready = wanted.where(state_is(t, State.READY), t.jobs.c.queue == name, is_open(t, name))
    # Whatever the statistics say after a sudden backlog.
    for server in _SERVERS:
        ready = ready.with_hint(t.jobs, f"FORCE INDEX ({t.prefix}jobs_ready)", server)
    ready = ready.order_by(t.jobs.c.urgency, t.jobs.c.due, t.jobs.c.seq)
    return first(ready, limit).with_for_update(skip_locked=True)


def lend(dialect: Dialect, size: int) -> Shape:
    """Lend out what was locked."""
    t = dialect.tables
    lent: dict[str, Any] = {
        "state": literal_column(str(State.LEASED)),
        "lease_until": bindparam("lease_until"),
        "receipt": bindparam("token"),
        "deliveries": t.jobs.c.deliveries + literal_column("1"),
        "worker": bindparam("holder"),
    }
    order = ("lease_until", "token", "holder", *names("seq", size))
    return _by_place(update(t.jobs).values(lent).where(one_of(t.jobs.c.seq, "seq", size))), order


def _by_place(statement: Update) -> Update:
    for server in _SERVERS:
        statement = statement.with_hint(_BY_PLACE, dialect_name=server)
    return statement


def pick_due(dialect: Dialect, size: int) -> Shape:
    """Lock what has come due, and pass over what others have locked."""
    t = dialect.tables
    came = select(t.jobs.c.seq).where(state_is(t, State.SCHEDULED), t.jobs.c.due <= bindparam("now"))
    return first(came.order_by(t.jobs.c.due)).with_for_update(skip_locked=True), ("now", "limit")


def pick_lapsed(dialect: Dialect, size: int) -> Shape:
    """Lock what was lent, and whose lease is over, and pass over what others have locked."""
    t = dialect.tables
    over = select(t.jobs.c.seq).where(state_is(t, State.LEASED), t.jobs.c.lease_until <= bindparam("moment"))
    return first(over.order_by(t.jobs.c.lease_until)).with_for_update(skip_locked=True), ("moment", "limit")


def make_ready(dialect: Dialect, size: int) -> Shape:
    """Make ready what was locked."""
    t = dialect.tables
    ready = {"state": literal_column(str(State.READY)), **UNLENT}
    return _by_place(update(t.jobs).values(ready).where(one_of(t.jobs.c.seq, "seq", size))), names("seq", size)


def try_held(dialect: Dialect, size: int) -> Shape:
    """Lock those of these messages that nobody has locked; their tokens, and what a dead letter has to remember."""
    t = dialect.tables
    answer = (t.jobs.c.seq, t.jobs.c.receipt, t.jobs.c.priority, t.jobs.c.expires, t.jobs.c.task)
    found = select(*answer).where(one_of(t.jobs.c.seq, "seq", size)).with_for_update(skip_locked=True)
    for server in _SERVERS:
        found = found.with_hint(t.jobs, _BY_PLACE, server)
    return found, names("seq", size)


def look_held(dialect: Dialect, size: int) -> Shape:
    """The tokens of these messages and the ends of their leases, and no lock."""
    t = dialect.tables
    answer = (t.jobs.c.seq, t.jobs.c.receipt, t.jobs.c.lease_until)
    return select(*answer).where(one_of(t.jobs.c.seq, "seq", size)), names("seq", size)


def keep(dialect: Dialect, size: int) -> Shape:
    """Make leases of what was locked last longer."""
    t = dialect.tables
    until: dict[str, Any] = {"lease_until": bindparam("new_until")}
    return _by_place(update(t.jobs).values(until).where(one_of(t.jobs.c.seq, "seq", size))), (
        "new_until",
        *names("seq", size),
    )


def note_newest(dialect: Dialect, size: int) -> Shape:
    """Have the connection remember which message is the newest: those that it stores from here on are newer."""
    t = dialect.tables
    return select(_NEWEST.op(":=")(func.coalesce(func.max(t.jobs.c.seq), literal_column("0")))), ()


def delete_newer(dialect: Dialect, size: int) -> Shape:
    """Delete those of these messages that were stored since."""
    t = dialect.tables
    return delete(t.jobs).where(t.jobs.c.seq > _NEWEST, one_of(t.jobs.c.id, "id", size)), names("id", size)
