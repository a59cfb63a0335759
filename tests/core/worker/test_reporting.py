"""What a worker says of itself, and how it obeys."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Sequence
from typing import Any

import pytest
from camora import Camora
from camora.builtin.memory.broker import MemoryBroker
from camora.builtin.memory.store import MemoryStore
from camora.builtin.memory.workers import MemoryWorkers
from camora.connections import companion_of
from camora.errors import BrokerUnavailable
from camora.interfaces.observer import Event, Observer, WorkerStarted, WorkerStopping
from camora.interfaces.workers import Order, WorkerInfo
from camora.worker import reporting, worker
from camora.worker.worker import Ending


class Watched(MemoryWorkers):
    """Tells when somebody has reported; fails when it is told to."""

    def __init__(self, store: MemoryStore) -> None:
        super().__init__(store)
        self.error: Exception | None = None
        self.reports = 0
        self._changed = asyncio.Condition()

    async def report(self, info: WorkerInfo, *, ttl: float) -> Sequence[Order]:
        async with self._changed:
            self.reports += 1
            self._changed.notify_all()
        if self.error is not None:
            raise self.error
        return await super().report(info, ttl=ttl)

    async def reported(self, more: int = 1) -> None:
        """Wait for so many reports from now on; the last one of them has been answered."""
        seen = self.reports
        async with self._changed:
            await self._changed.wait_for(lambda: self.reports >= seen + more + 1)


class WatchedBroker(MemoryBroker):
    def __init__(self, *, kept: bool = True) -> None:
        super().__init__()
        self.directory = Watched(self.store)
        self._kept = kept

    def own_workers(self) -> Watched | None:  # type: ignore[override]
        return self.directory if self._kept else None


@pytest.fixture
def broker() -> WatchedBroker:
    return WatchedBroker()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "BEAT", 0.01)


async def test_a_worker_says_what_it_is_and_does(broker: WatchedBroker) -> None:
    release, runs = asyncio.Event(), asyncio.Event()
    app = Camora(broker, queues=["mail"])

    @app.task(name="hold", queue="mail")
    async def hold() -> None:
        runs.set()
        await release.wait()

    async with app:
        async with app.worker(concurrency=7) as made:
            job = await hold.dispatch()
            await runs.wait()
            await broker.directory.reported()
            [info] = await broker.directory.list()
            assert (info.name, info.host, info.pid) == (made.name, socket.gethostname(), os.getpid())
            assert (info.queues, info.concurrency, info.state, info.busy) == (("default", "mail"), 7, "running", 1)
            [running] = info.running
            assert (running.id, running.task, running.queue) == (job.id, "hold", "mail")
            assert info.started <= running.since <= info.seen
            assert 0 <= info.seen - info.polled < 60_000
            assert info.memory > 1_000_000
            assert info.cpu >= 0
            assert info.version
            release.set()
            await job.result(60)
            await broker.directory.reported()
            [info] = await broker.directory.list()
            assert (info.running, info.busy, info.settled) == ((), 0, 1)
        assert list(await broker.directory.list()) == []


async def test_at_most_twenty_running_jobs_are_told_the_longest_first(broker: WatchedBroker) -> None:
    release, runs = asyncio.Event(), asyncio.Semaphore(0)
    app = Camora(broker)

    @app.task
    async def hold() -> None:
        runs.release()
        await release.wait()

    async with app, app.worker():
        jobs = [await hold.dispatch() for _ in range(25)]
        for _ in jobs:
            await runs.acquire()
        await broker.directory.reported()
        [info] = await broker.directory.list()
        assert (len(info.running), info.busy) == (20, 25)
        assert [job.since for job in info.running] == sorted(job.since for job in info.running)
        release.set()
        for job in jobs:
            await job.result(60)


async def test_quiet_takes_nothing_and_resume_takes_again(broker: WatchedBroker) -> None:
    app = Camora(broker)

    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    async with app, app.worker() as made:
        assert await (await add.dispatch(1, 2)).result(60) == 3
        await broker.directory.reported()
        assert await broker.directory.order(made.name, "quiet")
        await broker.directory.reported()
        assert made.state == "quiet"
        job = await add.dispatch(3, 4)
        await broker.directory.reported(5)
        assert str(await job.status()) == "queued"
        [info] = await broker.directory.list()
        assert info.state == "quiet"
        assert await broker.directory.order(made.name, "resume")
        assert await job.result(60) == 7
        assert made.state == "running"


async def test_an_order_to_stop_ends_a_run(broker: WatchedBroker) -> None:
    app = Camora(broker)
    async with app:
        made = app.make_worker()
        ended = asyncio.create_task(made.run())
        await broker.directory.reported()
        await broker.directory.order(made.name, "stop")
        assert await ended is Ending.DISMISSED
        assert list(await broker.directory.list()) == []


async def test_an_order_to_stop_drains_an_embedded_worker_and_its_program_goes_on(broker: WatchedBroker) -> None:
    app = Camora(broker)

    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    async with app:
        async with app.worker() as made:
            await broker.directory.reported()
            assert await broker.directory.order(made.name, "stop")
            await broker.directory.reported(2)
            assert made.state == "stopping"
            job = await add.dispatch(1, 2)
            await broker.directory.reported(3)
            assert str(await job.status()) == "queued"
        async with app.worker():
            assert await job.result(60) == 3


@pytest.mark.parametrize("error", [BrokerUnavailable("gone"), ValueError("nobody foresaw this")], ids=repr)
async def test_a_failing_directory_harms_nothing_and_is_told_once(
    broker: WatchedBroker, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    caplog.set_level(logging.INFO)
    app = Camora(broker)

    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    broker.directory.error = error
    async with app, app.worker():
        await broker.directory.reported(5)
        assert await (await add.dispatch(1, 2)).result(60) == 3
        assert caplog.text.count("cannot report to the directory of workers") == 1
        broker.directory.error = None
        await broker.directory.reported(2)
        assert caplog.text.count("the directory of workers is back") == 1
        assert len(await broker.directory.list()) == 1
        broker.directory.error = error
        await broker.directory.reported(5)
        assert caplog.text.count("cannot report to the directory of workers") == 2


async def test_a_directory_that_never_answers_is_given_up_each_time(
    broker: WatchedBroker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "_PATIENCE", 0.01)

    class Silent(Watched):
        async def report(self, info: WorkerInfo, *, ttl: float) -> Sequence[Order]:
            await super().report(info, ttl=ttl)
            await asyncio.Event().wait()
            raise AssertionError

    broker.directory = Silent(broker.store)
    async with Camora(broker) as app, app.worker():
        await broker.directory.reported(3)
    assert caplog.text.count("cannot report to the directory of workers (TimeoutError") == 1


async def test_without_a_directory_a_worker_works_as_well() -> None:
    async with Camora(WatchedBroker(kept=False), results=False) as app:
        ran = asyncio.Event()

        @app.task
        async def go() -> None:
            ran.set()

        async with app.worker():
            await go.dispatch()
            await asyncio.wait_for(ran.wait(), 60)


async def test_a_job_that_cancels_all_tasks_does_not_silence_its_worker(broker: WatchedBroker) -> None:
    app = Camora(broker)

    @app.task
    async def rogue() -> None:
        for task in asyncio.all_tasks():
            if task.get_name() == "the worker's reports":
                task.cancel()

    async with app, app.worker():
        await (await rogue.dispatch()).result(60)
        await broker.directory.reported(3)


async def test_observers_see_it_start_and_stop() -> None:
    seen: list[Event] = []

    class Witness(Observer):
        async def observe(self, events: Sequence[Event]) -> None:
            seen.extend(event for event in events if isinstance(event, WorkerStarted | WorkerStopping))

    async with Camora("memory://", queues=["mail"], observers=[Witness()]) as app:
        async with app.worker() as made:
            pass
        await app.events.flush()
    kinds: list[Any] = [(type(event), event.worker) for event in seen]  # type: ignore[attr-defined]
    assert kinds == [(WorkerStarted, made.name), (WorkerStopping, made.name)]
    assert isinstance(seen[0], WorkerStarted)
    assert "mail" in seen[0].queues


async def test_the_directory_is_where_the_command_line_looks_for_it(broker_url: str) -> None:
    async with Camora(broker_url) as app:
        directory = companion_of(app.broker, app.results, "own_workers")
        if directory is None:
            pytest.skip("no directory of workers yet")
        await directory.open()
        async with app.worker() as made:
            while made.name not in [info.name for info in await directory.list()]:
                await asyncio.sleep(0.01)
        assert list(await directory.list()) == []
        await directory.close()
