"""One worker's hold on queues of a memory store, and the keeper of its leases."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from camora.builtin.memory.settling import settle
from camora.builtin.memory.store import MemoryStore
from camora.builtin.memory.waiting import Waiter
from camora.clock import MovableClock
from camora.interfaces.broker import Consumer, ConsumerSettings, Leases, LeaseVerdict
from camora.message import Delivery
from camora.outcome import Settlement

__all__ = ["MemoryConsumer", "MemoryLeases"]


class MemoryLeases(Leases):
    """Renews leases from any thread; the store is safe to use there."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    def extend(self, deliveries: Sequence[Delivery]) -> Sequence[LeaseVerdict]:
        """One verdict each."""
        return [LeaseVerdict.HELD if held else LeaseVerdict.LOST for held in self._store.extend(deliveries)]

    def cancelled(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Those whose job is to be cancelled."""
        flagged = self._store.flagged
        return [delivery for delivery in deliveries if delivery.id in flagged] if flagged else ()

    def close(self) -> None:
        """Nothing to let go of."""


class MemoryConsumer(Consumer):
    """Takes nothing ahead: what `receive` answers is all it holds."""

    def __init__(self, store: MemoryStore, settings: ConsumerSettings) -> None:
        self._store = store
        self._queues = tuple(dict.fromkeys(settings.queues))
        self._names = frozenset(self._queues)
        self._stake = store.new_stake(settings.worker, settings.lease)
        self._stopped = False
        self._waiter: Waiter[None] | None = None
        self._movable = store.clock if isinstance(store.clock, MovableClock) else None

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Lend up to `limit` messages. Between taking and returning there is no `await`: none can be lost there."""
        if self._stopped or limit <= 0:
            return ()
        deliveries, pause = self._store.take(self._stake, self._queues, limit)
        if deliveries or wait <= 0:
            return deliveries
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        while not self._is_over():
            waiter = self._waiter = Waiter[None](self._names)
            # Registered first, looked second: what comes in between wakes.
            self._store.wait_for_work(waiter)
            try:
                deliveries, pause = self._store.take(self._stake, self._queues, limit)
                left = until - loop.time()
                if deliveries or left <= 0:
                    return deliveries
                await self._sleep(waiter, left, pause)
            finally:
                self._store.stop_waiting(waiter)
        return ()

    def _is_over(self) -> bool:
        return self._stopped

    async def _sleep(self, waiter: Waiter[None], left: float, pause: float) -> None:
        if self._movable is None:
            await waiter.wait(min(left, pause))
            return
        unwatch = self._movable.watch(waiter.wake)
        try:
            # It may have been moved just before it was watched.
            if self._store.pause_before_work() > 0:
                await waiter.wait(left)
        finally:
            unwatch()

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        """One step for the whole batch."""
        return settle(self._store, settlements)

    def leases(self) -> Leases:
        """A keeper; any number may be used at once."""
        return MemoryLeases(self._store)

    async def stop(self) -> None:
        """Take nothing more; a pending `receive` returns at once."""
        self._stopped = True
        if self._waiter is not None:
            self._waiter.wake()

    async def close(self) -> None:
        """Stop. What is unsettled comes back when its lease lapses."""
        await self.stop()
