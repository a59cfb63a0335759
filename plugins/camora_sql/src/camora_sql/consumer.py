"""One worker's hold on a set of queues."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from camora.clock import MovableClock
from camora.errors import BrokerUnavailable, CamoraError
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
_LAST = 3.0
"""Seconds that the end waits for what is to go back: then it comes back with its lease."""
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
        self._told_unswept = False
        self._returning: asyncio.Future[None] | None = None
        self._sweeping: asyncio.Future[bool] | None = None
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
        if self._returning is not None:
            # One claim at a time; and what the one before has brought is among what there is to claim.
            await asyncio.wait([self._returning])
            if self._stopped:
                return (), 0.0
        taking = self._link.run(lambda session: claimer.take(session, limit))
        try:
            deliveries, pause = await asyncio.shield(taking)
        except asyncio.CancelledError:
            self._give_back(taking)
            raise
        if deliveries:
            self._prune_at = min(self._prune_at, self._loop.time() + _PRUNE_EVERY)
            self._prune_pause = 0.0
        self._sweep()
        if self._stopped and deliveries:
            await self._release(deliveries)
            return (), pause
        return deliveries, pause

    def _sweep(self) -> None:
        """Now and then, beside the claims: what has been claimed must reach the worker at once, whatever this does."""
        claimer = self._claimer
        prune = self._loop.time() >= self._prune_at
        if self._sweeping is not None or not (prune or claimer.is_behind):
            return

        def sweep(session: Session) -> bool:
            claimer.catch_up(session)
            return prune and claimer.prune(session)

        def swept(sweeping: asyncio.Future[bool]) -> None:
            self._sweeping = None
            error = None if sweeping.cancelled() else sweeping.exception()
            more = not sweeping.cancelled() and error is None and sweeping.result()
            if error is not None and not self._told_unswept:
                self._told_unswept = True
                expected = isinstance(error, BrokerUnavailable)
                logger.warning("the upkeep of the queues fails: %s", error, exc_info=None if expected else error)
            if prune:
                self._told_unswept = self._told_unswept and error is not None
                # The less often the longer nothing has run: what there is to delete comes of that.
                self._prune_pause = 0.0 if more else min(max(self._prune_pause * 2, _PRUNE_EVERY), _PRUNE_SELDOM)
                self._prune_at = self._loop.time() + self._prune_pause

        self._sweeping = self._link.run(sweep)
        self._sweeping.add_done_callback(swept)

    def _give_back(self, taking: asyncio.Future[tuple[list[Delivery], float]]) -> None:
        """Nobody waits for these any more; what cannot be given back now comes back with its lease."""
        returning = self._returning = self._loop.create_future()

        # Callbacks, and no task: whoever cancels all tasks that there are must not keep the messages here.
        def taken(taking: asyncio.Future[tuple[list[Delivery], float]]) -> None:
            if taking.cancelled() or taking.exception() is not None or not taking.result()[0]:
                gone()
                return
            try:
                releasing = self._release(taking.result()[0])
            except CamoraError:  # the broker was closed first
                gone()
                return
            releasing.add_done_callback(released)

        def released(releasing: asyncio.Future[list[bool | None]]) -> None:
            if not releasing.cancelled():
                releasing.exception()
            gone()

        def gone() -> None:
            if self._returning is returning:
                self._returning = None
            returning.set_result(None)

        taking.add_done_callback(taken)

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
        """Take nothing more; what a cancelled `receive` has taken goes back, for 3 seconds at most."""
        self._stopped = True
        self._woken.set()
        if self._returning is not None:
            await asyncio.wait([self._returning], timeout=_LAST)

    async def close(self) -> None:
        """Stop; the connection is the broker's."""
        await self.stop()


def _need(settlements: Sequence[Settlement]) -> Need:
    """A lone acknowledgement without a record may be that of `ack="before"`: undone, its job would run twice."""
    if len(settlements) == 1 and settlements[0].action is Action.ACK and settlements[0].record is None:
        return Need.KEPT
    return Need.SETTLED
