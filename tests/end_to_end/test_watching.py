"""Real worker processes that are watched: asked how they are, listed, ordered about, and told to end."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from camora import Camora
from camora.connections import companion_of
from camora.interfaces.workers import WorkerInfo
from processes import APPS, Start, WorkerProcess, pid_of, started, until

from tests import forked

# Health


class Seen:
    """What somebody sees who asks the health endpoint of a worker."""

    def __init__(self, worker: WorkerProcess) -> None:
        line = worker.wait_for("health at http://")
        self._address = line.partition("http://")[2].partition("/")[0]

    def get(self, path: str) -> tuple[bool, dict[str, Any]]:
        connection = http.client.HTTPConnection(self._address, timeout=20)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            found = json.loads(response.read())
            assert response.status in (200, 503)
            assert (response.status == 200) == {"/live": found["live"], "/ready": found["ready"]}[path]
            return response.status == 200, found

    def has(self, *, live: bool, ready: bool, reason: str = "") -> Callable[[], bool]:
        def look() -> bool:
            is_live, is_ready = self.get("/live")[0], self.get("/ready")
            reasons = " ".join(is_ready[1]["reasons"])
            return (is_live, is_ready[0]) == (live, ready) and reason in reasons

        return look

    async def until(self, *, live: bool, ready: bool, reason: str = "") -> None:
        found = self.has(live=live, ready=ready, reason=reason)
        await asyncio.to_thread(until, found, f"live={live}, ready={ready}, {reason!r}")


@pytest.mark.parametrize("processes", [1, 2])
async def test_it_is_ready_until_it_stops(start: Start, app: Camora, tmp_path: Path, processes: int) -> None:
    file = tmp_path / "ready"
    options = ("--health", "127.0.0.1:0", "--ready-file", str(file), "--processes", str(processes))
    worker = start(*options).ready(processes)
    seen = Seen(worker)
    await seen.until(live=True, ready=True)
    await asyncio.to_thread(until, file.exists, "the ready file")
    _, health = seen.get("/live")
    assert len(health["processes"]) == processes
    assert {process["state"] for process in health["processes"]} == {"running"}
    await app.dispatch("hold", name="a")
    await asyncio.to_thread(until, started(tmp_path, "a"), "the job's start")
    worker.signal(signal.SIGTERM)
    await seen.until(live=True, ready=False, reason="it is stopping")
    await asyncio.to_thread(until, lambda: not file.exists(), "the end of the ready file")
    (tmp_path / "release-a").touch()
    assert worker.end() == 0
    assert not file.exists()


@pytest.mark.parametrize("processes", [1, 2])
async def test_a_blocked_loop_is_neither_live_nor_ready_and_is_named(
    start: Start, app: Camora, tmp_path: Path, processes: int
) -> None:
    worker = start("--health", "127.0.0.1:0", "--processes", str(processes)).ready(processes)
    seen = Seen(worker)
    job = await app.dispatch("block", name="a")
    await asyncio.to_thread(until, started(tmp_path, "a"), "the job's start")
    await seen.until(live=False, ready=False, reason=f"the event loop is blocked by block {job.id}")
    (tmp_path / "release-a").touch()
    await seen.until(live=True, ready=True)


async def test_a_broker_that_is_away_makes_it_not_ready(start: Start, app: Camora, url: str) -> None:
    worker = start("--health", "127.0.0.1:0", CAMORA_WORKER__POLL_INTERVAL="0.1").ready()
    seen = Seen(worker)
    await seen.until(live=True, ready=True)
    # While nothing is due a worker only reads, and SQLite lets everybody read.
    job = await app.options(delay=1).dispatch("work", number=7)
    with away(url):
        await seen.until(live=True, ready=False, reason="the broker has not answered for")
    await seen.until(live=True, ready=True)
    assert await job.result(30) == 7


async def test_a_process_that_stands_still_is_seen(start: Start) -> None:
    worker = start("--health", "127.0.0.1:0", "--processes", "2").ready(2)
    seen = Seen(worker)
    await seen.until(live=True, ready=True)
    frozen = psutil.Process(worker.process.pid).children()[0]
    frozen.suspend()
    await seen.until(live=False, ready=False, reason=f"process {frozen.pid}: it does not answer")
    frozen.resume()
    await seen.until(live=True, ready=True)
    frozen.kill()
    worker.ready(3)
    await seen.until(live=True, ready=True)
    assert str(frozen.pid) not in json.dumps(seen.get("/ready")[1])


async def test_an_address_that_is_taken_is_a_mistake(start: Start) -> None:
    first = start("--health", "127.0.0.1:0").ready()
    address = first.wait_for("health at http://").partition("http://")[2].partition("/")[0]
    second = start("--health", address)
    assert second.end() == 2
    assert f"health address '{address}': cannot listen there" in second.text()
    assert "Traceback" not in second.text()


# The directory of workers

OFTEN = {"SHOP_BEAT": "0.5", "SHOP_TTL": "15"}
"""Workers report often, so that nobody waits for it long."""


class Answer:
    """What a command printed, and its exit code."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code, self.out, self.err = done.returncode, done.stdout, done.stderr

    def data(self) -> Any:
        assert self.code == 0, self.err
        return json.loads(self.out)


Command = Callable[..., Answer]


@pytest.fixture
def camora(tmp_path: Path, url: str) -> Command:
    """Runs a command of the command line, as a user does, beside the workers."""

    def run(*arguments: str) -> Answer:
        done = forked.run(
            [sys.executable, "-m", "camora", *arguments, "--app", "shop:app"],
            cwd=APPS,
            env={**os.environ, "SHOP_FOLDER": str(tmp_path), "SHOP_BROKER": url},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Answer(done)

    return run


def listed(camora: Command) -> dict[str, Any]:
    return {info["name"]: info for info in camora("workers", "list", "--json").data()["workers"]}


async def until_told(app: Camora, what: Callable[[dict[str, WorkerInfo]], object], text: str) -> dict[str, WorkerInfo]:
    """What workers say of themselves, as soon as it is so."""
    directory = companion_of(app.broker, app.results, "own_workers")
    await directory.open()
    try:
        async with asyncio.timeout(40):
            while not what(found := {info.name: info for info in await directory.list()}):
                await asyncio.sleep(0.02)
            return found
    except TimeoutError:
        raise AssertionError(f"{text} did not happen; there are {found}") from None
    finally:
        await directory.close()


async def until_listed(app: Camora, count: int) -> dict[str, WorkerInfo]:
    return await until_told(app, lambda found: len(found) == count, f"{count} workers in the list")


async def test_workers_are_listed_with_what_they_do(start: Start, app: Camora, tmp_path: Path, camora: Command) -> None:
    assert camora("workers").out.strip() == "no worker has reported in the last 15 seconds"
    supervisor = start("--processes", "2", "--concurrency", "7", "--queues", "default,mail", **OFTEN).ready(2)
    job = await app.dispatch("hold", name="a")
    await asyncio.to_thread(until, started(tmp_path, "a"), "the job's start")
    pids = {child.pid for child in psutil.Process(supervisor.process.pid).children()}
    found = await until_told(
        app, lambda found: len(found) == 2 and any(info.running for info in found.values()), "the job in the list"
    )
    for info in listed(camora).values():
        assert info["host"] == socket.gethostname()
        assert (info["app"], info["queues"], info["concurrency"]) == ("shop:app", ["default", "mail"], 7)
        assert info["state"] == "running"
        assert info["memory"] > 10_000_000
        assert info["started"] <= info["seen"]
        runs = [(run["id"], run["task"], run["queue"]) for run in info["running"]]
        assert runs == ([(job.id, "hold", "default")] if info["pid"] == pid_of(tmp_path, "a") else [])
        pids.remove(info["pid"])
    assert not pids
    text = camora("workers").out
    assert all(name in text for name in found)
    assert job.id in text
    (tmp_path / "release-a").touch()
    await job.result(30)
    supervisor.signal(signal.SIGTERM)
    assert supervisor.end() == 0
    assert listed(camora) == {}


async def test_a_quiet_worker_takes_nothing_until_it_is_told(
    start: Start, app: Camora, tmp_path: Path, camora: Command
) -> None:
    worker = start("--health", "127.0.0.1:0", **OFTEN).ready()
    seen = Seen(worker)
    running = await app.dispatch("hold", name="a")
    await asyncio.to_thread(until, started(tmp_path, "a"), "the job's start")
    [name] = await until_listed(app, 1)
    assert camora("workers", "quiet", name[:-3], "--json").data() == {"order": "quiet", "workers": [name]}
    worker.wait_for(f"{name} is quiet")
    await seen.until(live=True, ready=False, reason="it was told to take nothing more")
    await until_told(app, lambda found: found[name].state == "quiet", "the state quiet in the list")
    waiting = await app.dispatch("work", number=5)
    (tmp_path / "release-a").touch()
    assert await running.result(30) == str(worker.process.pid)
    assert str(await waiting.status()) == "queued"
    resumed = camora("workers", "resume", "--all")
    assert (resumed.code, resumed.out.partition(":")[0]) == (0, name)
    assert await waiting.result(30) == 5
    await seen.until(live=True, ready=True)


async def test_a_worker_that_is_told_to_stop_finishes_and_is_not_replaced(
    start: Start, app: Camora, tmp_path: Path, camora: Command
) -> None:
    supervisor = start("--processes", "2", **OFTEN).ready(2)
    running = await app.dispatch("hold", name="a")
    await asyncio.to_thread(until, started(tmp_path, "a"), "the job's start")
    pid = pid_of(tmp_path, "a")
    found = await until_listed(app, 2)
    [name] = [name for name, info in found.items() if info.pid == pid]
    assert camora("workers", "stop", name).code == 0
    supervisor.wait_for(f"{name} was ordered to stop")
    (tmp_path / "release-a").touch()
    assert await running.result(30) == str(pid)
    supervisor.wait_for("was ordered to stop, and is not replaced")
    assert list(await until_listed(app, 1)) == [other for other in found if other != name]
    assert await (await app.dispatch("work", number=1)).result(30) == 1
    assert camora("workers", "stop", "--all").code == 0
    assert supervisor.end() == 0
    assert listed(camora) == {}


async def test_a_dead_worker_is_forgotten(start: Start, app: Camora) -> None:
    dead, alive = (start(SHOP_BEAT="1", SHOP_TTL="4").ready() for _ in range(2))
    await until_listed(app, 2)
    dead.process.kill()
    [last] = (await until_listed(app, 1)).values()
    assert last.pid == alive.process.pid


async def test_workers_that_there_are_not_are_named(start: Start, app: Camora, camora: Command) -> None:
    nobody = camora("workers", "stop", "nobody")
    assert nobody.code == 3
    assert "there is no worker 'nobody'; camora workers lists them" in nobody.err
    start("--processes", "2").ready(2)
    found = await until_listed(app, 2)
    unclear = camora("workers", "quiet", socket.gethostname())
    assert unclear.code == 3
    assert all(name in unclear.err for name in found)
    assert {info["state"] for info in listed(camora).values()} == {"running"}
    neither = camora("workers", "stop")
    assert neither.code == 2
    assert "name the workers (camora workers lists them), or say --all" in neither.err


# Signals

TWO = ("--processes", "2")
"""A process between the signal and the worker; what its jobs hold on to is the worker's matter alone."""


@pytest.mark.parametrize(
    ("task", "arguments"),
    [("hold", ()), ("hold_thread", ()), ("hold_thread", TWO)],
    ids=["coroutine", "thread", "thread-two"],
)
async def test_a_second_signal_ends_it_while_the_broker_is_away(
    start: Start, app: Camora, tmp_path: Path, url: str, task: str, arguments: tuple[str, ...]
) -> None:
    worker = start(*arguments).ready(2 if arguments else 1)
    job = await app.dispatch(task, name="a")
    await asyncio.to_thread(until, started(tmp_path, "a"), "the job's start")
    with away(url):
        worker.signal(signal.SIGINT)
        worker.wait_for("stopping")
        worker.signal(signal.SIGINT)
        # While the broker is still away, and long before the timeouts of SQLite and of the shutdown.
        assert worker.end(timeout=12) == 0
    (tmp_path / "release-a").touch()
    other = start().ready()
    assert await job.result(60) == str(other.process.pid)


async def test_a_second_signal_ends_a_worker_whose_loop_is_blocked(start: Start, app: Camora, tmp_path: Path) -> None:
    worker = start().ready()
    job = await app.dispatch("block", name="a")
    await asyncio.to_thread(until, started(tmp_path, "a"), "the job's start")
    await asyncio.to_thread(worker.insist, signal.SIGINT)
    assert worker.end() == 1
    (tmp_path / "release-a").touch()
    other = start().ready()
    assert await job.result(60) == str(other.process.pid)


@pytest.mark.parametrize(
    ("task", "arguments"),
    [("forget_thread", ()), ("forget_own_thread", ()), ("forget_own_thread", TWO)],
    ids=["loops", "own", "own-two"],
)
async def test_one_signal_ends_it_though_a_thread_goes_on(
    start: Start, app: Camora, tmp_path: Path, task: str, arguments: tuple[str, ...]
) -> None:
    worker = start(*arguments).ready(2 if arguments else 1)
    await (await app.dispatch(task, name="a")).result(30)
    worker.signal(signal.SIGTERM)
    assert worker.end() == 0
    assert "Traceback" not in worker.text()
    assert not (tmp_path / "release-a").exists()


async def test_a_second_signal_ends_a_process_that_stands_still(start: Start, app: Camora, tmp_path: Path) -> None:
    supervisor = start("--processes", "2").ready(2)
    job = await app.dispatch("hold", name="a")
    await asyncio.to_thread(until, started(tmp_path, "a"), "the job's start")
    psutil.Process(pid_of(tmp_path, "a")).suspend()
    supervisor.signal(signal.SIGINT)
    supervisor.wait_for("stopped; it settled")
    supervisor.signal(signal.SIGINT)
    assert supervisor.end() == 0
    assert not psutil.pid_exists(pid_of(tmp_path, "a"))
    (tmp_path / "release-a").touch()
    other = start().ready()
    assert await job.result(60) == str(other.process.pid)


@contextlib.contextmanager
def away(url: str) -> Iterator[None]:
    """SQLite answers nobody."""
    other = sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None, timeout=20)
    other.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        other.close()
