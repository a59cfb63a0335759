"""Rates and slots."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Table, bindparam, delete, func, select, update

from camora_sql.dialects.base import Dialect
from camora_sql.statements.parts import Shape, among, first, names, one_of, rows

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
    t = dialect.tables
    found = select(t.rates.c.name, t.rates.c.per, t.rates.c.grants).where(one_of(t.rates.c.name, "name", size))
    return found.with_for_update(), names("name", size)


def all_rates(dialect: Dialect, size: int) -> Shape:
    """Every window."""
    t = dialect.tables
    return select(t.rates.c.name, t.rates.c.per, t.rates.c.grants), ()


def put_rate(dialect: Dialect, size: int) -> Shape:
    """A window, in place of the one before."""
    t = dialect.tables
    values, order = rows(t.rates, 1, ("name", "per", "grants", "until"))
    return dialect.upsert(t.rates, values, key="name", change=("per", "grants", "until")), order


def count_slots(dialect: Dialect, size: int) -> Shape:
    """How many slots of these limits are held, and when the first of them lapses."""
    t = dialect.tables
    alive = (t.slots.c.until > bindparam("now"), one_of(t.slots.c.name, "name", size))
    found = select(t.slots.c.name, func.count(), func.min(t.slots.c.until)).where(*alive)
    return found.group_by(t.slots.c.name), ("now", *names("name", size))


def slots_of(dialect: Dialect, size: int) -> Shape:
    """All slots that these holders have or had."""
    t = dialect.tables
    return select(t.slots.c.holder, t.slots.c.name, t.slots.c.until).where(one_of(t.slots.c.holder, "holder", size)), (
        names("holder", size)
    )


def holders_of(dialect: Dialect, size: int) -> Shape:
    """Who holds slots of these limits."""
    t = dialect.tables
    alive = (t.slots.c.until > bindparam("now"), one_of(t.slots.c.name, "name", size))
    return select(t.slots.c.name, t.slots.c.holder).where(*alive), ("now", *names("name", size))


def put_slots(dialect: Dialect, size: int) -> Shape:
    """Slots for holders; one that a holder has had goes on."""
    t = dialect.tables
    values, order = rows(t.slots, size, ("name", "holder", "until"))
    return dialect.upsert(t.slots, values, key=("name", "holder"), change=("until",)), order


def extend_slots(dialect: Dialect, size: int) -> Shape:
    """Hold all slots of these holders for longer."""
    t = dialect.tables
    until: dict[str, Any] = {"until": bindparam("new_until")}
    return update(t.slots).values(until).where(one_of(t.slots.c.holder, "holder", size)), (
        "new_until",
        *names("holder", size),
    )


def delete_slots(dialect: Dialect, size: int) -> Shape:
    """Free all slots of these holders."""
    t = dialect.tables
    return delete(t.slots).where(one_of(t.slots.c.holder, "holder", size)), names("holder", size)


def end_slots(dialect: Dialect, size: int) -> Shape:
    """Free every slot."""
    t = dialect.tables
    return delete(t.slots), ()


def prune_rates(dialect: Dialect, size: int) -> Shape:
    """Delete some windows that nothing is in any more."""
    t = dialect.tables
    return _prune(dialect, t.rates, t.rates.c.name)


def prune_slots(dialect: Dialect, size: int) -> Shape:
    """Delete some slots whose lease is over."""
    t = dialect.tables
    return _prune(dialect, t.slots, t.slots.c.name, t.slots.c.holder)


def _prune(dialect: Dialect, table: Table, *key: Any) -> Shape:
    over = first(select(*key).where(table.c.until <= bindparam("now")).order_by(table.c.until)).with_for_update(
        skip_locked=True
    )
    return delete(table).where(among(dialect, over, *key)), ("now", "limit")
