"""Two schedulers while their processes, their network and their server fail: each tick has one job."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from camora.scheduler.scheduler import LEASE
from processes import WorkerProcess

from tests.sql.faults import mariadb, rig
from tests.sql.faults.rig import eventually

INTERVAL = timedelta(seconds=0.5)
"""Of the bell."""
FAULTS = ("kill", "freeze", "cut", "terminate", "restart")
"""Of one scheduler's process, the network of both, all connections, the server."""


class SchedulerProcess(WorkerProcess):
    """A scheduler alone, whose schedule makes up for all ticks that were missed."""

    command = ("scheduler", "bell:app")


class Bell:
    """What is heard of the jobs: a line for each time that one ran, with its tick and its id."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "rings"

    def lines(self) -> list[tuple[datetime, str]]:
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        return [(datetime.fromisoformat(tick), job) for tick, job in (line.split() for line in lines)]

    async def hear(self, count: int) -> None:
        """Wait for so many more ticks."""
        before = len({tick for tick, _ in self.lines()})
        await eventually(lambda: len({tick for tick, _ in self.lines()}) >= before + count, f"{count} rings")

    def check(self, *, again: int) -> int:
        """No tick between the first and the last is missing or has two jobs, and few ran again; how many there were."""
        lines = self.lines()
        jobs: dict[datetime, set[str]] = defaultdict(set)
        for tick, job in lines:
            jobs[tick].add(job)
        first = min(jobs)
        assert sorted(jobs) == [first + number * INTERVAL for number in range(len(jobs))]
        assert [len(ids) for ids in jobs.values()] == [1] * len(jobs)
        assert len(lines) - len(jobs) <= again
        return len(jobs)


@contextlib.contextmanager
def schedulers(folder: Path, url: str) -> Iterator[Callable[[], WorkerProcess]]:
    """Starts them, and ends all."""
    made: list[WorkerProcess] = []

    def start() -> WorkerProcess:
        made.append(SchedulerProcess(folder, url))
        return made[-1]

    try:
        yield start
    finally:
        for one in made:
            one.destroy()


on_each = pytest.mark.parametrize("rigged", [rig.rigged, mariadb.rigged], ids=["postgresql", "mariadb"])


@on_each
async def test_schedulers_that_start_while_the_server_is_away_wait_for_it(tmp_path: Path, rigged: Any) -> None:
    bell = Bell(tmp_path)
    with rigged(tmp_path) as there, schedulers(tmp_path, there.url(through=True)) as start:
        await asyncio.to_thread(there.server.stop)
        early, dismissed = start(), start()
        for one in (early, dismissed):
            await asyncio.to_thread(one.wait_for, "away, trying again")
        dismissed.signal(signal.SIGTERM)
        assert await asyncio.to_thread(dismissed.end) == 0, dismissed.text()
        await asyncio.to_thread(there.server.start)
        await asyncio.to_thread(early.wait_for, "fires the schedules")
        there.worker(app="bell:app").ready()
        await bell.hear(2)
        early.signal(signal.SIGTERM)
        assert await asyncio.to_thread(early.end) == 0, early.text()
        assert "Traceback" not in early.text() + dismissed.text()
        bell.check(again=0)


@on_each
async def test_whatever_fails_each_tick_has_one_job(tmp_path: Path, rigged: Any) -> None:
    chance = random.Random(7)
    faults = chance.sample(FAULTS, len(FAULTS))
    bell = Bell(tmp_path)
    with rigged(tmp_path) as there, schedulers(tmp_path, there.url(through=True)) as start:
        there.worker(app="bell:app").ready()
        pair = [start(), start()]
        for one in pair:
            await asyncio.to_thread(one.wait_for, "fires the schedules")
        for fault in faults:
            await bell.hear(2)
            # At any moment between two ticks: before, while or after it fires.
            await asyncio.sleep(chance.random() * INTERVAL.total_seconds())
            victim = pair[chance.randrange(2)]
            match fault:
                case "kill":
                    victim.signal(signal.SIGKILL)
                    assert await asyncio.to_thread(victim.end) == -signal.SIGKILL
                    pair[pair.index(victim)] = start()
                case "freeze":
                    victim.signal(signal.SIGSTOP)
                    await asyncio.sleep(LEASE + 1)  # that is the fault
                    victim.signal(signal.SIGCONT)
                case "cut":
                    there.proxy.cut()
                case "terminate":
                    assert there.terminate()
                case _:
                    there.server.kill()
                    await asyncio.to_thread(there.server.start)
        await bell.hear(4)
        for one in pair:
            one.signal(signal.SIGTERM)
            assert await asyncio.to_thread(one.end) == 0, one.text()
            assert "Traceback" not in one.text()
        there.alive()
        # Its worker may have lost the answer to a settlement, or the server what it had not promised to keep.
        print(f"{', '.join(faults)}: {bell.check(again=2 * len(faults))} ticks")
