"""Lending messages out, and keeping them lent."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, and_, bindparam, exists, func, literal_column, or_, select, union_all, update

from camora_sql.dialects.base import Dialect
from camora_sql.schema import State
from camora_sql.statements.parts import Shape, among, first, is_open, many, names, one_of, state_is

__all__ = ["UNLENT", "cancelled", "claim", "extend_held", "lapse", "outlook", "promote", "take_back"]


def outlook(dialect: Dialect, size: int) -> Shape:
    """Whether these queues have anything ready, when the next message is due, and when the next lease lapses."""
    t = dialect.tables
    looks = []
    for name in many("queue", size):
        one: Select[Any] = (
            select(literal_column("1")).select_from(t.jobs).where(state_is(t, State.READY), t.jobs.c.queue == name)
        )
        looks.append(and_(is_open(t, name), exists(one)))
    order = [name for name in names("queue", size) for _ in range(2)]
    next_due = select(func.min(t.jobs.c.due)).where(state_is(t, State.SCHEDULED))
    next_lapse = select(func.min(t.jobs.c.lease_until)).where(state_is(t, State.LEASED))
    return select(or_(*looks), next_due.scalar_subquery(), next_lapse.scalar_subquery()), order


def promote(dialect: Dialect, size: int) -> Shape:
    """Make ready what has come due."""
    t = dialect.tables
    came = select(t.jobs.c.seq).where(state_is(t, State.SCHEDULED), t.jobs.c.due <= bindparam("now"))
    found = first(came.order_by(t.jobs.c.due)).with_for_update(skip_locked=True)
    ready: dict[str, Any] = {"state": literal_column(str(State.READY))}
    return update(t.jobs).values(ready).where(among(dialect, found, t.jobs.c.seq)), ("now", "limit")


UNLENT: dict[str, Any] = {
    "lease_until": literal_column("0"),
    "receipt": literal_column("0"),
    "worker": literal_column("''"),
}


def lapse(dialect: Dialect, size: int) -> Shape:
    """Make ready what was lent, and whose lease is over."""
    t = dialect.tables
    over = select(t.jobs.c.seq).where(state_is(t, State.LEASED), t.jobs.c.lease_until <= bindparam("moment"))
    found = first(over.order_by(t.jobs.c.lease_until)).with_for_update(skip_locked=True)
    back = {"state": literal_column(str(State.READY)), **UNLENT}
    return update(t.jobs).values(back).where(among(dialect, found, t.jobs.c.seq)), ("moment", "limit")


def claim(dialect: Dialect, size: int) -> Shape:
    """Lend out the most urgent messages of these queues."""
    t = dialect.tables
    columns = (t.jobs.c.seq, t.jobs.c.priority, t.jobs.c.due)
    urgent = (t.jobs.c.priority.desc(), t.jobs.c.due, t.jobs.c.seq)
    parts, order = [], ["lease_until", "receipt", "worker"]
    for place, name in enumerate(many("queue", size)):
        ready = select(*columns).where(state_is(t, State.READY), t.jobs.c.queue == name, is_open(t, name))
        # Each queue by itself, so that its part of the index is read in order and no further than needed.
        parts.append(select(first(ready.order_by(*urgent), f"limit_{place}").subquery()))
        order += [f"queue_{place}", f"queue_{place}", f"limit_{place}"]
    if size == 1:
        found = select(parts[0].subquery().c.seq)
    else:
        together = union_all(*parts).subquery()
        best = (together.c.priority.desc(), together.c.due, together.c.seq)
        found = first(select(together.c.seq).order_by(*best))
        order.append("limit")
    lent = {
        "state": literal_column(str(State.LEASED)),
        "lease_until": bindparam("lease_until"),
        "receipt": bindparam("receipt"),
        "worker": bindparam("worker"),
        "deliveries": t.jobs.c.deliveries + literal_column("1"),
    }
    answer = (*columns, t.jobs.c.id, t.jobs.c.queue, t.jobs.c.body, t.jobs.c.deliveries, t.jobs.c.key, t.jobs.c.key_ttl)
    return update(t.jobs).values(lent).where(t.jobs.c.seq.in_(found)).returning(*answer), order


def take_back(dialect: Dialect, size: int) -> Shape:
    """Make ready again what a claim has lent whose answer was lost: it does not count as a delivery."""
    t = dialect.tables
    back = {
        "state": literal_column(str(State.READY)),
        "deliveries": t.jobs.c.deliveries - literal_column("1"),
        **UNLENT,
    }
    lent = (state_is(t, State.LEASED), t.jobs.c.receipt == bindparam("token"))
    return update(t.jobs).values(back).where(*lent), ("token",)


def extend_held(dialect: Dialect, size: int) -> Shape:
    """Make leases last longer, if this token still holds them."""
    t = dialect.tables
    held = (t.jobs.c.receipt == bindparam("token"), one_of(t.jobs.c.seq, "seq", size), state_is(t, State.LEASED))
    until: dict[str, Any] = {"lease_until": bindparam("lease_until")}
    return update(t.jobs).values(until).where(*held), ("lease_until", "token", *names("seq", size))


def cancelled(dialect: Dialect, size: int) -> Shape:
    """All running messages that are to be cancelled: mostly none, found in an index of their own."""
    t = dialect.tables
    flagged = (t.jobs.c.cancel == literal_column("1"), state_is(t, State.LEASED))
    return select(t.jobs.c.seq, t.jobs.c.receipt).where(*flagged), ()
