"""One worker: its lanes, from start to drained."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import inspect
import itertools
import logging
import os
import random
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

import attrs

from camora.clock import Clock
from camora.connections import Connection, Connections
from camora.engine import Engine, EngineParts
from camora.errors import BrokerUnavailable
from camora.events import EventBus
from camora.extensions import Extensions
from camora.interfaces.broker import JobState
from camora.interfaces.codec import Codec
from camora.interfaces.observer import WorkerStarted, WorkerStopping
from camora.interfaces.workers import Order, WorkerInfo
from camora.lease import LoopWatch
from camora.links.limits import limited
from camora.message import Envelope
from camora.outbox import Outbox
from camora.settings import WorkerSettings
from camora.worker.beside import Beside
from camora.worker.draining import Draining, bounded
from camora.worker.lane import Lane, LaneParts
from camora.worker.recycling import Recycling
from camora.worker.relay import Relay
from camora.worker.reporting import BEAT, Activity, Reporter
from camora.worker.stop_signals import StopSignals

__all__ = ["Ending", "LaneSettings", "Worker", "WorkerParts", "worker_name"]

_GROWTH = 1024

T = TypeVar("T")

Hook = Callable[[], Awaitable[None] | None]


class Ending(enum.Enum):
    """Why a worker's run has ended."""

    STOPPED = "stopped"
    DISMISSED = "dismissed"
    """Somebody ordered it to stop, through the directory of workers."""
    EMPTY = "empty"
    """A burst, and there was nothing left."""
    RECYCLED = "recycled"
    """Its process is to begin anew."""


@attrs.frozen
class LaneSettings:
    """The queues of one lane, and how many of their jobs run at once."""

    queues: tuple[str, ...]
    concurrency: int


@attrs.frozen(kw_only=True)
class WorkerParts:
    """What an app gives a worker."""

    engine: EngineParts
    connections: Connections
    codec: Codec
    clock: Clock
    lanes: Sequence[LaneSettings]
    settings: WorkerSettings
    largest: int
    result_ttl: float
    dispatch: Callable[..., Any]
    publish: Callable[[Sequence[Envelope]], Awaitable[object]]
    extensions: Extensions
    events: EventBus
    on_start: Sequence[Hook]
    on_stop: Sequence[Hook]
    logger: logging.Logger
    outbox: Outbox | None = None


def worker_name() -> str:
    """Host, process and a random part: unique for each start."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


class Worker:
    """Runs jobs in the event loop it was started in. Started once, stopped once.

    `max_jobs` and `max_memory` end a process, so they hold where somebody replaces it: for a `run` with `leaving`, and
    not inside another program.
    """

    def __init__(self, parts: WorkerParts, *, name: str | None = None) -> None:
        self.name = name or worker_name()
        self.settings = parts.settings
        self.queues = tuple(queue for lane in parts.lanes for queue in lane.queues)
        self.state = "starting"
        """`starting`, `running`, `quiet` or `stopping`."""
        self._parts = parts
        self._engine = Engine(parts.engine)
        self._lanes: list[Lane] = []
        self._ending: Ending | None = None
        self._told = asyncio.Event()
        self._stop = asyncio.Event()
        self._stops = 0
        self._own_process = False
        self._dismissal: asyncio.Task[None] | None = None
        self._draining = Draining(parts.logger)
        self._watch: LoopWatch | None = None
        self._connection: Connection | None = None
        self._leaving: Callable[[], None] | None = None
        self._recycling: Recycling | None = None
        self._reporter: Reporter | None = None
        self._relay: Relay | None = None
        self._beside = [Beside(one, parts.logger) for one in parts.extensions.beside]
        self._beating: asyncio.Task[None] | None = None
        self._had_no_room_at: dict[Lane, float] = {}

    # Starting

    async def start(self) -> None:
        """Check, connect, and begin to take jobs. Waits for a broker that is away.

        Raises `ConfigurationError`s before anything is taken, and `BrokerUnavailable` when it is stopped meanwhile.
        """
        parts = self._parts
        await self._engine.open()
        connection = self._connection = await self._once_there(parts.connections.get)
        with contextlib.suppress(BrokerUnavailable):  # the relay waits for it; but a mistake in its address is told now
            await connection.outbox()
        for hook in parts.on_start:
            await _call(hook)
        watch = LoopWatch(self._label, after=parts.settings.blocked_after, logger=parts.logger, sleepy=True)
        self._watch = watch
        watch.start()
        for lane in parts.lanes:
            made = self._make_lane(lane, connection, watch)
            await self._once_there(made.open)
            self._lanes.append(made)
        self._begin()
        self._start_relay(connection)
        for one in self._beside:
            one.start()
        self._reporter = self._make_reporter(connection)
        self._start_beating()
        parts.logger.info("worker %s takes jobs of %s from %s", self.name, ", ".join(self.queues), connection.broker)
        if parts.events.active:
            parts.events.emit(WorkerStarted(at=parts.clock.now_ms(), worker=self.name, queues=self.queues))

    def _make_lane(self, lane: LaneSettings, connection: Connection, watch: LoopWatch) -> Lane:
        parts = self._parts
        run = self._engine.run
        return Lane(
            LaneParts(
                connection=connection,
                tasks=parts.engine.tasks,
                codec=parts.codec,
                chain=run if self._recycling is None else self._recycling.counting(run),
                settings=parts.settings,
                clock=parts.clock,
                worker=self.name,
                # A retry's few more digits must not make a message too large that was not when it was sent.
                largest=parts.largest + _GROWTH,
                result_ttl=parts.result_ttl,
                dispatch=parts.dispatch,
                publish=parts.publish,
                extensions=parts.extensions,
                events=parts.events,
                limited=limited(parts.engine.tasks, parts.engine.queue_rates),
                logger=parts.logger,
                busy=watch.attend,
            ),
            lane.queues,
            lane.concurrency,
        )

    def _start_relay(self, connection: Connection) -> None:
        parts = self._parts
        if parts.outbox is not None:
            self._relay = Relay(
                parts.outbox.queue,
                connection.outbox,
                connection.broker,
                worker=self.name,
                lease=parts.settings.lease,
                clock=parts.clock,
                logger=parts.logger,
            )
            self._relay.start()

    def _make_reporter(self, connection: Connection) -> Reporter:
        parts = self._parts
        return Reporter(
            connection,
            WorkerInfo(
                name=self.name,
                app=parts.engine.reference,
                queues=self.queues,
                concurrency=sum(lane.concurrency for lane in parts.lanes),
            ),
            activity=self.activity,
            obey=self.obey,
            clock=parts.clock,
            logger=parts.logger,
        )

    async def _once_there(self, step: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """What this step returns, which is tried for as long as the broker is away."""
        for tries in itertools.count():
            trying = asyncio.get_running_loop().create_task(step())
            try:
                await self._draining.unless(self._stop, trying)
                if trying.done():
                    return trying.result()
            except BrokerUnavailable as error:
                if self._stop.is_set():
                    raise
                if tries == 0:
                    self._parts.logger.warning("broker away, connecting: %s", error)
                pause = random.uniform(0.05, min(5.0, 0.1 * 2 ** min(tries, 6)))  # noqa: S311 -- jitter
                await bounded(self._stop.wait(), pause)
            else:
                trying.cancel()
                raise BrokerUnavailable("the worker was stopped before it had connected")
        raise AssertionError  # the loop above has no end of its own

    # Steering

    def quiet(self) -> None:
        """Take nothing more, until resumed; what runs goes on."""
        if self.state == "running":
            self.state = "quiet"
            for lane in self._lanes:
                lane.pause()
            self._parts.logger.info("worker %s is quiet: it takes nothing more", self.name)

    def resume(self) -> None:
        """Take jobs again."""
        if self.state == "quiet":
            self._begin(again=True)
            self._parts.logger.info("worker %s takes jobs again", self.name)

    def _begin(self, *, again: bool = False) -> None:
        self.state = "running"
        now = time.monotonic()
        for lane in self._lanes:
            self._had_no_room_at[lane] = now
            if again:
                lane.resume()
            else:
                lane.start()

    def stop(self) -> None:
        """Stop taking, finish what runs, then end; a second call gives everything back at once."""
        self._stops += 1
        if self._stops > 1:
            self._draining.hurry()
        self._end(Ending.STOPPED)

    @property
    def hurried(self) -> asyncio.Event:
        """Set once everything is to be given back at once."""
        return self._draining.hurried

    def obey(self, order: Order) -> None:
        """Do what the directory of workers says."""
        match order:
            case "quiet":
                self.quiet()
            case "resume":
                self.resume()
            case "stop":
                self._parts.logger.info("worker %s was ordered to stop", self.name)
                self._stopping()
                self._end(Ending.DISMISSED)

    def _end(self, ending: Ending) -> None:
        if self._ending in (None, Ending.RECYCLED):
            self._ending = ending
        if ending is not Ending.RECYCLED:
            self._stop.set()
        self._told.set()
        if ending is Ending.DISMISSED and not self._own_process and self._dismissal is None:
            # Inside another program nobody waits for orders: it goes on without this worker.
            self._dismissal = asyncio.get_running_loop().create_task(self.drain())

    def _had_enough(self, reason: str) -> None:
        self._parts.logger.info("worker %s finishes what it has begun, and is replaced: %s", self.name, reason)
        self._end(Ending.RECYCLED)
        if self._leaving is not None:
            self._leaving()

    # Running

    async def run(
        self,
        *,
        burst: bool = False,
        leaving: Callable[[], None] | None = None,
        insisted: Callable[[], None] | None = None,
        ends_process: Callable[[Ending], bool] = lambda _: False,
    ) -> Ending:
        """Start, work until told to end (with `burst`: until the queues hold nothing that is due), and drain.

        `leaving` is called when the process has done enough: the worker takes nothing more, and ends as `RECYCLED`
        once it has finished what it has begun. `insisted` is called by a second signal, from its handler, even while
        a job blocks the loop. Where the process `ends_process` with it, signals are ignored from then on.
        """
        self._own_process = True
        self._leaving = leaving
        self._recycling = self._make_recycling()
        with StopSignals(self.stop, insisted) as signals:
            try:
                await self._work(burst)
            finally:
                await self.close()
            # Not before it is closed: a stop that comes while it closes counts.
            ending = self._ending or Ending.EMPTY
            if ends_process(ending):
                signals.ignore_from_now_on()
            return ending

    async def _work(self, burst: bool) -> None:
        try:
            await self.start()
        except BrokerUnavailable:
            if not self._stop.is_set():
                raise
            return
        if burst:
            await self._until_empty()
        else:
            await self._told.wait()
        if self._ending is Ending.RECYCLED:
            await self._finish_at_leisure()
        if self._stop.is_set():
            self._tell_busy()
        await self.drain()

    def _make_recycling(self) -> Recycling | None:
        if self._leaving is not None:
            return Recycling(self.settings, enough=self._had_enough, clock=self._parts.clock)
        if self.settings.max_jobs or self.settings.max_memory:
            self._parts.logger.warning(
                "max_jobs and max_memory are for processes that Camora starts (camora worker, app.run()), not for this"
            )
        return None

    async def _until_empty(self) -> None:
        assert self._connection is not None
        broker = self._connection.broker
        pause = 0.02
        while not self._told.is_set():
            await self._draining.idle(self._lanes, unless=self._told)
            handled = self.handled
            try:
                counts = await broker.queues.counts()
                paused = await broker.queues.paused() if broker.capabilities.pause else ()
            except BrokerUnavailable:
                await bounded(self._told.wait(), random.uniform(0.2, 1.0))  # noqa: S311 -- jitter
                continue
            ready = {queue: counts.get(queue, {}).get(JobState.READY, 0) for queue in self.queues}
            # What was settled meanwhile may have left something to do that was not there to be counted.
            quiet = not self.busy and self.handled == handled
            if quiet and not any(count for queue, count in ready.items() if queue not in paused):
                for queue in paused:
                    if ready.get(queue):
                        self._parts.logger.warning("queue %s is paused: %d jobs stay there", queue, ready[queue])
                return
            # A queue may be held by its rate: nothing is gained by looking all the time.
            await bounded(self._told.wait(), pause)
            pause = min(0.5, pause * 1.5) if not self.busy else 0.02

    async def _finish_at_leisure(self) -> None:
        """Nobody is in a hurry to begin anew: what runs is never interrupted for it."""
        self._stopping()
        await self._draining.stop(self._lanes)
        await self._draining.idle(self._lanes, unless=self._stop)

    async def drain(self) -> None:
        """Take nothing more; finish what runs within `shutdown_timeout`, give the rest back."""
        self._stop.set()
        self._stopping()
        await self._stop_beside()
        await self._draining.drain(self._lanes, self.settings.shutdown_timeout)

    def _stopping(self) -> None:
        before, self.state = self.state, "stopping"
        if before in ("running", "quiet"):
            parts = self._parts
            if parts.events.active:
                parts.events.emit(WorkerStopping(at=parts.clock.now_ms(), worker=self.name, busy=self.busy))

    async def _stop_beside(self) -> None:
        grace = 0.1 if self.hurried.is_set() else 2.0
        await asyncio.gather(*(one.stop(grace) for one in self._beside))

    def _tell_busy(self) -> None:
        if self.busy:
            self._parts.logger.info("stopping: %d jobs are running; again to give them back at once", self.busy)

    async def close(self) -> None:
        """Let go of everything; the connection stays the app's. What was not drained before is given back at once."""
        parts, hurried = self._parts, self._draining.hurried
        if not self._draining.begun:
            self._stopping()
            await self._stop_beside()
            await self._draining.drain(self._lanes, 0.0)
        if self._watch is not None:
            await self._watch.close()
        await self._draining.close(self._lanes)
        for hook in parts.on_stop:
            try:
                await _call(hook)
            except Exception:
                parts.logger.exception("a hook for the worker's stop failed")
        if self._relay is not None:
            await self._relay.stop(0.1 if hurried.is_set() else 2.0)
        await self._stop_beating()
        await self._engine.close(0.1 if hurried.is_set() else 2.0)
        parts.logger.info("worker %s stopped; it settled %d jobs", self.name, self.settled)

    # Looking in

    def _start_beating(self) -> None:
        assert self._reporter is not None
        self._beating = asyncio.get_running_loop().create_task(self._beat(self._reporter), name="the worker's reports")
        self._beating.add_done_callback(self._beat_again)

    def _beat_again(self, ended: asyncio.Task[None]) -> None:
        """A job that cancels every task it can find is no reason to fall silent."""
        if ended is self._beating:
            self._start_beating()

    async def _beat(self, reporter: Reporter) -> None:
        while True:
            await reporter.report()
            await asyncio.sleep(BEAT)
            self._note_full_lanes()
            if self._recycling is not None:
                self._recycling.look(self._engine.pools.abandoned)

    async def _stop_beating(self) -> None:
        beating, self._beating = self._beating, None
        if beating is not None and self._reporter is not None:
            beating.cancel()
            await asyncio.wait([beating])
            await bounded(self._reporter.close(), 0.1 if self.hurried.is_set() else None)

    def _note_full_lanes(self) -> None:
        """A lane that is full, or held by a rate, asks for nothing, and hears nothing."""
        now = time.monotonic()
        for lane in list(self._lanes):
            if lane.held or lane.busy >= lane.concurrency:
                self._had_no_room_at[lane] = now

    def unanswered(self) -> float | None:
        """Seconds for which a lane that has room has had no answer from the broker; the longest, None for no lane.

        May be asked for from any thread.
        """
        self._note_full_lanes()
        now = time.monotonic()
        waits = [max(0.0, now - max(lane.polled_at, self._had_no_room_at.get(lane, now))) for lane in list(self._lanes)]
        return max(waits, default=None)

    def activity(self) -> Activity:
        """What it is at."""
        return Activity(
            state=self.state,
            running=[job for lane in self._lanes for job in lane.running()],
            busy=self.busy,
            settled=self.settled,
            polled_at=min((lane.polled_at for lane in self._lanes), default=0.0),
        )

    @property
    def busy(self) -> int:
        """How many deliveries are in this worker's hands."""
        return sum(lane.busy for lane in self._lanes)

    @property
    def handled(self) -> int:
        """Deliveries settled by this worker so far, whichever way: ended, to be tried again, or given back."""
        return sum(lane.handled for lane in self._lanes)

    @property
    def settled(self) -> int:
        """How many jobs this worker has settled."""
        return sum(lane.settled for lane in self._lanes)

    def current(self, loop: asyncio.AbstractEventLoop) -> str:
        """What runs in this loop right now, task and job by name; may be asked for from any thread."""
        return self._label(asyncio.current_task(loop))

    def _label(self, task: asyncio.Task[Any] | None) -> str:
        for lane in self._lanes:
            if (label := lane.label_of(task)) is not None:
                return label
        # An attempt with a timeout has a task of its own, which bears its name.
        return "something outside any job" if task is None else task.get_name()


async def _call(hook: Hook) -> None:
    made = hook()
    if inspect.isawaitable(made):
        await made
