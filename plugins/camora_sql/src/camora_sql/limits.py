"""Limits in tables: for the workers of any number of processes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Self

import msgspec
from camora.interfaces.limits import Ask, Limits, LimitUse

from camora_sql.dialects.base import Need
from camora_sql.link import Link
from camora_sql.session import Session
from camora_sql.statements import limits as statements
from camora_sql.store import Store
from camora_sql.tally import Rate, Tally, granted_now

__all__ = ["SqlLimits", "begin_anew"]

_STEP = 500
"""Rows that are pruned at a time."""
_PRUNE_EVERY = 5.0
"""Seconds between two looks for what can be deleted."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[tuple[int, int]]).decode


class SqlLimits(Limits):
    """Each method is one transaction, or one look. Moments are on the dialect's lease clock, which nobody sets."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._link = Link(store, f"SqlLimits({store.dialect.label})")
        self._prune_at = 0.0

    def __repr__(self) -> str:
        return f"SqlLimits({self._store.dialect.label!r})"

    async def open(self) -> None:
        """Connect; make or check the schema."""
        await self._link.open()

    async def take(self, asks: Sequence[Ask], *, lease: float) -> Sequence[float]:
        """One transaction for all."""
        if not asks:
            return []
        loop_now = asyncio.get_running_loop().time()
        prune = loop_now >= self._prune_at
        if prune:
            self._prune_at = loop_now + _PRUNE_EVERY

        def take(session: Session) -> list[float]:
            now = self._store.lease_now()
            tally = _tally(session, asks, now)
            # One more, because the clock is cut to whole milliseconds: a lease is never shorter than promised.
            until = now + round(lease * 1000) + 1
            answers = [tally.take(ask, until) for ask in asks]
            for name in tally.charged:
                _put(session, name, tally.rates[name], now)
            slots = [(name, holder, end) for (name, holder), end in tally.taken.items()]
            session.insert(statements.put_slots, slots)
            if prune:
                session.change(statements.prune_rates, (now, _STEP))
                session.change(statements.prune_slots, (now, _STEP))
            return answers

        return await self._link.write(take, Need.NONE)

    async def keep(self, holders: Sequence[str], *, lease: float) -> Sequence[bool]:
        """One transaction for all."""
        if not holders:
            return []

        def keep(session: Session) -> list[bool]:
            now = self._store.lease_now()
            alive: dict[str, bool] = {}
            for holder, _, until in session.rows_in(statements.slots_of, holders):
                alive[holder] = until > now and alive.get(holder, True)
            kept = [holder for holder, held in alive.items() if held]
            session.change_in(statements.extend_slots, kept, (now + round(lease * 1000) + 1,))
            return [alive.get(holder, False) for holder in holders]

        return await self._link.write(keep, Need.NONE)

    async def give_back(self, holders: Sequence[str]) -> None:
        """One transaction for all."""
        if holders:
            await self._link.write(lambda session: session.change_in(statements.delete_slots, holders), Need.NONE)

    async def usage(self, names: Sequence[str]) -> Sequence[LimitUse]:
        """One look."""
        if not names:
            return []

        def look(session: Session) -> list[LimitUse]:
            now = self._store.lease_now()
            rates = _rates(session, names)
            held: dict[str, list[str]] = defaultdict(list)
            for name, holder in session.rows_in(statements.holders_of, names, (now,)):
                held[name].append(holder)
            return [
                LimitUse(name=name, used=rates[name].used(now))
                if name in rates
                else LimitUse(name=name, used=len(held[name]), holders=tuple(sorted(held[name])))
                for name in names
            ]

        return await self._link.read(look)

    def twin(self) -> Self:
        """Another one on the same database, with a connection of its own."""
        return type(self)(self._store)

    def abandon(self) -> None:
        """End the thread of a loop that is gone."""
        self._link.abandon()

    async def close(self) -> None:
        """End the thread and its connection."""
        await self._link.close()


def begin_anew(session: Session, now: int) -> None:
    """The lease clock began again: nobody holds a slot any more, and what was granted was granted just now."""
    session.change(statements.end_slots)
    for name, rate in _rates_from(session.rows(statements.all_rates)).items():
        _put(session, name, granted_now(sum(count for _, count in rate.grants), now, per=rate.per), now)


def _tally(session: Session, asks: Sequence[Ask], now: int) -> Tally:
    limits = {limit.name: limit for ask in asks for limit in ask.limits}
    rates = [name for name, limit in limits.items() if limit.per]
    slots = [name for name, limit in limits.items() if not limit.per]
    counts = session.rows_in(statements.count_slots, slots, (now,))
    mine = session.rows_in(statements.slots_of, [ask.holder for ask in asks]) if slots else []
    return Tally(
        now=now,
        rates=_rates(session, rates),
        held={name: (count, lapses) for name, count, lapses in counts},
        holding={(name, holder) for holder, name, until in mine if until > now},
    )


def _rates(session: Session, names: Sequence[str]) -> dict[str, Rate]:
    return _rates_from(session.rows_in(statements.read_rates, names))


def _rates_from(rows: Sequence[Any]) -> dict[str, Rate]:
    return {name: Rate(per, _decode(grants)) for name, per, grants in rows}


def _put(session: Session, name: str, rate: Rate, now: int) -> None:
    session.change(statements.put_rate, (name, rate.per, _encode(rate.grants).decode(), rate.empty_at(now)))
