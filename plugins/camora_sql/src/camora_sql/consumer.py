"""One worker's hold on a set of queues."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

from camora.clock import MovableClock
from camora.errors import CamoraError
from camora.interfaces.broker import Consumer, ConsumerSettings, Leases
from camora.message import Delivery
from camora.outcome import Action, Settlement

from camora_sql.dialects.base import Need
from camora_sql.errors import Held
from camora_sql.leases import SqlLeases
from camora_sql.link import Link
from camora_sql.procedures import Procedures
from camora_sql.session import Session
from camora_sql.settling import check
from camora_sql.wakeup import Topic

__all__ = ["SqlConsumer"]

logger = logging.getLogger("camora.sql")

_SHORT = 0.2
"""Seconds that a settlement waits for others who hold its job: those behind it want to be settled, too."""
_MOST_HELD = 4
"""Settlements that are tried by themselves although their jobs are held, before the rest waits with them."""
_PRUNE_EVERY, _PRUNE_SELDOM = 5.0, 60.0
"""Seconds between two looks for what can be deleted, while there is little of it: of a worker that is busy, or idle."""


class SqlConsumer(Consumer):
    """Takes nothing ahead: what `receive` answers is all it holds."""

    def __init__(self, link: Link, procedures: Procedures, settings: ConsumerSettings) -> None:
        self._link = link
        self._procedures = procedures
        self._store = link.store
        self._claimer = procedures.claimer(settings)
        self._loop = asyncio.get_running_loop()
        self._stopped = False
        self._woken = asyncio.Event()
        self._told_held = False
        self._prune_pause = 0.0
        self._prune_at = self._loop.time() + _PRUNE_EVERY

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Take up to `limit` messages, in one transaction."""
        if self._stopped or limit <= 0:
            return ()
        wakeups = self._link.wakeups
        mark = wakeups.mark()
        deliveries, pause = await self._take(limit)
        if deliveries or wait <= 0:
            return deliveries
        until = self._loop.time() + wait
        # Subscribed first, looked second: what comes in between wakes.
        unsubscribe = self._subscribe()
        # But where everything is heard that comes, the look before it does as well.
        looked = mark is not None and wakeups.mark() == mark
        try:
            while not self._is_over():
                self._woken.clear()
                if not looked:
                    deliveries, pause = await self._take(limit)
                looked = False
                left = until - self._loop.time()
                if deliveries or left <= 0:
                    return deliveries
                await self._sleep(min(left, max(pause, 0.001), wakeups.floor))
        finally:
            unsubscribe()
        return ()

    def _is_over(self) -> bool:
        return self._stopped

    def _subscribe(self) -> Callable[[], None]:
        end = self._link.wakeups.subscribe(Topic.JOBS, self._woken.set)
        clock = self._store.clock
        if not isinstance(clock, MovableClock):
            return end
        unwatch = clock.watch(self._wake_from_anywhere)

        def both() -> None:
            end()
            unwatch()

        return both

    def _wake_from_anywhere(self) -> None:
        self._loop.call_soon_threadsafe(self._woken.set)

    async def _sleep(self, seconds: float) -> None:
        timer = self._loop.call_later(seconds, self._woken.set)
        try:
            await self._woken.wait()
        finally:
            timer.cancel()

    async def _take(self, limit: int) -> tuple[Sequence[Delivery], float]:
        claimer = self._claimer
        prune = self._loop.time() >= self._prune_at

        def take(session: Session) -> tuple[list[Delivery], float, bool]:
            deliveries, pause = claimer.take(session, limit)
            more = False
            if prune:
                # What has been claimed must reach the worker, whatever becomes of the sweeping.
                with contextlib.suppress(CamoraError):
                    more = claimer.prune(session)
            return deliveries, pause, more

        taking = self._link.run(take)
        try:
            deliveries, pause, more = await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(self._give_back)
            raise
        if prune:
            # The less often the longer nothing has run: what there is to delete comes of that.
            self._prune_pause = 0.0 if more else min(max(self._prune_pause * 2, _PRUNE_EVERY), _PRUNE_SELDOM)
            self._prune_at = self._loop.time() + self._prune_pause
        if deliveries:
            self._prune_at = min(self._prune_at, self._loop.time() + _PRUNE_EVERY)
            self._prune_pause = 0.0
        if self._stopped and deliveries:
            await self._release(deliveries)
            return (), pause
        return deliveries, pause

    def _give_back(self, taking: asyncio.Future[tuple[list[Delivery], float, bool]]) -> None:
        """Nobody waits for these any more; what the database refuses now comes back with its lease."""
        if not taking.cancelled() and taking.exception() is None and taking.result()[0]:
            releasing = self._release(taking.result()[0])
            releasing.add_done_callback(lambda future: future.cancelled() or future.exception())

    def _release(self, deliveries: Sequence[Delivery]) -> asyncio.Future[list[bool | None]]:
        back = [Settlement(delivery=delivery, action=Action.RELEASE, charged=False) for delivery in deliveries]
        return self._settle(back, Need.NONE)

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool | None]:
        """Settle a batch, in one transaction; None for those whose jobs others hold, with a lock of their own."""
        if not settlements:
            return []
        check(settlements)
        try:
            answers = await self._settle(settlements, _need(settlements))
        except Held as error:
            if not self._told_held:
                self._told_held = True
                logger.warning("jobs wait to be settled: %s", error)
            return await self._settle_free(settlements)
        self._told_held = False
        return answers

    async def _settle_free(self, settlements: Sequence[Settlement]) -> Sequence[bool | None]:
        """Each by itself, so that one that is held keeps up no other."""
        answers: list[bool | None] = [None] * len(settlements)
        held = 0
        for place, one in enumerate(settlements):
            try:
                [answers[place]] = await self._settle([one], _need([one]))
            except Held:
                held += 1
                if held == _MOST_HELD:
                    # Whoever holds so many holds the table, perhaps: the rest is put off with them.
                    break
        return answers

    def _settle(self, settlements: Sequence[Settlement], need: Need) -> asyncio.Future[list[bool | None]]:
        procedures = self._procedures
        return self._link.batch(procedures.settle, settlements, need, single=procedures.single, patience=_SHORT)

    def leases(self) -> Leases:
        """A keeper with a connection of its own, made in the thread that uses it."""
        return SqlLeases(self._procedures, self._claimer.lease_ms)

    async def stop(self) -> None:
        """Take nothing more."""
        self._stopped = True
        self._woken.set()

    async def close(self) -> None:
        """Stop; the connection is the broker's."""
        await self.stop()


def _need(settlements: Sequence[Settlement]) -> Need:
    """A lone acknowledgement without a record may be that of `ack="before"`: undone, its job would run twice."""
    if len(settlements) == 1 and settlements[0].action is Action.ACK and settlements[0].record is None:
        return Need.KEPT
    return Need.SETTLED
