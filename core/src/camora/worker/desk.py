"""Limits that hold across workers, as one lane asks for them.

A run that is refused leaves its slot to others and waits here for a moment; one that would wait longer goes back to
the broker, to come again when there may be room.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import logging
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from camora.clock import Clock, MovableClock
from camora.errors import BrokerUnavailable
from camora.executor import Run
from camora.interfaces.limits import Ask, Limit, Limits
from camora.steering import NotYet
from camora.worker.pacing import Pacing
from camora.worker.running import Runner
from camora.worker.slot_keeper import SlotKeeper

__all__ = ["LimitsDesk"]

_PATIENCE = 5.0
"""Seconds that a run waits here at most."""
_SHORT = 1.0
"""Seconds that are worth waiting for a rate."""


class LimitsDesk:
    """Asks for many at a time, and keeps the waiting in order."""

    def __init__(
        self,
        limits: Limits,
        *,
        runner: Runner,
        worker: str,
        concurrency: int,
        lease: float,
        hold: Callable[[float], None],
        clock: Clock,
        logger: logging.Logger,
    ) -> None:
        self._limits = limits
        self._runner = runner
        self._hold = hold
        self._worker = worker
        self._concurrency = concurrency
        self._lease = lease
        self._clock = clock
        self._logger = logger
        # Nobody can wait, in real time, for a clock that somebody moves.
        self._patience = 0.0 if isinstance(clock, MovableClock) else _PATIENCE
        self._pacing = Pacing(clock)
        self._keeper = SlotKeeper(limits, lease=lease, logger=logger)
        self._asking: list[tuple[Ask, asyncio.Future[float]]] = []
        self._returning: list[str] = []
        self._flusher: asyncio.Task[None] | None = None
        self._lines: dict[tuple[str, ...], collections.deque[asyncio.Event]] = {}
        self._runs = itertools.count()
        self._away = False
        self._stopping = False

    @asynccontextmanager
    async def holding(self, run: Run, limits: Sequence[Limit]) -> AsyncIterator[None]:
        """Inside the block all of these limits are kept. Raises `NotYet` when it would be a long wait."""
        # One for each run: an earlier one of the job, which has lost its lease, must not give this one's slot back.
        holder = f"{run.delivery.id}:{self._worker}:{next(self._runs)}"
        await self._acquire(run, Ask(holder=holder, limits=tuple(limits)))
        self._pacing.granted(limits)
        slots = any(not limit.per for limit in limits)
        if slots:
            self._keeper.hold(holder)
        try:
            if run.parked:
                await self._runner.unpark(run)
            yield
        finally:
            if slots:
                self._keeper.let_go(holder)
                self._returning.append(holder)
                self._flush_soon()

    async def _acquire(self, run: Run, ask: Ask) -> None:
        """Returns when everything is granted; the run may be parked then."""
        names = tuple(limit.name for limit in ask.limits)
        line = self._lines.get(names)
        if not line:
            wait = await self._ask(ask)
            if not wait:
                return
            if self._patience and names == (f"queue:{run.delivery.queue}",):
                self._hold(wait)  # the queue has a lane of its own: what it took now would only go back
        else:
            wait = 0.0  # whoever is in front asks; how long it takes is for it to find out
        if wait > _SHORT or self._patience == 0.0 or self._stopping or self._runner.parked >= self._concurrency:
            raise NotYet(self._delay(ask, wait))
        self._runner.park(run)
        await self._wait_in_line(names, ask, wait, self._patience_for(run))

    def _delay(self, ask: Ask, wait: float) -> float:
        """How long a refused one stays away. Where nobody answered, nobody's place in a rate is spoken for."""
        if self._away:
            return max(wait, random.uniform(1.5, 3.0))  # noqa: S311 -- jitter
        return self._pacing.delay(ask.limits, wait)

    def _patience_for(self, run: Run) -> float:
        """A job that expires while it waits shall not run: it goes back, and is found to have expired."""
        expires = None if run.message is None else run.message.expires
        if expires is None:
            return self._patience
        return min(self._patience, max(0.0, (expires - self._clock.now_ms()) / 1000))

    async def _wait_in_line(self, names: tuple[str, ...], ask: Ask, wait: float, patience: float) -> None:
        line = self._lines.setdefault(names, collections.deque())
        turn = asyncio.Event()
        line.append(turn)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience
        try:
            while True:
                first = line[0] is turn
                pause = deadline - loop.time()
                if first:
                    pause = min(pause, wait * random.uniform(1.0, 1.25))  # noqa: S311 -- jitter
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, pause)):
                        await turn.wait()
                turn.clear()
                if self._stopping:
                    raise NotYet(0.0)
                if line[0] is turn:
                    wait = await self._ask(ask)
                    if not wait:
                        return
                if loop.time() >= deadline:
                    raise NotYet(self._delay(ask, wait))
        finally:
            line.remove(turn)
            if line:
                line[0].set()
            elif self._lines.get(names) is line:
                del self._lines[names]

    async def _ask(self, ask: Ask) -> float:
        answer: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._asking.append((ask, answer))
        self._flush_soon()
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and not answer.result():
                self._returning.append(ask.holder)  # granted in the very moment
                self._flush_soon()
            raise

    def _flush_soon(self) -> None:
        if self._flusher is None:
            self._flusher = asyncio.get_running_loop().create_task(self._flush())
            self._flusher.add_done_callback(self._flushed)

    def _flushed(self, flusher: asyncio.Task[None]) -> None:
        """A job that cancels every task it can find must not leave others without an answer."""
        self._flusher = None
        if self._asking or self._returning:
            self._flush_soon()
        if not flusher.cancelled() and (error := flusher.exception()) is not None:
            self._logger.error("asking for limits failed in a way that nobody foresaw", exc_info=error)

    async def _flush(self) -> None:
        while self._asking or self._returning:
            returning, self._returning = self._returning, []
            asking, self._asking = self._asking, []
            try:
                answers = await self._exchange(returning, [ask for ask, _ in asking])
            except asyncio.CancelledError:
                self._asking[:0], self._returning[:0] = asking, returning
                raise
            if returning:
                for line in self._lines.values():
                    line[0].set()
            for (ask, answer), wait in zip(asking, answers, strict=True):
                if not answer.done():
                    answer.set_result(wait)
                elif not wait:
                    self._returning.append(ask.holder)  # whoever asked has gone

    async def _exchange(self, returning: Sequence[str], asks: Sequence[Ask]) -> Sequence[float]:
        """Give back, then take; while the store is away, nobody gets anything."""
        try:
            if returning:
                await self._limits.give_back(returning)
            answers = await self._limits.take(asks, lease=self._lease) if asks else ()
        except Exception as error:  # noqa: BLE001 -- whatever it is, those who asked wait for an answer
            # What could not be given back is not kept either: its lease lapses.
            self._on_away(error)
            return [random.uniform(1.5, 3.0) for _ in asks]  # noqa: S311 -- jitter
        self._away = False
        return answers

    def _on_away(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            exc_info = None if isinstance(error, BrokerUnavailable) else error
            self._logger.warning("limits cannot be asked for; jobs that have some wait: %s", error, exc_info=exc_info)

    def stop(self) -> None:
        """Send away those who wait: they have not begun, and others may have room sooner."""
        self._stopping = True
        for line in self._lines.values():
            for turn in line:
                turn.set()

    async def close(self) -> None:
        """Give back what is held, for 2 seconds at most, and end the keeper."""
        if self._flusher is not None:
            await asyncio.wait([self._flusher], timeout=2.0)
        await self._keeper.close()
