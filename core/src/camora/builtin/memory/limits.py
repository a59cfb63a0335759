"""Limits in memory: for the workers of one process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from camora.builtin.memory.store import MemoryStore
from camora.interfaces.limits import Ask, Limits, LimitUse

__all__ = ["MemoryLimits"]


class MemoryLimits(Limits):
    """Counts in the store that its broker keeps its messages in."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def _now(self) -> int:
        return int(self._store.clock.monotonic() * 1000)

    async def open(self) -> None:
        """Nothing to connect to."""

    async def take(self, asks: Sequence[Ask], *, lease: float) -> Sequence[float]:
        """One step for all."""
        with self._store.lock:
            now = self._now()
            until = now + round(lease * 1000)
            return [self._store.counters.take(ask, now, until) for ask in asks]

    async def keep(self, holders: Sequence[str], *, lease: float) -> Sequence[bool]:
        """One step for all."""
        with self._store.lock:
            now = self._now()
            until = now + round(lease * 1000)
            return [self._store.counters.keep(holder, now, until) for holder in holders]

    async def give_back(self, holders: Sequence[str]) -> None:
        """One step for all."""
        with self._store.lock:
            for holder in holders:
                self._store.counters.give_back(holder)

    async def usage(self, names: Sequence[str]) -> Sequence[LimitUse]:
        """As it is now."""
        with self._store.lock:
            now = self._now()
            return [self._store.counters.use(name, now) for name in names]

    def twin(self) -> Self:
        """On the same store."""
        return type(self)(self._store)

    async def close(self) -> None:
        """The counters stay with the store."""
