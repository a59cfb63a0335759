"""The directory of workers, in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from camora.builtin.memory.store import MemoryStore
from camora.interfaces.workers import Order, WorkerDirectory, WorkerInfo

__all__ = ["MemoryWorkers"]


class MemoryWorkers(WorkerDirectory):
    """Workers that report into one memory store, from any loop or thread."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def open(self) -> None:
        """Nothing to connect to."""

    async def report(self, info: WorkerInfo, *, ttl: float) -> Sequence[Order]:
        """Note that it lives; the orders it has not heard yet."""
        with self._store.lock:
            return self._store.presences.put(info, ttl, self._store.clock.monotonic())

    async def list(self) -> Sequence[WorkerInfo]:
        """Those whose time has not passed."""
        with self._store.lock:
            return self._store.presences.all(self._store.clock.monotonic())

    async def order(self, name: str, order: Order) -> bool:
        """Leave an order."""
        with self._store.lock:
            return self._store.presences.order(name, order, self._store.clock.monotonic())

    async def remove(self, name: str) -> None:
        """Forget one."""
        with self._store.lock:
            self._store.presences.remove(name)

    def twin(self) -> Self:
        """Another one on the same store."""
        return type(self)(self._store)

    async def close(self) -> None:
        """The store stays for the others."""
