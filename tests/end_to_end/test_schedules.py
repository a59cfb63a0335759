"""Schedulers in processes of their own, on one store: killed, deployed anew, told to stop."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from processes import APPS, Start, WorkerProcess, shared, until

from tests import forked

INTERVAL = timedelta(seconds=0.5)
"""Of the bell."""


class Command(WorkerProcess):
    """`camora …` in a process of its own."""

    def __init__(self, folder: Path, broker: str, *words: str, cwd: Path = APPS, **environment: str) -> None:
        self.command, self.cwd = words, cwd
        super().__init__(folder, broker, **environment)


@contextmanager
def commands(folder: Path, broker: str) -> Iterator[Start]:
    made: list[WorkerProcess] = []

    def run(*words: str, **options: Any) -> WorkerProcess:
        made.append(Command(folder, broker, *words, **options))
        return made[-1]

    try:
        yield run
    finally:
        for process in made:
            process.destroy()


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Starts commands on a store that they share."""
    with commands(tmp_path, shared(request.param, tmp_path)) as run:
        yield run


@pytest.fixture
def start_in(tmp_path: Path) -> Iterator[Start]:
    """Starts commands in the folder of a `camora.toml`, which names the store."""
    with commands(tmp_path, "") as run:
        yield lambda *words, **options: run(*words, cwd=tmp_path, **options)


def rings(folder: Path) -> list[tuple[datetime, str]]:
    """Each time that a job of the bell ran: its tick and its id."""
    path = folder / "rings"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(datetime.fromisoformat(tick), job) for tick, job in (line.split() for line in lines)]


def hear(folder: Path, count: int) -> None:
    """Wait until the bell has rung so often from now on."""
    before = len(rings(folder))
    until(lambda: len(rings(folder)) >= before + count, f"{count} rings")


def each_tick_rang_once(folder: Path) -> int:
    """Check all ticks from the first to the last one, and that each had one job which ran once; returns how many."""
    found = sorted(rings(folder))
    ticks = [tick for tick, _ in found]
    first = ticks[0]
    assert ticks == [first + number * INTERVAL for number in range(len(ticks))]
    assert len({job for _, job in found}) == len(found)
    return len(found)


def stop(processes: Sequence[WorkerProcess], number: int = signal.SIGTERM) -> None:
    for process in processes:
        process.signal(number)
    for process in processes:
        assert process.end() == 0, process.text()
        assert "Traceback" not in process.text()


def scheduler(start: Start, *words: str, **options: Any) -> WorkerProcess:
    process = start("scheduler", *words, **options)
    process.wait_for("fires the schedules")
    return process


def test_of_three_schedulers_one_fires_each_tick(start: Start, tmp_path: Path) -> None:
    worker = start("worker", "bell:app").ready()
    schedulers = [scheduler(start, "bell:app") for _ in range(3)]
    hear(tmp_path, 5)
    stop(schedulers[:1], signal.SIGINT)
    hear(tmp_path, 3)
    stop([*schedulers[1:], worker])
    assert each_tick_rang_once(tmp_path) >= 8
    said = [line for process in schedulers for line in process.lines if "schedule bell of" in line]
    assert len(said) == len({line.split("job ")[1] for line in said})
    assert {job for _, job in rings(tmp_path)} <= {line.split("job ")[1] for line in said}


def test_schedulers_that_die_while_they_fire_are_replaced(start: Start, tmp_path: Path) -> None:
    """One dies at each step of a firing; who takes its place dies at the next one."""
    worker = start("worker", "bell:app").ready()
    last = scheduler(start, "bell:app", SHOP_CRASH="claimed")
    hear(tmp_path, 2)
    for number, step in enumerate(("sent", "advanced", ""), 1):
        (tmp_path / "crash-now").touch()
        until(lambda number=number: len(list(tmp_path.glob("crashed-*"))) == number, "the crash")
        (tmp_path / "crash-now").unlink()
        victim, last = last, scheduler(start, "bell:app", SHOP_CRASH=step)
        assert victim.end() == -signal.SIGKILL
        hear(tmp_path, 5)  # what was lent to the dead one comes back, and what came meanwhile is made up for
    stop([last, worker])
    assert each_tick_rang_once(tmp_path) >= 17


def test_nothing_is_lost_or_doubled_by_killing_any_of_them_at_any_time(start: Start, tmp_path: Path) -> None:
    chance = random.Random(7)
    worker = start("worker", "bell:app").ready()
    schedulers = [scheduler(start, "bell:app") for _ in range(2)]
    for _ in range(3):
        hear(tmp_path, chance.randint(1, 3))
        victim = schedulers.pop(chance.randrange(len(schedulers)))
        victim.signal(signal.SIGKILL)
        assert victim.end() == -signal.SIGKILL
        schedulers.append(scheduler(start, "bell:app"))
    hear(tmp_path, 2)
    stop([*schedulers, worker])
    assert each_tick_rang_once(tmp_path) >= 5


def test_a_scheduler_beside_jobs_and_one_on_its_own_fire_each_tick_once(start: Start, tmp_path: Path) -> None:
    worker = start("worker", "bell:app", "--scheduler").ready()
    worker.wait_for("fires the schedules")
    other = scheduler(start, "bell:app")
    hear(tmp_path, 4)
    stop([other])
    hear(tmp_path, 2)
    stop([worker])
    each_tick_rang_once(tmp_path)


@pytest.mark.parametrize("start", ["sqlite"], indirect=True)
def test_a_scheduler_that_hangs_is_ended_by_a_second_signal(start: Start, tmp_path: Path) -> None:
    process = start("scheduler", "bell:app", SHOP_CRASH="block")
    until((tmp_path / "blocked").exists, "the block")
    process.signal(signal.SIGTERM)
    process.insist(signal.SIGINT)
    assert process.end() == 1


# Deploys

TASKS = """
from camora import Camora, every
app = Camora.from_toml()

@app.task(name="add", queue="sums")
async def add(x: int, y: int) -> int:
    return x + y

"""
SETTINGS = """
app = "tasks:app"
[broker]
url = "sqlite:///camora.db"
"""


def write(folder: Path, *, code: Sequence[str], toml: Sequence[str]) -> None:
    (folder / "tasks.py").write_text(
        TASKS + "".join(f"app.schedule({key!r}, add.s(1, 2), every(days=1))\n" for key in code)
    )
    tables = "".join(f'[[schedules]]\nkey = "{key}"\ntask = "add"\nargs = [1, 2]\nevery = "1d"\n' for key in toml)
    (folder / "camora.toml").write_text(SETTINGS + tables)


def camora(folder: Path, *words: str) -> str:
    done = forked.run(
        [sys.executable, "-m", "camora", *words],
        cwd=folder,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},  # the file changes within a second
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def stored(folder: Path) -> dict[str, str]:
    """The origins of all schedules, by key; a paused one's is marked."""
    rows = json.loads(camora(folder, "schedules", "--json"))["schedules"]
    return {row["key"]: row["origin"] + ("!" if row["paused"] else "") for row in rows}


def test_a_deploy_never_removes_what_was_added_at_run_time(start_in: Start, tmp_path: Path) -> None:
    def deploy() -> WorkerProcess:
        return scheduler(start_in, PYTHONDONTWRITEBYTECODE="1")

    write(tmp_path, code=["a", "b", "c"], toml=["x", "y"])
    old = deploy()
    camora(tmp_path, "schedules", "add", "mine", "add", "1", "2", "--every", "1d")
    camora(tmp_path, "schedules", "pause", "b", "y", "mine")
    assert stored(tmp_path) == {
        "a": "code", "b": "code!", "c": "code", "x": "config", "y": "config!", "mine": "runtime!",
    }  # fmt: skip
    # One has moved from code to settings, one each has gone, and one is new; the old scheduler still runs.
    write(tmp_path, code=["a", "new"], toml=["b", "y"])
    new = deploy()
    after = {"a": "code", "b": "config!", "new": "code", "y": "config!", "mine": "runtime!"}
    assert stored(tmp_path) == after
    stop([old, new])
    write(tmp_path, code=[], toml=[])
    stop([deploy()])
    assert stored(tmp_path) == {"mine": "runtime!"}


def test_what_is_added_while_a_scheduler_sleeps_fires_in_time(start_in: Start, tmp_path: Path) -> None:
    write(tmp_path, code=["a"], toml=[])
    process = scheduler(start_in)
    worker = start_in("worker").ready()
    camora(tmp_path, "schedules", "add", "mine", "add", "1", "2", "--every", "1s")
    process.wait_for("schedule mine of", 3)
    camora(tmp_path, "schedules", "remove", "mine", "--yes")
    job = camora(tmp_path, "schedules", "run", "a").strip()
    until(lambda: json.loads(camora(tmp_path, "job", "show", job, "--json"))["status"] == "succeeded", "the job")
    stop([process, worker])


def test_a_scheduler_serves_its_group_and_hints_at_a_wrong_one(start_in: Start, tmp_path: Path) -> None:
    write(tmp_path, code=["a"], toml=[])
    process = scheduler(start_in, "--group", "jp,defualt")
    assert "group jp, defualt" in process.wait_for("fires the schedules")
    assert "did you mean 'default'?" in process.text()
    camora(tmp_path, "schedules", "add", "here", "add", "1", "2", "--every", "1s")
    camora(tmp_path, "schedules", "add", "jp", "add", "1", "2", "--every", "1s", "--group", "jp")
    process.wait_for("schedule jp of", 2)
    stop([process])
    assert "schedule here" not in process.text()


def test_a_scheduler_is_listed_and_takes_orders(start_in: Start, tmp_path: Path) -> None:
    write(tmp_path, code=["a"], toml=[])
    process = scheduler(start_in)

    def listed() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(camora(tmp_path, "workers", "--json"))["workers"]
        return found

    until(listed, "its report")
    [info] = listed()
    assert (info["kind"], info["pid"], info["state"]) == ("scheduler", process.process.pid, "running")
    camora(tmp_path, "workers", "stop", info["name"])
    assert process.end() == 0
    assert listed() == []
