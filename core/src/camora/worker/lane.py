"""A lane: a set of queues with a concurrency of its own, one consumer, one settler, one lease keeper."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import attrs

from camora.clock import Clock
from camora.connections import Connection
from camora.context import Context
from camora.errors import BrokerUnavailable, ResultsDisabled
from camora.executor import Executor, Run, StopReason
from camora.failures import describe
from camora.interfaces.broker import ConsumerSettings
from camora.interfaces.codec import Codec
from camora.job import Job
from camora.lease import LeaseKeeper
from camora.links.timeouts import GRACE
from camora.message import Delivery
from camora.outcome import Action, JobRecord, Outcome, OutcomeKind, Progress, Settlement, Status
from camora.registry import TaskRegistry
from camora.settings import WorkerSettings
from camora.settlement import Settler, Verdicts

__all__ = ["Lane", "LaneParts"]

_AHEAD = 0.1
"""Seconds of work that may wait in this process: enough to hide a round trip, too little to hoard."""


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
    logger: logging.Logger


_PATIENCE = 0.5
"""Seconds after which what was taken ahead goes back."""


class Lane:
    """Takes, runs and settles, until it is drained. Belongs to one event loop."""

    def __init__(self, parts: LaneParts, queues: Sequence[str], concurrency: int) -> None:
        self.queues = tuple(queues)
        self.concurrency = concurrency
        self._parts = parts
        self._logger = parts.logger
        self._executor = Executor(
            tasks=parts.tasks,
            codec=parts.codec,
            chain=parts.chain,
            settings=parts.settings,
            clock=parts.clock,
            worker=parts.worker,
            port=self,
            largest=parts.largest,
        )
        self._verdicts = Verdicts(
            codec=parts.codec,
            clock=parts.clock,
            worker=parts.worker,
            keep_records=parts.connection.results is not None,
            ttl=parts.result_ttl,
        )
        self._runs: dict[Delivery, Run] = {}
        self._running = 0
        self._ahead: collections.deque[Run] = collections.deque()
        self._storing: set[asyncio.Task[None]] = set()
        self._ahead_timer: asyncio.TimerHandle | None = None
        self._too_slow = False
        self._failures = 0
        self._recently_failed = False
        self._suspect: Delivery | None = None
        self._room = asyncio.Event()
        self._empty = asyncio.Event()
        self._empty.set()
        self._stopping = False
        self._receiving: asyncio.Task[None] | None = None
        self._finished = 0
        self._finished_before = 0
        self._received_at = 0.0
        self.settled = 0
        """Jobs settled by this lane so far."""
        self.refused = 0
        """Settlements refused because another worker had the delivery."""
        self.abandoned = 0
        """Attempts that ignored their interruption and were left to themselves."""
        self.polled_at = 0.0
        """Monotonic time of the last answer from the broker."""

    async def open(self) -> None:
        """Connect."""
        connection, settings = self._parts.connection, self._parts.settings
        self._consumer = await connection.broker.consumer(
            ConsumerSettings(
                queues=self.queues,
                worker=self._parts.worker,
                lease=settings.lease,
                prefetch=self.concurrency * 2 if settings.prefetch is None else self.concurrency + settings.prefetch,
            )
        )
        self._settler = Settler(
            self._consumer,
            connection.results,
            atomic=connection.atomic,
            settled=self._on_settled,
            logger=self._logger,
        )
        self._keeper = LeaseKeeper(
            self._consumer,
            lease=settings.lease,
            lost=self._on_lost,
            cancelled=self._on_cancelled,
            logger=self._logger,
        )
        self._keeper.start()

    # Taking

    def start(self) -> None:
        """Begin to take jobs."""
        self._receiving = asyncio.get_running_loop().create_task(self._receive_until_stopped())
        self._receiving.add_done_callback(self._start_again)

    def _start_again(self, ended: asyncio.Task[None]) -> None:
        """A job that cancels every task it can find must not end the work.

        A new task, not a refusal to end: a program that is ending for good cancels once, and waits.
        """
        if ended.cancelled() and not self._stopping:
            self._logger.warning("a job has cancelled the worker's own task; it goes on")
            self.start()

    async def _receive_until_stopped(self) -> None:
        self._failures = 0
        while True:
            self._failures += 1
            try:
                await self._receive_while_up()
            except BrokerUnavailable as error:
                if not self._recently_failed:
                    self._logger.warning("broker away, reconnecting: %s", error)
                    self._recently_failed = True
            except Exception:
                # A lane that dies in silence is a worker that looks alive and does nothing.
                self._logger.exception("receiving failed, trying again")
            if self._stopping:
                return
            await asyncio.sleep(random.uniform(0.05, min(2.0, 0.1 * 2 ** min(self._failures, 5))))  # noqa: S311 -- jitter

    async def _receive_while_up(self) -> None:
        while not self._stopping:
            limit = self._free()
            if limit <= 0:
                self._room.clear()
                await self._room.wait()
                continue
            asked = time.monotonic()
            deliveries = await self._consumer.receive(limit, self._parts.settings.poll_interval)
            self.polled_at = time.monotonic()
            self._failures = 0
            if self._recently_failed:
                self._recently_failed = False
                self._logger.info("broker is back")
            if deliveries:
                self._keeper.hold(deliveries, asked if len(self._runs) else self.polled_at)
                self._take(deliveries)
            # One turn of the loop, so that what is quick is done before more is asked for.
            await asyncio.sleep(0)

    def _free(self) -> int:
        """How many to ask for: free slots, and what is worked off within a moment."""
        now = time.monotonic()
        elapsed = now - self._received_at
        done = self._finished - self._finished_before
        ahead = self._parts.settings.prefetch
        if ahead is None:
            ahead = min(self.concurrency, int(done / elapsed * _AHEAD)) if elapsed > 0 else 0
        if self._too_slow:
            ahead = 0  # until a job has ended: what just went back would be taken again
        free = self.concurrency + ahead - len(self._runs)
        # Small bites cost a round trip each; while there is enough to do, wait for a mouthful.
        if free < self.concurrency // 4 and len(self._runs) >= self.concurrency:
            return 0
        self._received_at, self._finished_before = now, self._finished
        return free

    def _take(self, deliveries: Sequence[Delivery]) -> None:
        self._empty.clear()
        isolate_after = self._parts.settings.isolate_after
        suspects = []
        for delivery in deliveries:
            run = self._runs[delivery] = Run(delivery)
            if delivery.deliveries > isolate_after:
                suspects.append(run)
            elif self._running < self.concurrency:
                self._start(run)
            else:
                self._ahead.append(run)
        if self._ahead and self._ahead_timer is None:
            self._watch_ahead()
        if suspects:
            self._isolate(suspects)

    def _watch_ahead(self) -> None:
        waiting = list(self._ahead)
        self._ahead_timer = asyncio.get_running_loop().call_later(_PATIENCE, self._give_back_late, waiting)

    def _give_back_late(self, waiting: list[Run]) -> None:
        """What was taken ahead and did not find a slot in time is for others: the estimate was of quicker jobs."""
        self._ahead_timer = None
        for run in waiting:
            if run in self._ahead:
                self._ahead.remove(run)
                self._finish(run, Outcome(kind=OutcomeKind.RELEASED))
                self._too_slow = True
        if self._ahead:
            self._watch_ahead()

    def _isolate(self, suspects: list[Run]) -> None:
        """Messages whose workers died run one at a time: the one that kills is found, and only it is charged."""
        if self._suspect is None:
            chosen = suspects.pop(0)
            self._suspect = chosen.delivery
            chosen.task = asyncio.get_running_loop().create_task(self._start_alone(chosen, suspects))
        for run in suspects:
            pause = random.uniform(0.5, 1.5)  # noqa: S311 -- jitter
            self._finish(run, Outcome(kind=OutcomeKind.RELEASED, delay=pause))

    async def _start_alone(self, run: Run, others: Sequence[Run]) -> None:
        # Not before the others are given back: what this process holds when it dies is charged for it.
        while any(other.delivery in self._runs for other in others):  # noqa: ASYNC110 -- rare, and soon over
            await asyncio.sleep(0.002)
        self._running += 1
        await self._go(run)

    # Running

    def _start(self, run: Run) -> None:
        self._running += 1
        run.task = asyncio.get_running_loop().create_task(self._go(run))
        run.task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """A task that is cancelled before its first step ends without having run at all."""
        if task.cancelled():
            for run in [run for run in self._runs.values() if run.task is task and not run.settling]:
                self._ended(run, Outcome(kind=OutcomeKind.RELEASED))

    async def _go(self, run: Run) -> None:
        try:
            outcome = await self._executor.run(run)
        except Exception as error:
            # It promises not to; but a run that ends without an outcome would hold its lease and its slot for ever.
            self._logger.exception("%s: running it failed in a way that nobody foresaw", run.label)
            outcome = Outcome(kind=OutcomeKind.FAILED, error=describe(error))
        if not run.abandoned:
            self._ended(run, outcome)

    def _ended(self, run: Run, outcome: Outcome) -> None:
        self._running -= 1
        self._too_slow = False
        while self._ahead and self._running < self.concurrency and not self._stopping:
            self._start(self._ahead.popleft())
        self._finish(run, outcome)

    def _abandon(self, run: Run) -> None:
        """It was interrupted and goes on all the same: it loses its slot, and its outcome will not count."""
        if run.delivery in self._runs and not run.abandoned and run.task is not None and not run.task.done():
            run.abandoned = True
            self.abandoned += 1
            self._logger.error("%s ignores its cancellation; it is left to itself", run.label)
            kind = OutcomeKind.CANCELLED if run.reason is StopReason.CANCELLED else OutcomeKind.RELEASED
            self._ended(run, Outcome(kind=kind))

    def _finish(self, run: Run, outcome: Outcome) -> None:
        if run.reason is StopReason.LEASE_LOST:
            self.refused += 1
            self._logger.warning("%s: lost its lease; its outcome (%s) is dropped", run.label, outcome.kind.value)
            self._forget(run)
            return
        if outcome.error is not None:
            self._tell(run, outcome)
        try:
            settlement = self._verdicts.settlement(run, outcome)
        except Exception as error:
            self._logger.exception("%s: its outcome cannot be settled; it becomes a dead letter", run.label)
            settlement = self._verdicts.buried(run, Outcome(kind=OutcomeKind.FAILED, error=describe(error)))
        run.settling = True
        if run.acknowledged:
            self._record_only(run, settlement.record)
        else:
            self._settler.submit(run, settlement)

    def _tell(self, run: Run, outcome: Outcome) -> None:
        """Say in the log what went wrong; the traceback is with the job's record and its dead letter."""
        error = outcome.error
        assert error is not None
        lines = error.text.splitlines()
        what = f"{error.type}: {lines[0][:300]}" if lines else error.type
        match outcome.kind:
            case OutcomeKind.RETRY:
                self._logger.info("%s: attempt failed, again in %.1f s: %s", run.label, outcome.delay, what)
            case OutcomeKind.FAILED:
                self._logger.warning("%s: failed for good: %s", run.label, what)
            case OutcomeKind.RELEASED | OutcomeKind.CRASHED:
                self._logger.warning("%s: given back, for %.1f s: %s", run.label, outcome.delay, what)

    def _record_only(self, run: Run, record: JobRecord | None) -> None:
        results = self._parts.connection.results

        async def store() -> None:
            try:
                for pause in (0.1, 0.5, 2.0, 0.0):
                    try:
                        if results is not None and record is not None:
                            await results.store([record])
                    except BrokerUnavailable as error:
                        self._logger.warning("%s: its result cannot be stored: %s", run.label, error)
                        await asyncio.sleep(pause)
                    else:
                        break
            finally:
                self._forget(run)

        # Not the run's own task: an interruption of the attempt must not reach its record.
        self._storing.add(task := asyncio.get_running_loop().create_task(store()))
        task.add_done_callback(self._storing.discard)

    def _on_settled(self, run: Run, applied: bool) -> None:
        if applied:
            self.settled += 1
        elif run.reason is None:
            self.refused += 1
            self._logger.warning("%s: another worker has it by now; nothing was settled here", run.label)
        self._forget(run)

    def _forget(self, run: Run) -> None:
        self._keeper.let_go(run.delivery)
        self._runs.pop(run.delivery, None)
        self._finished += 1
        if self._suspect is run.delivery:
            self._suspect = None
        self._room.set()
        if not self._runs:
            self._empty.set()

    def _on_lost(self, delivery: Delivery) -> None:
        run = self._runs.get(delivery)
        if run is not None and not run.settling:
            self._logger.warning("%s: lost its lease; another worker may run it", run.label)
            self._interrupt(run, StopReason.LEASE_LOST)

    def _on_cancelled(self, delivery: Delivery) -> None:
        run = self._runs.get(delivery)
        if run is not None:
            self._interrupt(run, StopReason.CANCELLED)

    def _interrupt(self, run: Run, reason: StopReason) -> None:
        run.stop(reason)
        if run in self._ahead:
            self._ahead.remove(run)
            kind = OutcomeKind.CANCELLED if reason is StopReason.CANCELLED else OutcomeKind.RELEASED
            self._finish(run, Outcome(kind=kind))
        else:
            asyncio.get_running_loop().call_later(GRACE + 0.5, self._abandon, run)

    def label_of(self, task: asyncio.Task[Any] | None) -> str | None:
        """Task and job that this asyncio task runs, if it is one of this lane."""
        for run in list(self._runs.values()):
            if task is not None and run.task is task:
                return run.label
        return None

    # What a running job asks for

    async def dispatch(self, what: Any, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """As `app.dispatch`."""
        job: Job[Any] = await self._parts.dispatch(what, *args, **kwargs)
        return job

    async def acknowledge(self, context: Context) -> bool:
        """Settle before the run; True again when that has happened already."""
        run = self._runs[context.delivery]
        if run.acknowledged:
            return True
        # From here on a lease that is gone is no bad news: it may be this very settlement that ended it.
        self._keeper.let_go(run.delivery)
        settling = asyncio.ensure_future(self._consumer.settle([Settlement(delivery=run.delivery, action=Action.ACK)]))
        try:
            await asyncio.shield(settling)
        except asyncio.CancelledError:
            await asyncio.wait([settling])  # whether it is still ours to record depends on the answer
            raise
        finally:
            if settling.done() and not settling.cancelled() and settling.exception() is None:
                [run.acknowledged] = settling.result()
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

    # Ending

    async def idle(self) -> None:
        """Wait until everything that was taken is settled."""
        await self._empty.wait()

    @property
    def busy(self) -> int:
        """How many deliveries are in this worker's hands."""
        return len(self._runs)

    async def stop(self) -> None:
        """Take nothing more, and give back what has not begun."""
        if self._stopping:
            return
        self._stopping = True
        self._room.set()
        try:
            await self._consumer.stop()
        except Exception:
            # Whatever it is, what is held here must be given back all the same.
            self._logger.exception("the consumer could not be stopped")
        while self._ahead:
            self._finish(self._ahead.popleft(), Outcome(kind=OutcomeKind.RELEASED))
        if self._receiving is not None:
            done, _ = await asyncio.wait([self._receiving], timeout=5.0)
            if not done:
                self._receiving.cancel()
        for run in list(self._ahead):
            self._finish(run, Outcome(kind=OutcomeKind.RELEASED))
        self._ahead.clear()

    def give_back(self) -> None:
        """Interrupt what runs; coroutines end as released, the rest is released under their feet."""
        for run in list(self._runs.values()):
            run.stop(StopReason.SHUTDOWN)

    async def release_rest(self) -> None:
        """Give back what could not be interrupted: it may run twice, and is never lost."""
        rest = [
            run for run in self._runs.values() if run.task is not None and not run.task.done() and not run.acknowledged
        ]
        if rest:
            self._logger.warning("gave back %d jobs that could not be interrupted", len(rest))
            with contextlib.suppress(BrokerUnavailable):
                await self._consumer.settle(
                    [Settlement(delivery=run.delivery, action=Action.RELEASE, charged=False) for run in rest]
                )

    async def close(self) -> None:
        """Let go of everything. What is unsettled comes back to others when its lease lapses."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(5.0):
                await self._settler.drain()
        self._settler.abandon()
        if self._ahead_timer is not None:
            self._ahead_timer.cancel()
        await self._keeper.close()
        await self._consumer.close()
