"""Schedules in memory: for the schedulers of one process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from camora.builtin.memory.store import MemoryStore
from camora.builtin.memory.waiting import Waiter, wake_all
from camora.interfaces.schedule import Fire, ScheduleRecord, ScheduleStore

__all__ = ["MemoryScheduleStore"]


class MemoryScheduleStore(ScheduleStore):
    """Keeps schedules in the store that its broker keeps its messages in."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self._store = store if store is not None else MemoryStore()
        self._table = self._store.timetable
        self._seen = self._table.changes

    async def open(self) -> None:
        """Nothing to connect to."""

    async def put(self, records: Sequence[ScheduleRecord]) -> None:
        """One step for all."""
        with self._store.lock:
            self._table.put(records)
        self._wake()

    async def remove(self, keys: Sequence[str]) -> int:
        """One step for all."""
        with self._store.lock:
            gone = self._table.remove(keys)
        self._wake()
        return gone

    async def get(self, keys: Sequence[str]) -> Sequence[ScheduleRecord | None]:
        """As they are now."""
        with self._store.lock:
            return [self._table.get(key) for key in keys]

    async def list(self, group: str | None = None) -> Sequence[ScheduleRecord]:
        """As they are now."""
        with self._store.lock:
            return self._table.all(group)

    async def pause(
        self, keys: Sequence[str], *, paused: bool | None = True, next_ticks: Sequence[int | None] = ()
    ) -> int:
        """One step for all."""
        with self._store.lock:
            found = self._table.pause(keys, paused, next_ticks)
        self._wake()
        return found

    async def claim(
        self, now: int, *, holder: str, lease: float, groups: Sequence[str] | None = None, limit: int = 100
    ) -> Sequence[Fire]:
        """One step for all."""
        with self._store.lock:
            return self._table.claim(now, round(lease * 1000), groups, limit)

    async def advance(self, fire: Fire, *, last: int | None, next_tick: int | None, job_id: str = "") -> bool:
        """Fenced by the receipt."""
        with self._store.lock:
            return self._table.advance(fire, last, next_tick, job_id)

    async def next_due(self, groups: Sequence[str] | None = None) -> int | None:
        """By a look at all of them."""
        with self._store.lock:
            return self._table.next_due(groups)

    async def changed(self, timeout: float) -> None:
        """Woken by whoever changes one."""
        waiter: Waiter[None] = Waiter()
        with self._store.lock:
            waiting = self._seen == self._table.changes
            if waiting:
                self._table.waiters.add(waiter)
        try:
            if waiting:
                await waiter.wait(timeout)
        finally:
            with self._store.lock:
                self._table.waiters.discard(waiter)
                self._seen = self._table.changes

    def _wake(self) -> None:
        with self._store.lock:
            waiters = list(self._table.waiters) if self._table.changes != self._table.told else []
            self._table.told = self._table.changes
        wake_all((waiter, None) for waiter in waiters)

    def twin(self) -> Self:
        """On the same store."""
        return type(self)(self._store)

    async def close(self) -> None:
        """The schedules stay with the store."""
