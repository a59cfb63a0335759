"""Rates and slots."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table, bindparam, delete, func, select, tuple_, update

from camora_sql.dialects.base import Dialect
from camora_sql.schema import rates, slots
from camora_sql.statements.parts import Shape, first, names, one_of, rows

__all__ = [
    "all_rates",
    "count_slots",
    "delete_slots",
    "end_slots",
    "extend_slots",
    "holders_of",
    "prune_rates",
    "prune_slots",
    "put_rate",
    "put_slots",
    "read_rates",
    "slots_of",
]


def read_rates(dialect: Dialect, size: int) -> Shape:
    """Windows, kept from others until the end of the transaction."""
    found = select(rates.c.name, rates.c.per, rates.c.grants).where(one_of(rates.c.name, "name", size))
    return found.with_for_update(), names("name", size)


def all_rates(dialect: Dialect, size: int) -> Shape:
    """Every window."""
    return select(rates.c.name, rates.c.per, rates.c.grants), ()


def put_rate(dialect: Dialect, size: int) -> Shape:
    """A window, in place of the one before."""
    values, order = rows(rates, 1, ("name", "per", "grants", "until"))
    return dialect.upsert(rates, values, key="name", change=("per", "grants", "until")), order


def count_slots(dialect: Dialect, size: int) -> Shape:
    """How many slots of these limits are held, and when the first of them lapses."""
    alive = (slots.c.until > bindparam("now"), one_of(slots.c.name, "name", size))
    found = select(slots.c.name, func.count(), func.min(slots.c.until)).where(*alive)
    return found.group_by(slots.c.name), ("now", *names("name", size))


def slots_of(dialect: Dialect, size: int) -> Shape:
    """All slots that these holders have or had."""
    return select(slots.c.holder, slots.c.name, slots.c.until).where(one_of(slots.c.holder, "holder", size)), (
        names("holder", size)
    )


def holders_of(dialect: Dialect, size: int) -> Shape:
    """Who holds slots of these limits."""
    alive = (slots.c.until > bindparam("now"), one_of(slots.c.name, "name", size))
    return select(slots.c.name, slots.c.holder).where(*alive), ("now", *names("name", size))


def put_slots(dialect: Dialect, size: int) -> Shape:
    """Slots for holders; one that a holder has had goes on."""
    values, order = rows(slots, size, ("name", "holder", "until"))
    return dialect.upsert(slots, values, key=("name", "holder"), change=("until",)), order


def extend_slots(dialect: Dialect, size: int) -> Shape:
    """Hold all slots of these holders for longer."""
    until: dict[str, Any] = {"until": bindparam("new_until")}
    return update(slots).values(until).where(one_of(slots.c.holder, "holder", size)), (
        "new_until",
        *names("holder", size),
    )


def delete_slots(dialect: Dialect, size: int) -> Shape:
    """Free all slots of these holders."""
    return delete(slots).where(one_of(slots.c.holder, "holder", size)), names("holder", size)


def end_slots(dialect: Dialect, size: int) -> Shape:
    """Free every slot."""
    return delete(slots), ()


def prune_rates(dialect: Dialect, size: int) -> Shape:
    """Delete some windows that nothing is in any more."""
    return _prune(rates, rates.c.name)


def prune_slots(dialect: Dialect, size: int) -> Shape:
    """Delete some slots whose lease is over."""
    return _prune(slots, slots.c.name, slots.c.holder)


def _prune(table: Table, *key: Any) -> Shape:
    over = first(select(*key).where(table.c.until <= bindparam("now")).order_by(table.c.until))
    place = key[0] if len(key) == 1 else tuple_(*key)
    return delete(table).where(place.in_(over)), ("now", "limit")
