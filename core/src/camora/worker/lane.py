"""A lane: a set of queues with a concurrency of its own, one consumer, one settler, one lease keeper."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import attrs

from camora.clock import Clock
from camora.connections import Connection
from camora.context import Context
from camora.errors import BrokerUnavailable, ResultsDisabled, UnsupportedCapability
from camora.events import EventBus
from camora.executor import Executor, StopReason
from camora.extensions import Extensions
from camora.interfaces.broker import ConsumerSettings
from camora.interfaces.codec import Codec
from camora.interfaces.workers import RunningJob
from camora.job import Job
from camora.lease import LeaseKeeper
from camora.limits import Limit
from camora.message import Delivery, Envelope
from camora.outcome import Action, JobRecord, Outcome, OutcomeKind, Progress, Settlement, Status
from camora.registry import TaskRegistry
from camora.settings import WorkerSettings
from camora.settlement import Verdicts
from camora.worker.desk import LimitsDesk
from camora.worker.ending import Ender
from camora.worker.hands import Hands
from camora.worker.reports import Reports
from camora.worker.running import Runner
from camora.worker.taking import Taker

__all__ = ["Lane", "LaneParts"]


@attrs.frozen(kw_only=True)
class LaneParts:
    """What a worker gives its lanes."""

    connection: Connection
    tasks: TaskRegistry
    codec: Codec
    chain: Callable[[Context], Any]
    settings: WorkerSettings
    clock: Clock
    worker: str
    largest: int
    result_ttl: float
    dispatch: Callable[..., Any]
    publish: Callable[[Sequence[Envelope]], Awaitable[object]]
    extensions: Extensions
    events: EventBus
    limited: str
    """What has limits that hold across workers, for an error; empty when nothing has."""
    logger: logging.Logger
    busy: Callable[[bool], None]
    """Told, from any thread, when a lane begins to hold deliveries, and when it has none any more."""


class Lane:
    """Takes, runs and settles, until it is drained. Belongs to one event loop.

    It is also the port of the jobs that run in it: what `Context` asks for comes here.
    """

    def __init__(self, parts: LaneParts, queues: Sequence[str], concurrency: int) -> None:
        self.queues = tuple(queues)
        self.concurrency = concurrency
        self._parts = parts
        self._logger = parts.logger
        self._hands = Hands()
        self._reports = Reports(parts.events, parts.clock, parts.worker)
        self.watched = self._reports.wanted
        executor = Executor(
            tasks=parts.tasks,
            codec=parts.codec,
            chain=parts.chain,
            settings=parts.settings,
            clock=parts.clock,
            worker=parts.worker,
            port=self,
            largest=parts.largest,
            fanout=bool(parts.connection.broker.capabilities.fanout),
        )
        self._runner = Runner(
            self._hands,
            executor,
            concurrency=concurrency,
            prefetch=parts.settings.prefetch,
            isolate_after=parts.settings.isolate_after,
            finish=lambda run, outcome: self._ender.finish(run, outcome),
            left=lambda: self._taker.look_again(),
            logger=parts.logger,
        )
        self._desk: LimitsDesk | None = None
        self._stopping = False

    async def open(self) -> None:
        """Connect. Raises `UnsupportedCapability` when there are limits and no store that keeps them."""
        parts = self._parts
        connection, settings = parts.connection, parts.settings
        # Twice the concurrency, so that there is always something at hand, and as much again may wait for limits.
        held = self.concurrency * 2 if settings.prefetch is None else self.concurrency + settings.prefetch
        if parts.limited:
            self._desk = await self._make_desk(parts.limited)
            held += self.concurrency
        self._consumer = await connection.broker.consumer(
            ConsumerSettings(queues=self.queues, worker=parts.worker, lease=settings.lease, prefetch=held)
        )
        self._keeper = LeaseKeeper(
            self._consumer,
            lease=settings.lease,
            lost=self._on_lost,
            cancelled=self._on_cancelled,
            logger=self._logger,
            busy=parts.busy,
        )
        self._ender = Ender(
            self._hands,
            self._consumer,
            results=connection.results,
            atomic=connection.atomic,
            verdicts=Verdicts(
                codec=parts.codec,
                clock=parts.clock,
                worker=parts.worker,
                keep_records=connection.results is not None,
                ttl=parts.result_ttl,
                longest=connection.broker.capabilities.longest_delay,
            ),
            keeper=self._keeper,
            events=parts.events,
            clock=parts.clock,
            worker=parts.worker,
            extensions=parts.extensions,
            publish=parts.publish,
            gone=self._on_gone,
            logger=self._logger,
        )
        self._taker = Taker(
            self._consumer,
            room=self._runner.room,
            took=self._on_taken,
            poll_interval=settings.poll_interval,
            logger=self._logger,
        )
        self._keeper.start()

    async def _make_desk(self, what: str) -> LimitsDesk:
        parts = self._parts
        limits = await parts.connection.limits()
        if limits is None:
            raise UnsupportedCapability(
                f"{what}: neither {parts.connection.broker!r} nor the result backend counts limits across "
                "workers. Keep results in a store that does: Camora(…, results='sqlite:///results.db')",
                capability="limits",
            )
        return LimitsDesk(
            limits,
            runner=self._runner,
            worker=parts.worker,
            concurrency=self.concurrency,
            lease=parts.settings.lease,
            hold=lambda seconds: self._taker.hold(seconds),
            clock=parts.clock,
            logger=self._logger,
        )

    # Taking

    def start(self) -> None:
        """Begin to take jobs."""
        self._taker.start()

    def pause(self) -> None:
        """Take nothing more until resumed; what runs goes on."""
        self._taker.pause()

    def resume(self) -> None:
        """Take again."""
        self._taker.resume()

    @property
    def held(self) -> bool:
        """True while it takes nothing on purpose: the rate of its queue is used up."""
        return self._taker.held

    @property
    def polled_at(self) -> float:
        """Monotonic time of the last answer from the broker."""
        return self._taker.polled_at

    def _on_taken(self, deliveries: Sequence[Delivery], asked: float) -> None:
        self._keeper.hold(deliveries, asked if len(self._hands) else self._taker.polled_at)
        if self._taker.quiet:
            # It was asked for before somebody said to be quiet.
            for delivery in deliveries:
                self._ender.finish(self._hands.add(delivery), Outcome(kind=OutcomeKind.RELEASED))
            return
        if self._reports.wanted:
            self._reports.received(deliveries)
        self._runner.take(deliveries)

    def _on_gone(self) -> None:
        self._runner.look_at_suspect()
        self._taker.look_again()

    # What happens to a run from outside

    def _on_lost(self, delivery: Delivery) -> None:
        run = self._hands.get(delivery)
        if run is not None:
            run.overtaken = run.settling
        if run is not None and not run.settling:
            self._logger.warning("%s: lost its lease; another worker may run it", run.label)
            if self._reports.wanted:
                self._reports.lease_lost(run)
            self._runner.interrupt(run, StopReason.LEASE_LOST)

    def _on_cancelled(self, delivery: Delivery) -> None:
        run = self._hands.get(delivery)
        if run is not None:
            self._runner.interrupt(run, StopReason.CANCELLED)

    # What a running job asks for

    async def dispatch(self, what: Any, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """As `app.dispatch`."""
        job: Job[Any] = await self._parts.dispatch(what, *args, **kwargs)
        return job

    @asynccontextmanager
    async def holding(self, context: Context, limits: Sequence[Limit]) -> AsyncIterator[None]:
        """Wait in line for a moment, without a slot of this lane; raises `NotYet` rather than wait for long."""
        run = self._hands.get(context.delivery)
        assert run is not None
        if self._desk is None:  # its task was registered after this worker had started
            made = await self._make_desk(f"task {context.task.name} has limits")
            if self._desk is None:
                self._desk = made
        async with self._desk.holding(run, limits):
            yield

    def began(self, context: Context) -> None:
        """Tell observers."""
        self._reports.began(context)

    async def acknowledge(self, context: Context) -> bool:
        """Settle before the run; True again when that has happened already."""
        run = self._hands.get(context.delivery)
        if run is None or run.acknowledged:
            return run is not None
        # From here on a lease that is gone is no bad news: it may be this very settlement that ended it.
        self._keeper.let_go(run.delivery)
        settlement = Settlement(delivery=run.delivery, action=Action.ACK, before=True)
        settling = asyncio.ensure_future(self._consumer.settle([settlement]))
        try:
            if await asyncio.shield(settling) == [None]:
                raise BrokerUnavailable(f"the server that keeps job {run.delivery.id} is away")
        except asyncio.CancelledError:
            await asyncio.wait([settling])  # whether it is still ours to record depends on the answer
            raise
        finally:
            if settling.done() and not settling.cancelled() and settling.exception() is None:
                run.acknowledged = settling.result()[0] is True
            context.acknowledged = run.acknowledged
            if not run.acknowledged:
                self._keeper.hold([run.delivery], time.monotonic())
        return run.acknowledged

    async def report(self, context: Context, progress: Progress) -> None:
        """Store progress."""
        results = self._parts.connection.results
        if results is None:
            raise ResultsDisabled(f"{context.task.name}: progress is kept with results, and this app keeps none")
        record = JobRecord(
            id=context.id,
            status=Status.RUNNING,
            task=context.task.name,
            queue=context.queue,
            attempts=context.attempt,
            created=context.message.created,
            started=context.started,
            worker=context.worker,
            progress=progress,
            ttl=self._parts.result_ttl,
        )
        await results.store([record])

    # Looking in

    def label_of(self, task: asyncio.Task[Any] | None) -> str | None:
        """Task and job that this asyncio task runs, if it is one of this lane."""
        for run in self._hands:
            if task is not None and run.task is task:
                return run.label
        return None

    def running(self) -> list[RunningJob]:
        """The jobs whose function is being called now, the longest first."""
        found = [
            RunningJob(
                id=run.delivery.id, task=run.context.task.name, queue=run.delivery.queue, since=run.context.started
            )
            for run in self._hands
            if run.context is not None and run.context.ran and not run.settling
        ]
        return sorted(found, key=lambda job: job.since)

    @property
    def busy(self) -> int:
        """How many deliveries are in this lane's hands."""
        return len(self._hands)

    @property
    def settled(self) -> int:
        """Jobs ended by this lane so far."""
        return self._ender.settled

    @property
    def handled(self) -> int:
        """Deliveries settled by this lane so far, whichever way: ended, to be tried again, or given back."""
        return self._ender.handled

    @property
    def refused(self) -> int:
        """Settlements refused because another worker had the delivery."""
        return self._ender.refused

    @property
    def abandoned(self) -> int:
        """Attempts that ignored their interruption and were left to themselves."""
        return self._runner.abandoned

    # Ending

    async def idle(self) -> None:
        """Wait until everything that was taken is settled."""
        await self._hands.emptied()

    async def stop(self) -> None:
        """Take nothing more, and give back what has not begun."""
        if self._stopping:
            return
        self._stopping = True
        self._runner.stop()
        if self._desk is not None:
            self._desk.stop()
        await self._taker.stop()
        self._runner.stop()  # what came with the last answer

    def give_back(self) -> None:
        """Interrupt what runs; coroutines end as released, the rest is released under their feet."""
        for run in self._hands:
            run.stop(StopReason.SHUTDOWN)

    async def release_rest(self) -> None:
        """Give back what could not be interrupted: it may run twice, and is never lost."""
        rest = [run for run in self._hands if run.task is not None and not run.task.done() and not run.acknowledged]
        if rest:
            self._logger.warning("gave back %d jobs that could not be interrupted", len(rest))
            with contextlib.suppress(BrokerUnavailable):
                await self._consumer.settle(
                    [Settlement(delivery=run.delivery, action=Action.RELEASE, charged=False) for run in rest]
                )

    async def close(self) -> None:
        """Let go of everything. What is unsettled comes back to others when its lease lapses."""
        await self._ender.close()
        self._runner.close()
        if self._desk is not None:
            await self._desk.close()
        await self._keeper.close()
        await self._consumer.close()
