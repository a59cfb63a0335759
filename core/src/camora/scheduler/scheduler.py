"""One scheduler, from start to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from camora.clock import Clock, MovableClock
from camora.errors import BrokerUnavailable, DispatchUncertain
from camora.interfaces.schedule import Fire
from camora.lease import LoopWatch
from camora.scheduler.catch_up import BATCH
from camora.scheduler.firing import Firing, Triggers
from camora.scheduler.planning import ClockWatch, replan
from camora.scheduler.presence import Presence
from camora.scheduler.stopping import stopped_by_signals
from camora.scheduler.troubles import Troubles
from camora.schedules import Schedules

if TYPE_CHECKING:
    from camora.interfaces.workers import Order

__all__ = ["Scheduler"]

LEASE = 5.0
"""Seconds after which another scheduler repeats what a dead one had begun."""
_PATIENCE = 0.8 * LEASE
"""Seconds for one fire: it must end before its lease does."""
_LONGEST_SLEEP = 5.0
"""Seconds after which the clock is read again, whatever it said before."""
_BLOCKED_AFTER = 2.0
Signals = Callable[[Callable[[], None]], contextlib.AbstractContextManager[object]]
_AWAY = (BrokerUnavailable, DispatchUncertain)


class Scheduler:
    """Dispatches the jobs of all schedules, or of some groups', when they are due. Started once, stopped once.

    Any number may run, in any number of processes: each tick is lent to one of them, and its job has an id that follows
    from key and tick, so that a fire repeated after a crash is recognised by the broker. Belongs to one event loop.
    """

    def __init__(
        self, schedules: Schedules, *, groups: Sequence[str] | None, clock: Clock, logger: logging.Logger
    ) -> None:
        self.name = f"scheduler-{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self.fired = 0
        """How many jobs it has sent."""
        self._schedules = schedules
        self._parts = schedules.parts
        self._groups = None if groups is None else tuple(groups)
        self._clock = clock
        self._logger = logger
        self._triggers = Triggers(self._parts)
        self._firing = Firing(self._parts, self._triggers, logger)
        self._troubles = Troubles(logger)
        self._presence = Presence(self._parts, self.name, logger)
        self._prepared = False
        self._quiet = False
        self._failures = 0
        self._stop = asyncio.Event()
        self._nudge = asyncio.Event()
        self._work: asyncio.Task[None] | None = None

    # Step by step

    async def run_due(self) -> int:
        """Fire everything that is due by the clock; returns how many jobs were sent.

        Stores what the app declares first, the first time. Raises `BrokerUnavailable`, and what `Schedules.sync`
        raises; what is wrong with one schedule is logged, and stops no other.
        """
        await self._prepare()
        store = await self._parts.store()
        sent = 0
        while not self._stop.is_set():
            fires = await store.claim(
                self._clock.now_ms(), holder=self.name, lease=LEASE, groups=self._groups, limit=BATCH
            )
            if not fires:
                break
            sent += await self._fire_all(fires)
        return sent

    async def next_due(self) -> int | None:
        """When something is due next, in milliseconds since the epoch; None for never, as things stand."""
        await self._prepare()
        return await (await self._parts.store()).next_due(self._groups)

    async def _prepare(self) -> None:
        if not self._prepared:
            await self._schedules.sync()
            await replan(self._parts, self._triggers, self._groups, self._logger)
            self._prepared = True

    async def _fire_all(self, fires: Sequence[Fire]) -> int:
        loop = asyncio.get_running_loop()
        # Side by side: one that hangs holds up no other. The names are what a blocked loop's warning shows.
        firing = [loop.create_task(self._fire(fire), name=f"schedule {fire.record.key}") for fire in fires]
        try:
            results = await asyncio.gather(*firing, return_exceptions=True)
        except asyncio.CancelledError:
            for task in firing:
                task.cancel()
            await asyncio.gather(*firing, return_exceptions=True)
            raise
        sent = sum(result for result in results if isinstance(result, int))
        self.fired += sent
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return sent

    async def _fire(self, fire: Fire) -> int:
        key = fire.record.key
        try:
            async with asyncio.timeout(_PATIENCE):
                sent = await self._firing.fire(fire)
        except _AWAY:
            raise
        except TimeoutError:
            self._troubles.failed(key, TimeoutError(f"it was not fired within {_PATIENCE:g} s"))
            return 0
        except Exception as error:  # noqa: BLE001 -- whatever is wrong with one schedule, the others go on
            self._troubles.failed(key, error)
            return 0
        self._troubles.fine(key)
        return sent

    # Running

    async def run(self, *, signals: Signals = stopped_by_signals) -> None:
        """Start, and fire until SIGTERM, SIGINT or `stop`; a second signal does not wait for what is under way.

        `signals` is how they are heard: a context manager in which each calls the function it is given. Raises as
        `start`.
        """
        watch = LoopWatch(_culprit, after=_BLOCKED_AFTER, logger=self._logger)
        watch.start()
        try:
            with signals(self._signalled):
                await self.start()
                await self._stop.wait()
                await self.close()
        finally:
            await self.close()
            await watch.close()

    async def start(self) -> None:
        """Store what the app declares, and begin to fire. Waits for a broker that is away, until stopped.

        Raises `UnsupportedCapability` where the stack keeps no schedules, or `ConfigurationError` for a key that is
        taken.
        """
        while not self._stop.is_set():
            try:
                await self._prepare()
                break
            except _AWAY as error:
                await self._rest_after(error)
        if self._stop.is_set():
            return
        self._recovered()
        self._begin()
        groups = "all groups" if self._groups is None else f"group {', '.join(self._groups)}"
        self._logger.info("scheduler %s fires the schedules of %s", self.name, groups)

    def _begin(self) -> None:
        self._work = asyncio.get_running_loop().create_task(self._fire_until_stopped(), name=self.name)
        self._work.add_done_callback(self._begin_again)

    def _begin_again(self, ended: asyncio.Task[None]) -> None:
        """A job in the same loop that cancels every task it can find must not end the schedules."""
        if ended is self._work and ended.cancelled() and not self._stop.is_set():
            self._logger.warning("something has cancelled the scheduler's own task; it goes on")
            self._begin()

    def stop(self) -> None:
        """Fire nothing more, and let `run` end."""
        self._stop.set()
        self._nudge.set()

    def _signalled(self) -> None:
        if self._stop.is_set() and self._work is not None:
            self._work.cancel()
        self.stop()

    async def close(self) -> None:
        """Stop, and wait for what is being fired; what is not done within seconds is repeated by others.

        The connection stays the app's. May be repeated.
        """
        self.stop()
        if self._work is None:
            return
        await asyncio.gather(self._work, return_exceptions=True)
        self._work = None
        await self._presence.leave()
        self._logger.info("scheduler %s stopped; it sent %d jobs", self.name, self.fired)

    async def _fire_until_stopped(self) -> None:
        watch = ClockWatch(self._clock)
        with self._told_of_moves():
            while not self._stop.is_set():
                try:
                    await self._round(watch)
                except Exception as error:  # noqa: BLE001 -- a scheduler does not end because of the world
                    await self._rest_after(error)

    async def _round(self, watch: ClockWatch) -> None:
        if watch.was_set_back():
            self._logger.warning("the clock was set back; schedules are planned anew")
            await replan(self._parts, self._triggers, self._groups, self._logger)
        for order in await self._presence.report(state="quiet" if self._quiet else "running", fired=self.fired):
            self._obey(order)
        if not self._quiet:
            await self.run_due()
        self._recovered()
        await self._sleep(await self._pause())

    async def _pause(self) -> float:
        due = None if self._quiet else await self.next_due()
        if due is None:
            return _LONGEST_SLEEP
        return min(_LONGEST_SLEEP, max(0.001, (due - self._clock.now_ms()) / 1000))

    async def _sleep(self, pause: float) -> None:
        """Until somebody changes a schedule, moves the clock or stops this scheduler, or the pause is over."""
        if self._stop.is_set():
            return
        store = await self._parts.store()
        loop = asyncio.get_running_loop()
        changed = loop.create_task(store.changed(pause))
        nudged = loop.create_task(_set(self._nudge))
        try:
            await asyncio.wait({changed, nudged}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = changed.done()
            for task in (changed, nudged):
                task.cancel()
            await asyncio.gather(changed, nudged, return_exceptions=True)
        self._nudge.clear()
        if ended:
            changed.result()

    @contextlib.contextmanager
    def _told_of_moves(self) -> Iterator[None]:
        if not isinstance(self._clock, MovableClock):
            yield
            return
        loop = asyncio.get_running_loop()

        def moved() -> None:
            loop.call_soon_threadsafe(self._nudge.set)

        unwatch = self._clock.watch(moved)
        try:
            yield
        finally:
            unwatch()

    def _obey(self, order: Order) -> None:
        if order == "stop":
            self.stop()
        else:
            self._quiet = order == "quiet"

    # When the world is away

    async def _rest_after(self, error: Exception) -> None:
        self._failures += 1
        if self._failures == 1 and isinstance(error, _AWAY):
            self._logger.warning("the store of schedules or the broker is away, trying again: %s", error)
        elif self._failures == 1:
            self._logger.error("the scheduler failed, and tries again: %s", error, exc_info=error)
        longest = min(_LONGEST_SLEEP, 0.1 * 2 ** min(self._failures, 6))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(random.uniform(0.05, longest)):  # noqa: S311 -- jitter
                await self._stop.wait()

    def _recovered(self) -> None:
        if self._failures:
            self._failures = 0
            self._logger.info("the scheduler goes on")


def _culprit(task: asyncio.Task[object] | None) -> str:
    return "something outside any schedule" if task is None else task.get_name()


async def _set(event: asyncio.Event) -> None:
    await event.wait()
