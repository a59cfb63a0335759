"""Limits in tables: for the workers of any number of processes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Self

from camora.interfaces.limits import Ask, Limits, LimitUse

from camora_sql.counting import put_rate, read_rates, read_tally
from camora_sql.dialects.base import Need
from camora_sql.link import Link
from camora_sql.session import Session
from camora_sql.statements import limits as statements
from camora_sql.store import Store

__all__ = ["SqlLimits"]

_STEP = 500
"""Rows that are pruned at a time."""
_PRUNE_EVERY = 5.0
"""Seconds between two looks for what can be deleted."""


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
            # What is counted must not be added to by others before this is added.
            session.lock("limits")
            now = self._store.lease_now()
            tally = read_tally(session, asks, now)
            # One more, because the clock is cut to whole milliseconds: a lease is never shorter than promised.
            until = now + round(lease * 1000) + 1
            answers = [tally.take(ask, until) for ask in asks]
            for name in tally.charged:
                put_rate(session, name, tally.rates[name], now)
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
            rates = read_rates(session, names)
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
