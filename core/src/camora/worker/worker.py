"""One worker: its lanes, from start to drained."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import itertools
import logging
import os
import random
import secrets
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import attrs

from camora.clock import Clock
from camora.connections import Connection, Connections
from camora.engine import Engine, EngineParts
from camora.errors import BrokerUnavailable
from camora.interfaces.broker import JobState
from camora.interfaces.codec import Codec
from camora.lease import LoopWatch
from camora.settings import WorkerSettings
from camora.worker.lane import Lane, LaneParts

__all__ = ["LaneSettings", "Worker", "WorkerParts", "worker_name"]

_GROWTH = 1024
_SAME = 1.0

Hook = Callable[[], Awaitable[None] | None]


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
    on_start: Sequence[Hook]
    on_stop: Sequence[Hook]
    logger: logging.Logger


def worker_name() -> str:
    """Host, process and a random part: unique for each start."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


class Worker:
    """Runs jobs in the event loop it was started in. Started once, stopped once."""

    def __init__(self, parts: WorkerParts, *, name: str | None = None) -> None:
        self.name = name or worker_name()
        self._parts = parts
        self._engine = Engine(parts.engine)
        self._lanes: list[Lane] = []
        self._stop = asyncio.Event()
        self._force = asyncio.Event()
        self._watch: LoopWatch | None = None
        self._connection: Connection | None = None
        self._drained = False
        self._signalled_at = -_SAME

    async def start(self) -> None:
        """Check, connect, and begin to take jobs. Waits for a broker that is away.

        Raises `ConfigurationError`s before anything is taken.
        """
        parts = self._parts
        await self._engine.open()
        connection = self._connection = await self._connect()
        for hook in parts.on_start:
            await _call(hook)
        for lane in parts.lanes:
            made = Lane(
                LaneParts(
                    connection=connection,
                    tasks=parts.engine.tasks,
                    codec=parts.codec,
                    chain=self._engine.run,
                    settings=parts.settings,
                    clock=parts.clock,
                    worker=self.name,
                    # A retry's few more digits must not make a message too large that was not when it was sent.
                    largest=parts.largest + _GROWTH,
                    result_ttl=parts.result_ttl,
                    dispatch=parts.dispatch,
                    logger=parts.logger,
                ),
                lane.queues,
                lane.concurrency,
            )
            await made.open()
            self._lanes.append(made)
        self._watch = LoopWatch(self._label, after=parts.settings.blocked_after, logger=parts.logger)
        self._watch.start()
        for made in self._lanes:
            made.start()
        queues = ", ".join(queue for lane in parts.lanes for queue in lane.queues)
        parts.logger.info("worker %s takes jobs of %s from %s", self.name, queues, connection.broker)

    async def _connect(self) -> Connection:
        for tries in itertools.count():
            try:
                return await self._parts.connections.get()
            except BrokerUnavailable as error:
                if tries == 0:
                    self._parts.logger.warning("broker away, connecting: %s", error)
                if self._stop.is_set():
                    raise
                await asyncio.sleep(random.uniform(0.05, min(5.0, 0.1 * 2 ** min(tries, 6))))  # noqa: S311 -- jitter
        raise AssertionError  # the loop above has no end of its own

    def stop(self) -> None:
        """Stop taking, finish what runs, then end; a second call gives everything back at once."""
        if self._stop.is_set():
            self._force.set()
        self._stop.set()

    def _signalled(self, number: int) -> None:
        """Stop; SIGTERM twice within a second counts once.

        Service managers send it to every process of a group, and the supervisor passes its own on.
        """
        now = time.monotonic()
        if self._stop.is_set() and number == signal.SIGTERM and now - self._signalled_at < _SAME:
            return
        self._signalled_at = now
        self.stop()

    async def run(self, *, burst: bool = False) -> None:
        """Start, work until stopped (with `burst`: until the queues hold nothing that is due), and drain."""
        with self._signals():
            try:
                await self.start()
                if burst:
                    await self._until_empty()
                else:
                    await self._stop.wait()
                await self.drain()
            finally:
                await self.close()

    async def drain(self) -> None:
        """Take nothing more; finish what runs within `shutdown_timeout`, give the rest back."""
        self._stop.set()
        self._drained = True
        await asyncio.gather(*(lane.stop() for lane in self._lanes))
        busy = sum(lane.busy for lane in self._lanes)
        if busy:
            self._parts.logger.info("stopping: %d jobs are running; again to give them back at once", busy)
        if not await self._idle_within(self._parts.settings.shutdown_timeout):
            for lane in self._lanes:
                lane.give_back()
            if not await self._idle_within(1.0, forced=True):
                for lane in self._lanes:
                    await lane.release_rest()

    async def _idle_within(self, timeout: float, *, forced: bool = False) -> bool:
        async def all_idle() -> None:
            for lane in self._lanes:
                await lane.idle()

        loop = asyncio.get_running_loop()
        idle, force = loop.create_task(all_idle()), loop.create_task(_forced(self._force))
        waiting = {idle} if forced else {idle, force}
        await asyncio.wait(waiting, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        done = idle.done()
        for task in (idle, force):
            task.cancel()
        await asyncio.gather(idle, force, return_exceptions=True)
        return done

    async def _until_empty(self) -> None:
        queues = {queue for lane in self._parts.lanes for queue in lane.queues}
        while not self._stop.is_set():
            await asyncio.gather(*(lane.idle() for lane in self._lanes))
            assert self._connection is not None
            try:
                counts = await self._connection.broker.queues.counts()
            except BrokerUnavailable:
                await asyncio.sleep(random.uniform(0.2, 1.0))  # noqa: S311 -- jitter
                continue
            ready = sum(counts.get(queue, {}).get(JobState.READY, 0) for queue in queues)
            if not ready and not any(lane.busy for lane in self._lanes):
                return
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """Let go of everything; the connection stays the app's. What was not drained before is given back at once."""
        parts = self._parts
        if not self._drained:
            self._force.set()
            await self.drain()
        if self._watch is not None:
            await self._watch.close()
        for lane in self._lanes:
            await lane.close()
        for hook in parts.on_stop:
            try:
                await _call(hook)
            except Exception:
                parts.logger.exception("a hook for the worker's stop failed")
        await self._engine.close(0.5 if self._force.is_set() else 2.0)
        parts.logger.info("worker %s stopped; it settled %d jobs", self.name, sum(lane.settled for lane in self._lanes))

    @property
    def busy(self) -> int:
        """How many deliveries are in this worker's hands."""
        return sum(lane.busy for lane in self._lanes)

    @property
    def settled(self) -> int:
        """How many jobs this worker has settled."""
        return sum(lane.settled for lane in self._lanes)

    def _label(self, task: asyncio.Task[Any] | None) -> str:
        for lane in self._lanes:
            if (label := lane.label_of(task)) is not None:
                return label
        # An attempt with a timeout has a task of its own, which bears its name.
        return "something outside any job" if task is None else task.get_name()

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Let SIGTERM and SIGINT stop this worker, while it runs in the main thread."""
        loop = asyncio.get_running_loop()
        installed = []
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
                loop.add_signal_handler(number, self._signalled, number)
                installed.append(number)
        try:
            yield
        finally:
            for number in installed:
                loop.remove_signal_handler(number)


async def _forced(event: asyncio.Event) -> None:
    await event.wait()


async def _call(hook: Hook) -> None:
    made = hook()
    if inspect.isawaitable(made):
        await made
