"""What observers are shown, on every broker; and that none of them can change a job, whatever it does."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from camora import Camora, Context, Discard, RetryPolicy, WorkerSettings, every
from camora.interfaces import Broker, ConsumerSettings, Leases, LeaseVerdict
from camora.interfaces.observer import (
    Event,
    JobDeadLettered,
    JobDispatched,
    JobEvent,
    JobFailed,
    JobReceived,
    JobReleased,
    JobRetried,
    JobStarted,
    JobSucceeded,
    LeaseLost,
    Observer,
    QueuePaused,
    QueueResumed,
    ScheduleFired,
    WorkerStarted,
    WorkerStopping,
)
from camora.message import Envelope
from camora.observers import MemoryObserver
from processes import WorkerProcess

QUICK = WorkerSettings(lease=2, shutdown_timeout=5, concurrency=20)


@pytest.fixture
def seen() -> MemoryObserver:
    return MemoryObserver()


@pytest.fixture
def app(broker_url: str, seen: MemoryObserver) -> Camora:
    return Camora(broker_url, observers=[seen])


async def story(app: Camora, seen: MemoryObserver, job_id: str, end: str) -> list[Any]:
    """The events of one job, as soon as the last one has come."""

    def of_job(events: Sequence[Event]) -> list[JobEvent]:
        return [event for event in events if isinstance(event, JobEvent) and event.job_id == job_id]

    return of_job(
        await asyncio.to_thread(seen.wait_for, lambda events: any(event.kind == end for event in of_job(events)))
    )


@asynccontextmanager
async def opened(broker: Broker) -> AsyncIterator[Broker]:
    await broker.open()
    yield broker
    await broker.close()


# Every event comes from where it happens


async def test_a_job_that_succeeds(app: Camora, seen: MemoryObserver) -> None:
    @app.task(name="add", queue="sums")
    async def add(x: int, y: int) -> int:
        return x + y

    async with app, app.worker(settings=QUICK) as worker:
        job = await add.dispatch(1, 2)
        dispatched, received, started, succeeded = await story(app, seen, job.id, "job.succeeded")
        name = worker.name
    assert isinstance(dispatched, JobDispatched)
    assert (dispatched.task, dispatched.queue, dispatched.attempt, dispatched.worker) == ("add", "sums", 1, "")
    assert isinstance(received, JobReceived)
    assert (received.queue, received.deliveries, received.worker) == ("sums", 1, name)
    assert isinstance(started, JobStarted)
    assert (started.task, started.queue, started.attempt, started.worker) == ("add", "sums", 1, name)
    assert isinstance(succeeded, JobSucceeded)
    assert (succeeded.task, succeeded.attempt, succeeded.worker) == ("add", 1, name)
    assert dispatched.at <= received.at <= started.at <= succeeded.at
    assert min(started.waited, succeeded.duration) >= 0


async def test_a_job_that_fails_again_and_again(app: Camora, seen: MemoryObserver) -> None:
    @app.task(retry_policy=RetryPolicy(max_tries=3, delay=0.01, jitter=False))
    async def broken(ctx: Context) -> None:
        raise OSError(f"no way, {ctx.attempt}\nand more")

    async with app, app.worker(settings=QUICK):
        job = await broken.dispatch()  # type: ignore[call-arg]
        events = await story(app, seen, job.id, "job.dead_lettered")
    attempt = ["job.received", "job.started"]
    assert [event.kind for event in events] == [
        *("job.dispatched", *attempt, "job.retried", *attempt, "job.retried", *attempt),
        *("job.failed", "job.dead_lettered"),
    ]
    retried = [event for event in events if isinstance(event, JobRetried)]
    assert [(event.attempt, event.delay, event.error) for event in retried] == [
        (1, 0.01, "OSError: no way, 1"),
        (2, 0.02, "OSError: no way, 2"),
    ]
    failed, buried = events[-2:]
    assert isinstance(failed, JobFailed)
    assert (failed.attempt, failed.error) == (3, "OSError: no way, 3")
    assert isinstance(buried, JobDeadLettered)
    assert (buried.attempt, buried.reason, buried.error) == (3, "failed", "OSError: no way, 3")


async def test_a_failure_that_is_dropped_is_no_dead_letter(app: Camora, seen: MemoryObserver) -> None:
    @app.task(on_failure="drop")
    async def broken() -> None:
        raise OSError("no way")

    async with app, app.worker(settings=QUICK):
        job = await broken.dispatch()
        await story(app, seen, job.id, "job.failed")
    assert not seen.of(JobDeadLettered)


async def test_jobs_that_end_in_other_ways(app: Camora, seen: MemoryObserver) -> None:
    begun = asyncio.Event()

    @app.task
    async def unwanted() -> None:
        raise Discard("not any more")

    @app.task
    async def endless() -> None:
        begun.set()
        await asyncio.Event().wait()

    async with app:
        late = await unwanted.options(expires=0.001).dispatch()
        discarded = await unwanted.dispatch()
        cancelled = await endless.dispatch()
        unknown = await app.dispatch("nobody")
        await asyncio.to_thread(_pass, 0.002)
        async with app.worker(settings=QUICK):
            expired = await story(app, seen, late.id, "job.expired")
            assert not any(isinstance(event, JobStarted) for event in expired)
            assert [event.kind for event in await story(app, seen, discarded.id, "job.discarded")][
                -1
            ] == "job.discarded"
            await begun.wait()
            await cancelled.cancel()
            assert [event.kind for event in await story(app, seen, cancelled.id, "job.cancelled")][-2:] == [
                "job.started",
                "job.cancelled",
            ]
            released = (await story(app, seen, unknown.id, "job.released"))[-1]
    assert isinstance(released, JobReleased)
    assert released.delay >= 1
    assert "has no task 'nobody'" in released.error


def _pass(seconds: float) -> None:
    """Let time pass by the wall clock, which is what an expiry goes by."""
    end = time.time() + seconds
    while time.time() <= end:
        time.sleep(0.001)


async def test_a_message_that_nobody_can_read(app: Camora, seen: MemoryObserver) -> None:
    async with app, app.worker(settings=QUICK):
        async with opened(app.broker.twin()) as broker:
            await broker.publish([Envelope(id="odd", task="", queue="default", body=b"\x00not a message")])
        events = await story(app, seen, "odd", "job.dead_lettered")
    assert [event.kind for event in events] == ["job.received", "job.failed", "job.dead_lettered"]
    assert (events[-1].reason, events[-1].task, events[-1].attempt) == ("undecodable", "", 0)


async def test_dispatching_many_tells_of_each_and_a_repetition_of_none(app: Camora, seen: MemoryObserver) -> None:
    @app.task
    async def note(number: int) -> None: ...

    async with app:
        jobs = [job async for job in app.dispatch_many(note.s(number) for number in range(300))]
        first = await note.options(key="once").dispatch(1)
        again = await note.options(key="once").dispatch(1)
        await app.events.flush()
    assert first.id == again.id
    assert [event.job_id for event in seen.of(JobDispatched)] == [*(job.id for job in jobs), first.id]


async def test_workers_and_queues(app: Camora, seen: MemoryObserver) -> None:
    release = asyncio.Event()

    @app.task(queue="mail")
    async def hold() -> None:
        await release.wait()

    async with app:
        async with app.worker(settings=QUICK) as worker:
            await app.queue_control.pause("mail")
            await app.queue_control.resume("mail")
            job = await hold.dispatch()
            await story(app, seen, job.id, "job.started")
            asyncio.get_running_loop().call_soon(release.set)
        await app.events.flush()
        name = worker.name
    [started], [stopping] = seen.of(WorkerStarted), seen.of(WorkerStopping)
    assert (started.worker, started.queues) == (name, ("default", "mail"))
    assert (stopping.worker, stopping.busy) == (name, 1)
    assert [event.queue for event in seen.of(QueuePaused)] == ["mail"]
    assert [event.queue for event in seen.of(QueueResumed)] == ["mail"]
    kinds = seen.kinds
    assert kinds.index("worker.started") < kinds.index("queue.paused") < kinds.index("queue.resumed")
    assert kinds.index("worker.stopping") < kinds.index("job.succeeded")


async def test_schedules(app: Camora, seen: MemoryObserver) -> None:
    @app.task
    async def pulse() -> None: ...

    app.schedule("heart", pulse.s(), every(seconds=1))
    async with app, app.worker(settings=QUICK):
        scheduler = app.make_scheduler()
        await scheduler.start()
        await asyncio.to_thread(seen.wait_for, lambda events: any(isinstance(one, ScheduleFired) for one in events))
        fired = seen.of(ScheduleFired)[0]
        assert (await story(app, seen, fired.job_id, "job.succeeded"))[-1].task == pulse.name
        await scheduler.close()
    assert fired.key == "heart"
    assert fired.tick <= fired.at


class Losing(Leases):
    """Says of each delivery that it is lost, from the moment on when it is told to."""

    def __init__(self, inner: Leases, lost: threading.Event) -> None:
        self._inner = inner
        self._lost = lost

    def extend(self, deliveries: Sequence[Any]) -> Sequence[LeaseVerdict]:
        verdicts = self._inner.extend(deliveries)
        return [LeaseVerdict.LOST for _ in verdicts] if self._lost.is_set() else verdicts

    def cancelled(self, deliveries: Sequence[Any]) -> Sequence[Any]:
        return self._inner.cancelled(deliveries)

    def close(self) -> None:
        self._inner.close()


async def test_a_lease_that_is_lost(app: Camora, seen: MemoryObserver, monkeypatch: pytest.MonkeyPatch) -> None:
    lost, original = threading.Event(), type(app.broker).consumer

    async def consumer(self: Any, settings: ConsumerSettings) -> Any:
        made = await original(self, settings)
        make = made.leases
        monkeypatch.setattr(made, "leases", lambda: Losing(make(), lost), raising=False)
        return made

    monkeypatch.setattr(type(app.broker), "consumer", consumer)

    @app.task
    async def hold() -> None:
        await asyncio.Event().wait()

    async with app, app.worker(settings=WorkerSettings(lease=1, shutdown_timeout=0.1)) as worker:
        job = await hold.dispatch()
        await story(app, seen, job.id, "job.started")
        lost.set()
        gone = next(
            event for event in await story(app, seen, job.id, "job.lease_lost") if event.kind == "job.lease_lost"
        )
        lost.clear()
    assert isinstance(gone, LeaseLost)
    assert (gone.worker, gone.attempt, gone.queue) == (worker.name, 1, "default")


# No observer can change a job


class Bad(Observer):
    """Does something bad with the first batch, and with each after it."""

    def __init__(self, act: Callable[[Sequence[Event]], object]) -> None:
        self._act = act
        self.calls = 0

    async def observe(self, events: Sequence[Event]) -> None:
        self.calls += 1
        answer = self._act(events)
        if asyncio.iscoroutine(answer):
            await answer


def _raises(_: Sequence[Event]) -> None:
    raise ValueError("I am an observer")


def _exits(_: Sequence[Event]) -> None:
    raise SystemExit(3)


def _interrupts(_: Sequence[Event]) -> None:
    raise KeyboardInterrupt


async def _cancels_everything(_: Sequence[Event]) -> None:
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.sleep(0)


def _stops_the_loop(_: Sequence[Event]) -> None:
    asyncio.get_running_loop().stop()


def _rewrites(events: Sequence[Event]) -> None:
    for event in events:
        event.at = 0  # type: ignore[misc]


def _empties(events: Sequence[Event]) -> None:
    events.clear()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "act", [_raises, _exits, _interrupts, _cancels_everything, _stops_the_loop, _rewrites, _empties]
)
async def test_no_observer_changes_a_job(broker_url: str, act: Callable[[Sequence[Event]], object]) -> None:
    bad, good = Bad(act), MemoryObserver()
    app = Camora(broker_url, observers=[bad, good])

    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    async with app, app.worker(settings=QUICK):
        jobs = [await add.dispatch(number, 1) for number in range(20)]
        assert [await job.result(60) for job in jobs] == list(range(1, 21))
        await app.events.flush()
    assert bad.calls
    assert len(good.of(JobSucceeded)) == 20
    assert all(event.at for event in good.events)


async def test_a_blocked_observer_holds_up_nobody_and_what_it_loses_is_counted_and_said(
    broker_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    blocked, release = threading.Event(), threading.Event()

    def block(_: Sequence[Event]) -> None:
        blocked.set()
        assert release.wait(60)

    bad, good = Bad(block), MemoryObserver()
    app = Camora(broker_url, observers=[bad, good])

    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    async with app, app.worker(settings=QUICK):
        assert await (await add.dispatch(1, 2)).result(60) == 3
        assert await asyncio.to_thread(blocked.wait, 20)
        assert await (await add.dispatch(2, 2)).result(60) == 4  # while it is blocked
        count = 10_500
        async for _ in app.dispatch_many(add.options(delay=3600).s(number, 1) for number in range(count)):
            pass
        about_bad, about_good = app.events.stats()
        assert about_bad.dropped >= count - 10_000
        assert about_bad.waiting == 10_000
        assert about_good.dropped == 0
        [said] = [record for record in caplog.records if "does not keep up" in record.getMessage()]
        assert "observer Bad" in said.getMessage()
        release.set()
        await app.events.flush()
    assert len(good.of(JobDispatched)) == count + 2


async def test_events_come_in_batches(broker_url: str) -> None:
    sizes: list[int] = []

    async def count(events: Sequence[Event]) -> None:
        sizes.append(len(events))

    app = Camora(broker_url, observers=[Bad(count)])

    @app.task
    async def note(number: int) -> None: ...

    async with app:
        async for _ in app.dispatch_many(note.options(delay=3600).s(number) for number in range(3000)):
            pass
        await app.events.flush()
    assert sum(sizes) == 3000
    assert max(sizes) <= 1000
    assert len(sizes) < 300


# In processes of their own

TASKS = """
import json, os
from camora import Camora
from camora.interfaces import Observer


class ToFile(Observer):
    async def observe(self, events):
        with open(f"events-{os.getpid()}.jsonl", "a") as file:
            for event in events:
                told = {name: getattr(event, name) for name in event.__struct_fields__}
                file.write(json.dumps({"kind": event.kind, **told}) + "\\n")


app = Camora("sqlite:///camora.db", observers=[ToFile()])


@app.task(name="pid", execution="process")
def pid() -> int:
    return os.getpid()


@app.task(name="wait")
async def wait() -> int:
    return os.getpid()
"""


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    (tmp_path / "tasks.py").write_text(TASKS)
    made: list[WorkerProcess] = []

    class Here(WorkerProcess):
        cwd = tmp_path

    def start(*arguments: str) -> WorkerProcess:
        made.append(Here(tmp_path, "", *arguments, app="tasks:app"))
        return made[-1]

    yield start
    for worker in made:
        worker.destroy()


async def test_processes_and_pools_tell_their_events_to_the_end(
    tmp_path: Path, run: Callable[..., WorkerProcess]
) -> None:
    """Each worker process shows its own; what a pool's child runs is told by its worker; a stop loses none."""
    worker = run("--processes", "2").ready(2)
    async with Camora(f"sqlite:///{tmp_path}/camora.db") as app:
        jobs = [await app.dispatch(("pid", "wait")[number % 2]) for number in range(20)]
        answers = [await job.result(60) for job in jobs]
    worker.signal(signal.SIGTERM)
    assert worker.end() == 0, worker.text()
    files = {int(path.stem.removeprefix("events-")): path for path in tmp_path.glob("events-*.jsonl")}
    told = {pid: [json.loads(line) for line in path.read_text().splitlines()] for pid, path in files.items()}
    assert len(told) == 2
    assert set(answers[1::2]) <= set(told)
    assert not set(answers[::2]) & set(told)
    for events in told.values():
        kinds = [event["kind"] for event in events]
        assert (kinds[0], kinds.count("worker.started"), kinds.count("worker.stopping")) == ("worker.started", 1, 1)
    for kind in ("job.received", "job.started", "job.succeeded"):
        found = [event["job_id"] for events in told.values() for event in events if event["kind"] == kind]
        assert sorted(found) == sorted(job.id for job in jobs)
