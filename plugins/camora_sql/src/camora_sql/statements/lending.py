"""Lending messages out, and keeping them lent."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, and_, bindparam, exists, func, literal_column, or_, select, union_all, update

from camora_sql.dialects.base import Dialect
from camora_sql.schema import State, jobs
from camora_sql.statements.parts import Shape, first, is_open, many, names, one_of, state_is

__all__ = ["UNLENT", "cancelled", "claim", "extend_held", "lapse", "outlook", "promote"]


def outlook(dialect: Dialect, size: int) -> Shape:
    """Whether these queues have anything ready, when the next message is due, and when the next lease lapses."""
    looks = []
    for name in many("queue", size):
        one: Select[Any] = (
            select(literal_column("1")).select_from(jobs).where(state_is(State.READY), jobs.c.queue == name)
        )
        looks.append(and_(is_open(name), exists(one)))
    order = [name for name in names("queue", size) for _ in range(2)]
    next_due = select(func.min(jobs.c.due)).where(state_is(State.SCHEDULED))
    next_lapse = select(func.min(jobs.c.lease_until)).where(state_is(State.LEASED))
    return select(or_(*looks), next_due.scalar_subquery(), next_lapse.scalar_subquery()), order


def promote(dialect: Dialect, size: int) -> Shape:
    """Make ready what has come due."""
    came = select(jobs.c.seq).where(state_is(State.SCHEDULED), jobs.c.due <= bindparam("now"))
    found = first(came.order_by(jobs.c.due))
    return update(jobs).values(state=literal_column(str(State.READY))).where(jobs.c.seq.in_(found)), ("now", "limit")


UNLENT: dict[str, Any] = {
    "lease_until": literal_column("0"),
    "receipt": literal_column("0"),
    "worker": literal_column("''"),
}


def lapse(dialect: Dialect, size: int) -> Shape:
    """Make ready what was lent, and whose lease is over."""
    over = select(jobs.c.seq).where(state_is(State.LEASED), jobs.c.lease_until <= bindparam("moment"))
    found = first(over.order_by(jobs.c.lease_until))
    back = {"state": literal_column(str(State.READY)), **UNLENT}
    return update(jobs).values(back).where(jobs.c.seq.in_(found)), ("moment", "limit")


def claim(dialect: Dialect, size: int) -> Shape:
    """Lend out the most urgent messages of these queues."""
    columns = (jobs.c.seq, jobs.c.priority, jobs.c.due)
    urgent = (jobs.c.priority.desc(), jobs.c.due, jobs.c.seq)
    parts, order = [], ["lease_until", "receipt", "worker"]
    for place, name in enumerate(many("queue", size)):
        ready = select(*columns).where(state_is(State.READY), jobs.c.queue == name, is_open(name))
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
        "deliveries": jobs.c.deliveries + literal_column("1"),
    }
    answer = (*columns, jobs.c.id, jobs.c.queue, jobs.c.body, jobs.c.deliveries, jobs.c.key, jobs.c.key_ttl)
    return update(jobs).values(lent).where(jobs.c.seq.in_(found)).returning(*answer), order


def extend_held(dialect: Dialect, size: int) -> Shape:
    """Make leases last longer, if this token still holds them."""
    held = (jobs.c.receipt == bindparam("token"), one_of(jobs.c.seq, "seq", size), state_is(State.LEASED))
    until: dict[str, Any] = {"lease_until": bindparam("lease_until")}
    return update(jobs).values(until).where(*held), ("lease_until", "token", *names("seq", size))


def cancelled(dialect: Dialect, size: int) -> Shape:
    """All running messages that are to be cancelled: mostly none, found in an index of their own."""
    flagged = (jobs.c.cancel == literal_column("1"), state_is(State.LEASED))
    return select(jobs.c.seq, jobs.c.receipt).where(*flagged), ()
