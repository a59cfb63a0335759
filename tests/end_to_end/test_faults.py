"""What breaks, on real processes: killed, stopped, frozen, poisoned. Every test ends in the ledger: nothing is lost."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from camora import Camora, Status
from camora.errors import JobCancelled, JobFailed
from camora.testing.ledger import audit
from processes import Start, WorkerProcess, freeze_between_writes, shared, started, until, workers


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def shared_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A broker that several processes can share; servers join here."""
    return shared(request.param, tmp_path)


@pytest.fixture
def start(tmp_path: Path, shared_url: str) -> Iterator[Start]:
    with workers() as make:
        yield lambda *arguments, **environment: make(tmp_path, shared_url, *arguments, **environment)


@pytest.fixture
async def app(shared_url: str) -> AsyncIterator[Camora]:
    async with Camora(shared_url) as made:
        yield made


on_one_store = pytest.mark.parametrize("shared_url", ["sqlite"], indirect=True)
"""For what is between processes, and the same whatever they share."""


def freeze(worker: WorkerProcess, url: str) -> None:
    """Stop a process, but not while it keeps all others from the store."""
    if url.startswith("sqlite"):
        freeze_between_writes(worker, Path(url.removeprefix("sqlite:///")))
    else:
        worker.signal(signal.SIGSTOP)


async def balance(app: Camora, folder: Path, jobs: list[Any], *, duplicates: int, faults: int = 1) -> Any:
    """Wait for every job, then let the ledger check them all."""
    for job in jobs:
        await job.result(60)
    dead = [letter.id async for letter in app.dead_letters()]
    found = audit(folder / "ledger", dispatched=[job.id for job in jobs], dead=dead, faults=faults)
    print(found.summary())
    found.check(duplicates=duplicates)
    return found


async def test_workers_killed_at_any_step_lose_nothing(start: Start, app: Camora, tmp_path: Path) -> None:
    """One after the other: each finds new jobs, and sooner or later those that the dead ones held."""
    steps = ["received", "running", "ran", "before settle", "after settle"]
    jobs = []
    for step in steps:
        jobs += [await app.dispatch("work", number=number) for number in range(20)]
        worker = start("--concurrency", "5", SHOP_CRASH=step)
        assert worker.end() == -signal.SIGKILL
        assert (tmp_path / f"crashed-{step}").exists()
    start("--concurrency", "5").ready()
    # Those that had run and were not settled run again: at most what one worker holds.
    await balance(app, tmp_path, jobs, duplicates=len(steps) * 10, faults=len(steps))


async def test_killed_workers_under_load_lose_nothing(start: Start, app: Camora, tmp_path: Path) -> None:
    supervisor = start("--processes", "2", "--concurrency", "10").ready(2)
    jobs = []
    for _ in range(3):
        batch = [await app.dispatch(name, number=1) for name in ("work", "flaky") for _ in range(25)]
        jobs += batch
        await batch[12].result(60)
        victim = next(child for child in psutil.Process(supervisor.process.pid).children() if child.is_running())
        victim.kill()
        supervisor.wait_for("was killed by SIGKILL")
    await balance(app, tmp_path, jobs, duplicates=3 * 20, faults=3)


async def test_sigterm_finishes_what_runs_and_gives_back_the_rest(start: Start, app: Camora, tmp_path: Path) -> None:
    worker = start("--concurrency", "1").ready()
    held = await app.dispatch("hold", name="a")
    waiting = [await app.dispatch("work", number=number) for number in range(5)]
    await asyncio.to_thread(until, started(tmp_path, "a"), "the job's start")
    worker.signal(signal.SIGTERM)
    worker.wait_for("stopping")
    counts = await _counts(app)
    assert counts.get("ready", 0) == 5
    (tmp_path / "release-a").touch()
    assert worker.end() == 0
    assert await held.result(60) == str(worker.process.pid)
    start().ready()
    await balance(app, tmp_path, waiting, duplicates=0)


async def _counts(app: Camora) -> dict[str, int]:
    twin = app.broker.twin()
    await twin.open()
    try:
        return dict((await twin.queues.counts()).get("default", {}))
    finally:
        await twin.close()


@pytest.mark.parametrize("task", ["hold", "hold_thread"])
async def test_a_second_signal_gives_everything_back_at_once(
    start: Start, app: Camora, tmp_path: Path, task: str
) -> None:
    for name in "abcde":
        worker = start().ready()
        job = await app.dispatch(task, name=name)
        await asyncio.to_thread(until, started(tmp_path, name), "the job's start")
        worker.signal(signal.SIGINT)
        worker.wait_for("stopping")
        worker.signal(signal.SIGINT)
        assert worker.end() == 0
        if in_time(worker):
            break
        # Too busy a machine for two seconds to do: its lease gives it back.
        (tmp_path / f"release-{name}").touch()
    assert in_time(worker)
    assert (await job.info()).status is Status.QUEUED
    (tmp_path / f"release-{name}").touch()
    other = start().ready()
    assert await job.result(60) == str(other.process.pid)


def in_time(worker: WorkerProcess) -> bool:
    """Whether one in a hurry has done all that it does at its end."""
    return "it settled" in worker.text() and "did not take everything back in time" not in worker.text()


async def test_a_frozen_worker_does_not_settle_over_the_new_holder(
    start: Start, app: Camora, shared_url: str, tmp_path: Path
) -> None:
    frozen = start().ready()
    job = await app.dispatch("hold", name="a")
    await asyncio.to_thread(until, started(tmp_path, "a"), "the job's start")
    await asyncio.to_thread(freeze, frozen, shared_url)
    other = start().ready()
    await asyncio.to_thread(until, started(tmp_path, "a", 2), "its second start")
    frozen.signal(signal.SIGCONT)
    frozen.wait_for("lost its lease")
    (tmp_path / "release-a").touch()
    assert await job.result(60) == str(other.process.pid)
    frozen.signal(signal.SIGTERM)
    assert frozen.end() == 0
    assert (await job.info()).worker.split("-")[-2] == str(other.process.pid)


@pytest.mark.parametrize("shared_url", ["sqlite", "postgresql"], indirect=True)
async def test_poison_is_found_and_harms_no_bystander(start: Start, app: Camora, tmp_path: Path) -> None:
    # On each Redis: tests/redis/faults.
    supervisor = start("--processes", "2", CAMORA_WORKER__MAX_DELIVERIES="3")
    supervisor.ready(2)
    poison = await app.dispatch("kill_worker")
    jobs = [await app.dispatch("work", number=number) for number in range(20)]
    with pytest.raises(JobFailed, match="it seems to kill its workers"):
        await poison.result(90)
    [letter] = [letter async for letter in app.dead_letters()]
    assert (letter.id, letter.reason) == (poison.id, "poison")
    for job in jobs:
        await job.result(60)
    starts = audit(tmp_path / "ledger", dispatched=[poison.id, *(job.id for job in jobs)], dead=[poison.id])
    starts.check(duplicates=20)
    assert starts.interrupted >= 3


@on_one_store
async def test_a_killed_child_process_is_its_jobs_fault_alone(start: Start, app: Camora) -> None:
    worker = start("--concurrency", "8", CAMORA_WORKER__MAX_DELIVERIES="2").ready()
    bad = await app.dispatch("kill_child")
    fine = [await app.dispatch("work", number=number) for number in range(10)]
    for job in fine:
        await job.result(30)
    with pytest.raises(JobFailed, match="it seems to kill its workers"):
        await bad.result(60)
    assert worker.process.poll() is None


@on_one_store
async def test_workers_end_with_their_supervisor(start: Start) -> None:
    supervisor = start("--processes", "2").ready(2)
    children = psutil.Process(supervisor.process.pid).children(recursive=True)
    assert len(children) == 2
    supervisor.process.kill()
    gone, alive = await asyncio.to_thread(psutil.wait_procs, children, 30)
    assert not alive
    assert len(gone) == 2


@on_one_store
async def test_a_process_pool_ends_with_its_worker(start: Start, app: Camora, tmp_path: Path) -> None:
    worker = start().ready()
    child = await (await app.dispatch("in_child")).result(60)
    children = psutil.Process(worker.process.pid).children(recursive=True)
    assert child in [process.pid for process in children]
    worker.process.kill()
    _, alive = await asyncio.to_thread(psutil.wait_procs, children, 30)
    assert not [child for child in alive if child.status() != psutil.STATUS_ZOMBIE]


@on_one_store
async def test_a_supervisor_stops_its_workers_and_ends_well(start: Start, app: Camora, tmp_path: Path) -> None:
    supervisor = start("--processes", "2").ready(2)
    held = [await app.dispatch("hold", name=name) for name in "ab"]
    for name in "ab":
        await asyncio.to_thread(until, started(tmp_path, name), "the job's start")
    supervisor.signal(signal.SIGTERM)
    supervisor.wait_for("stopping")
    for name in "ab":
        (tmp_path / f"release-{name}").touch()
    assert supervisor.end() == 0
    for job in held:
        assert await job.result(60)


@on_one_store
async def test_workers_that_cannot_start_are_given_up(start: Start) -> None:
    supervisor = start("--processes", "2", SHOP_BROKEN="1")
    assert supervisor.end(110) == 7


@on_one_store
async def test_a_stubborn_job_is_left_to_itself(start: Start, app: Camora, tmp_path: Path) -> None:
    worker = start("--concurrency", "1").ready()
    job = await app.dispatch("stubborn", name="a")
    await asyncio.to_thread(until, started(tmp_path, "a"), "the job's start")
    await job.cancel()
    with pytest.raises(JobCancelled):
        await job.result(30)
    assert (tmp_path / "ignored-a").exists()
    worker.wait_for("ignores its cancellation")
    assert await (await app.dispatch("work", number=3)).result(60) == 3
    (tmp_path / "release-a").touch()


@on_one_store
async def test_an_embedded_worker_survives_its_database_being_locked(app: Camora, shared_url: str) -> None:
    import sqlite3

    @app.task(name="quick")
    async def quick(x: int) -> int:
        return x

    async with app.worker():
        assert await (await quick.dispatch(1)).result(60) == 1
        other = sqlite3.connect(shared_url.removeprefix("sqlite:///"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        late = asyncio.create_task(quick.dispatch(2))
        await asyncio.sleep(0.5)
        assert not late.done()
        other.execute("ROLLBACK")
        other.close()
        assert await (await late).result(60) == 2
