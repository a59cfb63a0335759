"""`TestWorker`: an app's jobs, run for real, in time that a test moves."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable
from contextlib import AsyncExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Self

import attrs

from camora.builtin.memory import MemoryStore
from camora.clock import to_epoch_ms
from camora.errors import BrokerUnavailable
from camora.outcome import DeadLetter, Status
from camora.queue import Queue
from camora.settings import WorkerSettings
from camora.testing.attempts import Attempts
from camora.testing.broker import StagedBroker, Theatre
from camora.testing.clock import VirtualClock
from camora.testing.dispatched import Dispatched, DispatchedJob
from camora.testing.faults import CrashPoint, Faults
from camora.testing.finished import Finished
from camora.testing.seeded import SeededIds, seeded_chance
from camora.testing.stage import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from camora.app import Camora
    from camora.scheduler import Scheduler
    from camora.worker.worker import Worker

__all__ = ["START", "TestWorker", "staged"]

START = datetime(2026, 1, 1, tzinfo=UTC)
"""When the time of a test begins, unless it says otherwise."""
_DISPATCH_TIMEOUT = 0.25
"""Real seconds for which a dispatch tries to reach a broker that a test has taken down."""


@contextmanager
def staged(app: Camora, *, seed: int = 0, start: datetime = START, at_once: int = 1) -> Iterator[Theatre]:
    """Inside the block, the app stands on a memory broker that notes everything, and on a clock that stands still."""
    clock = VirtualClock(to_epoch_ms(start))
    store = MemoryStore(clock)
    theatre = Theatre(
        stage=Stage(clock, store, at_once=at_once),
        faults=Faults(),
        dispatched=Dispatched(app),
        finished=Finished(clock),
        keeps_records=app.results is not None,
        task_options=frozenset(app.plugin_options),
    )
    broker = StagedBroker(theatre)
    timeout = min(app.settings.dispatch_timeout, _DISPATCH_TIMEOUT)
    swapped = app.swapped(
        broker=broker,
        results=None if app.results is None else broker.own_results(),
        clock=clock,
        ids=SeededIds(clock, seed),
        settings=attrs.evolve(app.settings, dispatch_timeout=timeout),
        middleware=[Attempts(theatre)],
    )
    with seeded_chance(seed), swapped:
        yield theatre


class TestWorker:
    """Runs an app's jobs and schedules inside the block, in memory and in virtual time.

    Everything is real but the time: dispatcher, chain, worker, executor, pools, retries, limits and the scheduler are
    the app's own, on a memory broker, whatever broker the app names. What is due runs by itself while the test awaits
    something; what is due later runs when `advance` moves the time there. Virtual time stands still while a job works,
    and passes at once where nobody works.

    `seed` decides job ids, jitter and whatever else asks the module `random`. `start` is an aware moment. `at_once` is
    how many jobs may work at the same time: 1 makes their order, and so `log`, the same in every run. `patience` is
    how many real seconds a job may work. `run=False`: nothing runs, dispatches are only noted. `schedules=False`: no
    schedule fires. Queues of any kind are plain ones here. Raises `ValueError` for a naive `start`, and what a worker's
    start raises.
    """

    __test__: ClassVar[bool] = False  # whatever pytest thinks of its name

    def __init__(
        self,
        app: Camora,
        *,
        seed: int = 0,
        start: datetime = START,
        at_once: int = 1,
        run: bool = True,
        schedules: bool = True,
        queues: Iterable[str | Queue] | None = None,
        patience: float = 30.0,
    ) -> None:
        to_epoch_ms(start)  # refuses a naive one here, where it was given
        if at_once < 1:
            raise ValueError(f"at_once={at_once}: must be 1 or more")
        self.app = app
        self.seed = seed
        self._start = start
        self._at_once = at_once
        self._run = run
        self._with_schedules = schedules
        self._queues = None if queues is None else tuple(queues)
        self._patience = patience
        self._theatre_: Theatre | None = None
        self._worker: Worker | None = None
        self._scheduler: Scheduler | None = None
        self._replacing: asyncio.Task[None] | None = None
        self._stopping = False
        self._failure: BaseException | None = None
        self._exit = AsyncExitStack()

    # Life

    async def __aenter__(self) -> Self:
        if self._theatre_ is not None:
            raise RuntimeError("a TestWorker serves one block; make another one")
        async with AsyncExitStack() as undo:
            theatre = undo.enter_context(staged(self.app, seed=self.seed, start=self._start, at_once=self._at_once))
            undo.push_async_callback(self.app.close)
            self._theatre_ = theatre
            undo.push_async_callback(self._stop)
            theatre.stage.crashed = self._on_crash
            if self._run:
                await self._start_worker()
            if self._with_schedules:
                self._scheduler = self.app.make_scheduler()
                await self._scheduler.next_due()
            self._exit = undo.pop_all()
        return self

    async def __aexit__(self, *failure: object) -> None:
        await self._exit.__aexit__(*failure)  # type: ignore[arg-type]

    async def _start_worker(self) -> None:
        settings = attrs.evolve(self.app.worker_settings or WorkerSettings(), prefetch=0, shutdown_timeout=5.0)
        self._worker = self.app.make_worker(queues=self._queues, settings=settings)
        await self._worker.start()

    async def _stop(self) -> None:
        self._stopping = True
        if self._replacing is not None:
            await asyncio.wait([self._replacing])
        if self._scheduler is not None:
            await self._scheduler.close()
        if self._worker is not None:
            self._theatre.stage.kill(self._worker.name)  # what still runs is stopped, and not waited for
            await self._worker.close()

    def _on_crash(self, name: str) -> None:
        del name  # there is one worker at a time
        if self._replacing is None and not self._stopping:
            self._replacing = asyncio.get_running_loop().create_task(self._replace())

    async def _replace(self) -> None:
        """Clear the dead one away, and start another, as whoever looks after workers does; as often as they die."""
        with self._theatre.stage.busy():
            try:
                while self._worker is not None and self._worker.name in self._theatre.stage.dead:
                    await self._worker.close()
                    await self._start_worker()
            except Exception as error:  # noqa: BLE001 -- told to the test, which waits in `advance`
                self._failure = error
            finally:
                self._replacing = None

    @property
    def _theatre(self) -> Theatre:
        if self._theatre_ is None:
            raise RuntimeError("this TestWorker is not running; use it in: async with TestWorker(app) as worker")
        return self._theatre_

    # Time

    @property
    def now(self) -> datetime:
        """The virtual time, in UTC."""
        return datetime.fromtimestamp(self.clock.now_ms() / 1000, UTC)

    @property
    def clock(self) -> VirtualClock:
        """What tells the app the time."""
        return self._theatre.stage.clock

    async def advance(self, by: timedelta | float | None = None, **units: float) -> int:
        """Move the time on by this (seconds, a `timedelta`, or `hours=1, minutes=5` …); returns how many jobs ended.

        Whatever comes due meanwhile happens at its own moment, in order: delayed jobs, retries, schedules, lapsing
        leases, limits that have room again. Raises `ValueError` for a step back, `TimeoutError` when a job works on
        for longer than `patience` real seconds.
        """
        given = timedelta(0) if by is None else by if isinstance(by, timedelta) else timedelta(seconds=by)
        return await self.advance_to(self.now + given + timedelta(**units))

    async def advance_to(self, moment: datetime) -> int:
        """Move the time on to an aware moment; as `advance`."""
        target, stage = to_epoch_ms(moment), self._theatre.stage
        before = len(self.finished)
        if target < stage.clock.now_ms():
            raise ValueError(f"time does not run backwards: it is {self.now.isoformat()}, not {moment.isoformat()} yet")
        while True:
            upcoming = await self._settle()
            if upcoming > target:
                break
            stage.move_to(max(stage.clock.now_ms(), upcoming))
        stage.move_to(target)
        await self._settle()
        return len(self.finished) - before

    async def run_due(self) -> int:
        """Run everything that is due now, and all that follows from it at once; returns how many jobs ended."""
        return await self.advance()

    async def run_all(self, *, within: timedelta = timedelta(days=366)) -> int:
        """Move the time on until no job is left, schedules aside; returns how many ended.

        Raises `TimeoutError` when some are left after `within` of virtual time.
        """
        before = len(self.finished)
        end = self.clock.now_ms() + round(within.total_seconds() * 1000)
        stage = self._theatre.stage
        upcoming = await self._settle()
        while self._unfinished():
            if upcoming > end:
                raise TimeoutError(f"jobs are left after {within} of virtual time: {self._label(self._unfinished())}")
            stage.move_to(max(stage.clock.now_ms(), int(upcoming)))
            upcoming = await self._settle()
        return len(self.finished) - before

    def _unfinished(self) -> list[str]:
        store = self._theatre.stage.store
        return [job_id for job_id in store.entries if job_id not in store.letters]

    async def _settle(self) -> int:
        """Let all happen that happens now; when something comes next, in milliseconds since the epoch."""
        stage = self._theatre.stage
        while True:
            if not await stage.quiet(self._patience):
                raise TimeoutError(self._too_long())
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            due = await self._next_tick()
            if due > stage.clock.now_ms():
                break
            await self._fire()
        upcoming = min(due, stage.next_event())
        # A moment that has come, and brings nothing by itself (a paused queue's), shall not hold up time.
        return _FAR if math.isinf(upcoming) else max(math.ceil(upcoming), stage.clock.now_ms() + 1)

    async def _next_tick(self) -> float:
        if self._scheduler is None:
            return math.inf
        due = await self._scheduler.next_due()
        if due is None:
            return math.inf
        return max(due, self._theatre.down_until) if self._theatre.is_down else due

    async def _fire(self) -> None:
        assert self._scheduler is not None
        try:
            await self._scheduler.run_due()
        except BrokerUnavailable:
            # As a scheduler does that finds the broker away: its loans lapse, and it tries again.
            self._theatre.stage.log.note("schedules wait", more="the broker is away")

    def _too_long(self) -> str:
        stage = self._theatre.stage
        working = stage.awake()
        what = self._label(working) if working else "the worker"
        return (
            f"{what}: still at work after {self._patience:g} s of real time, and virtual time stands still meanwhile. "
            "A job that sleeps should use worker.sleep here; one that waits for another job needs "
            "TestWorker(…, at_once=2); one that really takes longer needs TestWorker(…, patience=…)"
        )

    def _label(self, job_ids: list[str]) -> str:
        shown = ", ".join(f"{self._theatre.task_of(job_id)} {job_id}" for job_id in job_ids[:5])
        return shown + (f" and {len(job_ids) - 5} more" if len(job_ids) > 5 else "")

    async def sleep(self, seconds: float, result: Any = None) -> Any:
        """`asyncio.sleep` in virtual time: put it in the place of the one that tasks use.

        Inside a job, the job's timeout ends it, in virtual time too.
        """
        await Attempts(self._theatre).sleep(seconds)
        return result

    # Faults

    def crash(self, task: Any = None, *, at: CrashPoint = "started", times: int = 1) -> None:
        """Let the worker die with the next job (of this task); another worker takes its place at once.

        All it held comes back when the leases lapse (30 s of virtual time by default). Functions that run in its event
        loop are cancelled; a thread goes on to its end, unheard.
        """
        self._theatre.faults.plan(at, task, times)

    def deliver_twice(self, task: Any = None, *, times: int = 1) -> None:
        """Deliver the next job (of this task) once more, right after it has run."""
        self._theatre.faults.plan("twice", task, times)

    def lose_ack(self, task: Any = None, *, times: int = 1) -> None:
        """Lose the acknowledgement of the next job (of this task): it is delivered again when its lease lapses."""
        self._theatre.faults.plan("lose_ack", task, times)

    def fail_dispatch(self, task: Any = None, *, times: int = 1) -> None:
        """Refuse the next publications (of this task) before anything is stored; the dispatcher tries again."""
        self._theatre.faults.plan("refuse", task, times)

    def lose_dispatch_answer(self, task: Any = None, *, times: int = 1) -> None:
        """Store the next publications (of this task), and lose the answer; the dispatcher tries again."""
        self._theatre.faults.plan("doubt", task, times)

    def broker_down(self, seconds: float | timedelta) -> None:
        """Take the broker away for so long, in virtual time."""
        length = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
        self._theatre.down_until = self.clock.now_ms() + length * 1000

    @property
    def pending_faults(self) -> tuple[str, ...]:
        """Faults that were asked for and have not happened yet, in words."""
        return self._theatre.faults.pending

    # Looking

    @property
    def log(self) -> list[str]:
        """What has happened, a line each: the same app and seed give the same lines."""
        return list(self._theatre.stage.log.lines)

    @property
    def dispatched(self) -> Dispatched:
        """The jobs that were dispatched, schedules' included, in order."""
        return self._theatre.dispatched

    @property
    def finished(self) -> Finished:
        """The jobs that have ended, in order."""
        return self._theatre.finished

    @property
    def dead_letters(self) -> list[DeadLetter]:
        """The dead letters, oldest first."""
        return list(self._theatre.stage.store.letters.values())

    def assert_dispatched(
        self,
        task: Any,
        /,
        *,
        times: int | None = None,
        options: Mapping[str, Any] | None = None,
        **arguments: Any,
    ) -> DispatchedJob:
        """See `Dispatched.assert_dispatched`."""
        __tracebackhide__ = True
        return self.dispatched.assert_dispatched(task, times=times, options=options, **arguments)

    def assert_not_dispatched(
        self, task: Any, /, *, options: Mapping[str, Any] | None = None, **arguments: Any
    ) -> None:
        """See `Dispatched.assert_not_dispatched`."""
        __tracebackhide__ = True
        self.dispatched.assert_not_dispatched(task, options=options, **arguments)

    def assert_all_succeeded(self) -> None:
        """Every job has ended, and none has failed. Raises `AssertionError` that lists those that have not."""
        __tracebackhide__ = True
        bad = [str(job) for job in self.finished if job.status is not Status.SUCCEEDED]
        if left := self._unfinished():
            bad.append(f"not finished: {self._label(left)}")
        if bad:
            raise AssertionError("not all jobs have succeeded:\n" + "\n".join(f"  {line}" for line in bad))


_FAR = 1 << 62
