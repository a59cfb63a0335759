"""Workers die, freeze, lose connections, the server dies: jobs of a session keep their order, and none is lost."""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from camora import AppSettings, Camora
from camora.testing.ledger import Entry, audit, read
from camora_servicebus import ServiceBusQueue
from processes import WorkerProcess

from tests.servicebus.faults.rig import LEASE, Rig, eventually

_SESSIONS, _JOBS = 6, 7


class Ordered(WorkerProcess):
    """A worker of the app whose jobs belong to sessions."""

    cwd = Path(__file__).parent / "apps"


class Line:
    """Workers of that app, the jobs of its sessions in order, and what the ledger says of them."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.folder = rig.folder
        self.entity = rig.queue("ordered", requires_session=True, max_delivery_count=1000)
        self.workers: list[WorkerProcess] = []
        self.jobs: dict[str, list[str]] = {}
        self.frozen: dict[str, int] = {}
        """Processes that were frozen, and when: what they do afterwards is not theirs to do."""

    def worker(self, most: int = 500) -> WorkerProcess:
        made = Ordered(
            self.folder, self.rig.url(), "--concurrency", "4", "--queues", "ordered", app="ordered:app",
            CAMORA_WORKER__LEASE=str(LEASE), CAMORA_WORKER__MAX_DELIVERIES=str(most),
        )  # fmt: skip
        self.workers.append(made)
        return made

    def app(self) -> Any:
        queues = [ServiceBusQueue("ordered", sessions=True)]
        url = self.rig.url(timeout=20)  # what dispatches is not what is tried here
        return Camora(url, results=False, queues=queues, settings=AppSettings(dispatch_timeout=30))

    async def dispatch(self) -> None:
        async with self.app() as app:
            for number in range(_JOBS):
                for session in range(_SESSIONS):
                    job = await app.options(queue="ordered", session=f"s{session}").dispatch("step", number=number)
                    self.jobs.setdefault(f"s{session}", []).append(job.id)

    def entries(self) -> list[Entry]:
        return read(self.folder / "ledger")

    def finished(self) -> int:
        return len({entry.job_id for entry in self.entries() if entry.kind == "finished"})

    async def progress(self, count: int) -> None:
        """Wait until so many more have finished, or all."""
        goal = min(self.finished() + count, _SESSIONS * _JOBS)
        await eventually(lambda: self.finished() >= goal, f"{goal} jobs' end")

    async def balance(self, faults: int) -> None:
        """All are done, each at least once, and in order."""
        logs = "\n".join(worker.text() for worker in self.workers)
        await eventually(lambda: self.rig.left() == 0, f"the end of all jobs; {logs}", 90)
        ids = [job_id for jobs in self.jobs.values() for job_id in jobs]
        found = audit(self.folder / "ledger", dispatched=ids, faults=faults)
        print(found.summary())
        found.check(duplicates=len(ids))
        assert self.rig.server.counts(self.entity)["dead"] == 0
        for session, jobs in self.jobs.items():
            self.check(session, jobs)

    def check(self, session: str, jobs: list[str]) -> None:
        """No job of a session has begun before the one before it was done, or was begun again afterwards."""
        mine = [entry for entry in self.entries() if entry.at < self.frozen.get(entry.worker.split("-")[0], 2**63)]
        starts = {job: [one.at for one in mine if one.job_id == job and one.kind == "started"] for job in jobs}
        ends = {job: [one.at for one in mine if one.job_id == job and one.kind == "finished"] for job in jobs}
        for number, (before, after) in enumerate(itertools.pairwise(jobs)):
            assert min(ends[before]) < min(starts[after]), f"{session}: {number + 1} began before {number} was done"
            assert max(starts[before]) < min(starts[after]), f"{session}: {number} began again after {number + 1}"


@pytest.fixture
def line(rig: Rig) -> Iterator[Line]:
    made = Line(rig)
    try:
        yield made
    finally:
        for worker in made.workers:
            worker.destroy()


async def test_killed_workers(line: Line) -> None:
    chance = random.Random(7)
    alive = [line.worker().ready() for _ in range(2)]
    await line.dispatch()
    for _ in range(4):
        await line.progress(chance.randint(1, 8))
        victim = alive.pop(0)
        victim.signal(signal.SIGKILL)
        victim.end()
        alive.append(line.worker())
    await line.balance(4)


async def test_a_worker_that_is_killed_while_a_retry_waits(line: Line) -> None:
    """The attempts that were made are not forgotten, and what follows does not pass."""
    first = line.worker().ready()
    await line.dispatch()
    # Attempt 1 of the second job of each session has failed, and attempt 2 is not due yet.
    await eventually(lambda: len(line.rig.server.events("session_state", entity=line.entity)) >= _SESSIONS, "a retry")
    first.signal(signal.SIGKILL)
    first.end()
    line.worker()
    await line.balance(1)
    attempts = [entry.attempt for entry in line.entries() if entry.job_id == line.jobs["s0"][1]]
    assert attempts == sorted(attempts)
    assert max(attempts) == 3


async def test_lost_connections_and_locks(line: Line) -> None:
    for _ in range(2):
        line.worker().ready()
    await line.dispatch()
    for turn in range(4):
        await line.progress(6)
        if turn % 2:
            line.rig.server.cut(line.entity)
        else:
            line.rig.server.expire_locks(line.entity)
    await line.balance(4)


async def test_a_server_that_dies_and_comes_back(line: Line) -> None:
    for _ in range(2):
        line.worker().ready()
    await line.dispatch()
    for _ in range(2):
        await line.progress(8)
        line.rig.server.kill()
        line.rig.server.start()
    await line.balance(2)


async def test_a_frozen_worker(line: Line) -> None:
    frozen, other = line.worker().ready(), line.worker().ready()
    await line.dispatch()
    await line.progress(6)
    frozen.signal(signal.SIGSTOP)
    line.frozen[str(frozen.process.pid)] = time.time_ns()
    await line.progress(_SESSIONS * _JOBS)  # its locks lapse, and the other one does all the rest
    frozen.signal(signal.SIGCONT)
    await line.balance(1)
    assert other.process.poll() is None
    await asyncio.to_thread(frozen.ready)


async def test_a_job_that_kills_its_workers_is_buried_and_the_session_goes_on(line: Line) -> None:
    """The service counts no delivery when a session ends with its connection: Camora does."""
    async with line.app() as app:
        options = {"queue": "ordered", "session": "s"}
        deadly = await app.options(**options).dispatch("die")
        line.jobs["s"] = [(await app.options(**options).dispatch("step", number=0)).id]
        for _ in range(2):
            assert line.worker(most=2).end() == -signal.SIGKILL
        line.worker(most=2)
        await eventually(lambda: line.finished() == 1, "the next one's end")
        [letter] = [one async for one in app.dead_letters()]
    assert (letter.id, letter.reason) == (deadly.id, "poison")
    assert len([entry for entry in line.entries() if entry.job_id == deadly.id]) == 2
