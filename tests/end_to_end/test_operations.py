"""Operating real worker processes: replaced, reloaded, watched, ordered about. Nothing is lost by any of it."""

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
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from camora import Camora
from camora.connections import companion_of
from camora.interfaces.workers import WorkerInfo
from camora.testing.ledger import audit
from processes import APPS, WorkerProcess, pid_of, started, until, workers

from tests import forked

Start = Callable[..., WorkerProcess]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/camora.db"


@pytest.fixture
def start(tmp_path: Path, url: str) -> Iterator[Start]:
    with workers() as make:
        yield lambda *arguments, **environment: make(tmp_path, url, *arguments, **environment)


@pytest.fixture
async def app(url: str) -> AsyncIterator[Camora]:
    async with Camora(url) as made:
        yield made


async def balance(app: Camora, folder: Path, jobs: list[Any]) -> None:
    """Wait for every job, then let the ledger check them all: each ran once."""
    for job in jobs:
        await job.result(60)
    dead = [letter.id async for letter in app.dead_letters()]
    audit(folder / "ledger", dispatched=[job.id for job in jobs], dead=dead).check(duplicates=0)


# Recycling


async def test_a_process_that_did_its_jobs_is_replaced_and_nothing_is_lost(
    start: Start, app: Camora, tmp_path: Path
) -> None:
    # A lease that lapsed would hide what was lost.
    supervisor = start("--processes", "2", "--concurrency", "5", "--max-jobs", "20", CAMORA_WORKER__LEASE="60")
    supervisor.ready(2)
    jobs = [await app.dispatch("work", number=number) for number in range(120)]
    await balance(app, tmp_path, jobs)
    supervisor.wait_for("20 jobs begun, max_jobs is 20", 4)
    supervisor.signal(signal.SIGTERM)
    assert supervisor.end() == 0
    assert "was killed" not in supervisor.text()
    assert "ended with code" not in supervisor.text()


async def test_the_next_process_works_while_the_last_one_finishes_a_long_job(
    start: Start, app: Camora, tmp_path: Path
) -> None:
    # One process is enough to be replaced in time, and nobody is in a hurry.
    patience = {"CAMORA_WORKER__SHUTDOWN_TIMEOUT": "0.1", "CAMORA_WORKER__LEASE": "60"}
    supervisor = start("--concurrency", "3", "--max-jobs", "2", **patience).ready()
    long = await app.dispatch("hold", name="long")
    await asyncio.to_thread(until, started(tmp_path, "long"), "the job's start")
    first = pid_of(tmp_path, "long")
    await (await app.dispatch("work", number=1)).result(30)
    supervisor.wait_for("2 jobs begun, max_jobs is 2")
    # The second process gets a long job as well: a third one waits until the first has ended.
    other = await app.dispatch("hold", name="other")
    await asyncio.to_thread(until, started(tmp_path, "other"), "the other job's start")
    assert pid_of(tmp_path, "other") != first
    await (await app.dispatch("work", number=2)).result(30)
    supervisor.wait_for("2 jobs begun, max_jobs is 2", 2)
    late = await app.dispatch("work", number=3)
    assert len(psutil.Process(supervisor.process.pid).children()) == 2
    (tmp_path / "release-long").touch()
    assert await long.result(30) == str(first)
    assert await late.result(30) == 3
    (tmp_path / "release-other").touch()
    await other.result(30)


async def test_one_long_job_does_not_keep_others_waiting_however_often_the_process_is_replaced(
    start: Start, app: Camora, tmp_path: Path
) -> None:
    start("--concurrency", "3", "--max-jobs", "2", CAMORA_WORKER__LEASE="60").ready()
    long = await app.dispatch("hold", name="long")
    await asyncio.to_thread(until, started(tmp_path, "long"), "the job's start")
    for number in range(8):
        await (await app.dispatch("work", number=number)).result(30)
    (tmp_path / "release-long").touch()
    await long.result(30)


async def test_signals_reach_a_process_that_is_being_replaced(start: Start, app: Camora, tmp_path: Path) -> None:
    supervisor = start("--concurrency", "3", "--max-jobs", "1").ready()
    long = await app.dispatch("hold", name="long")
    await asyncio.to_thread(until, started(tmp_path, "long"), "the job's start")
    supervisor.ready(2)
    supervisor.signal(signal.SIGTERM)
    supervisor.wait_for("stopping: 1 jobs are running")
    (tmp_path / "release-long").touch()
    assert await long.result(30) == str(pid_of(tmp_path, "long"))
    assert supervisor.end() == 0


async def test_a_process_that_holds_too_much_memory_is_replaced(start: Start, app: Camora, tmp_path: Path) -> None:
    supervisor = start("--max-memory", "400MB", CAMORA_WORKER__LEASE="60").ready()
    greedy = int(await (await app.dispatch("hoard", megabytes=500)).result(30))
    supervisor.wait_for("max_memory is 400000000")
    jobs = [await app.dispatch("work", number=number) for number in range(20)]
    await balance(app, tmp_path, jobs)
    supervisor.ready(2)
    await asyncio.to_thread(until, lambda: not psutil.pid_exists(greedy), "the old process's end")


async def test_too_little_memory_to_begin_with_is_told_once(start: Start) -> None:
    supervisor = start("--processes", "2", "--max-memory", "1MB")
    assert supervisor.end() == 2
    assert "before its first job, and would begin anew for ever; allow it more" in supervisor.text()
    assert "Traceback" not in supervisor.text()


_PARENT = """
from camora import WorkerSettings
import shop

workers = shop.app.start_processes(processes=1, daemon=False, settings=WorkerSettings(max_jobs=3))
workers.join()
"""


async def test_a_process_that_outlives_its_supervisor_begins_anew_by_itself(
    app: Camora, tmp_path: Path, url: str
) -> None:
    environment = {**os.environ, "SHOP_FOLDER": str(tmp_path), "SHOP_BROKER": url}
    parent = forked.Popen([sys.executable, "-c", _PARENT], cwd=APPS, env=environment)
    child = None
    try:
        first = await app.dispatch("work", number=0)
        await first.result(30)
        [child] = psutil.Process(parent.pid).children()
        parent.kill()
        parent.wait()
        jobs = [await app.dispatch("work", number=number) for number in range(20)]
        await balance(app, tmp_path, [first, *jobs])
        assert child.is_running()
    finally:
        parent.kill()
        parent.wait()
        if child is not None:
            child.kill()


# Reloading


def write_app(folder: Path, answer: str) -> None:
    (folder / "tasks.py").write_text(
        f"""
import asyncio, os
from pathlib import Path
from camora import Camora, Context, every

app = Camora(os.environ["SHOP_BROKER"])

@app.task(name="answer")
async def answer() -> str:
    return "{answer}"

@app.task(name="hold")
async def hold(name: str) -> str:
    Path(f"started-{{name}}-{{os.getpid()}}").touch()
    while not Path(f"release-{{name}}").exists():
        await asyncio.sleep(0.01)
    return "{answer}"

@app.task(name="pulse")
async def pulse(ctx: Context) -> None:
    Path(f"pulse-{{ctx.id}}").touch(exist_ok=False)

app.schedule("pulse", pulse.s(), every(seconds=1))
"""
    )


class InFolder(WorkerProcess):
    """A command of the command line, in a folder of the user's own."""

    def __init__(self, folder: Path, command: Sequence[str], **environment: str) -> None:
        self.command, self.cwd = tuple(command), folder
        environment["PYTHONDONTWRITEBYTECODE"] = "1"  # the files change within a second
        super().__init__(folder, f"sqlite:///{folder}/camora.db", **environment)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., WorkerProcess]]:
    made: list[WorkerProcess] = []

    def start(*command: str, **environment: str) -> WorkerProcess:
        made.append(InFolder(tmp_path, command, **environment))
        return made[-1]

    yield start
    for process in made:
        process.destroy()


async def test_a_change_is_taken_up_and_what_runs_is_finished(run: Start, app: Camora, tmp_path: Path) -> None:
    write_app(tmp_path, "old")
    worker = run("worker", "tasks:app", "--reload", "--processes", "2").ready(2)
    assert await (await app.dispatch("answer")).result(30) == "old"
    running = await app.dispatch("hold", name="a")
    await asyncio.to_thread(until, started(tmp_path, "a"), "the job's start")
    write_app(tmp_path, "new")
    worker.wait_for("tasks.py changed, starting over")
    (tmp_path / "release-a").touch()
    assert await running.result(30) == "old"
    worker.ready(4)
    assert await (await app.dispatch("answer")).result(30) == "new"
    assert len(list(tmp_path.glob("started-a-*"))) == 1
    worker.signal(signal.SIGINT)
    assert worker.end() == 0


async def test_what_is_not_finished_in_time_runs_again_under_the_new_code(
    run: Start, app: Camora, tmp_path: Path
) -> None:
    write_app(tmp_path, "old")
    worker = run("worker", "tasks:app", "--reload", CAMORA_WORKER__SHUTDOWN_TIMEOUT="0.1").ready()
    running = await app.dispatch("hold", name="a")
    await asyncio.to_thread(until, started(tmp_path, "a"), "the job's start")
    write_app(tmp_path, "new")
    worker.ready(2)
    await asyncio.to_thread(until, started(tmp_path, "a", 2), "its second start")
    (tmp_path / "release-a").touch()
    assert await running.result(30) == "new"


async def test_a_file_that_does_not_import_waits_for_its_author(run: Start, app: Camora, tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("def broken(:\n")
    worker = run("worker", "tasks:app", "--reload")
    worker.wait_for("it starts again when a file changes")
    assert "SyntaxError" in worker.text()
    assert 'tasks.py", line 1' in worker.text()
    assert "camora/worker/child.py" not in worker.text()
    assert worker.process.poll() is None
    write_app(tmp_path, "mended")
    worker.ready()
    assert await (await app.dispatch("answer")).result(30) == "mended"
    (tmp_path / "tasks.py").write_text("raise ValueError('not today')\n")
    worker.wait_for("it starts again when a file changes", 2)
    assert "ValueError: not today" in worker.text()
    worker.signal(signal.SIGTERM)
    assert worker.end() == 0


async def test_the_settings_are_files_of_the_app_too(run: Start, tmp_path: Path) -> None:
    write_app(tmp_path, "x")
    text = (tmp_path / "tasks.py").read_text().replace('Camora(os.environ["SHOP_BROKER"])', "Camora.from_toml()")
    (tmp_path / "tasks.py").write_text(text)
    settings = f'app = "tasks:app"\n[broker]\nurl = "sqlite:///{tmp_path}/camora.db"\n'
    (tmp_path / "camora.toml").write_text(settings + "[worker]\nprocesses = 2\n")
    worker = run("worker", "--reload").ready(2)
    (tmp_path / "camora.toml").write_text(settings + "[wroker]\nprocesses = 2\n")
    worker.wait_for("did you mean 'worker'?")
    worker.wait_for("it starts again when a file changes", 2)
    (tmp_path / "camora.toml").write_text(settings)
    worker.ready(4)
    assert "Traceback" not in worker.text()


# Schedules, and a terminal of one's own


async def test_dev_runs_schedules_and_starts_over(run: Start, app: Camora, tmp_path: Path) -> None:
    write_app(tmp_path, "old")
    terminal = run("dev", "tasks:app").ready()
    terminal.wait_for("fires the schedules")
    terminal.wait_for("watching")
    await asyncio.to_thread(until, lambda: len(pulses(tmp_path)) >= 2, "two jobs of the schedule")
    write_app(tmp_path, "new")
    terminal.wait_for("tasks.py changed, starting over")
    terminal.ready(2)
    terminal.wait_for("fires the schedules", 2)
    job = await app.dispatch("answer")
    assert await job.result(30) == "new"
    terminal.wait_for(f"job.succeeded job_id={job.id} task=answer")
    terminal.signal(signal.SIGINT)
    assert terminal.end() == 0
    assert "Traceback" not in terminal.text()
    assert not any(said in terminal.text() for said in ("worker.started", "worker.stopping", "schedule.fired"))


async def test_of_several_processes_one_runs_the_schedules(run: Start, tmp_path: Path) -> None:
    write_app(tmp_path, "x")
    worker = run("worker", "tasks:app", "--scheduler", "--processes", "2").ready(2)
    await asyncio.to_thread(until, lambda: len(pulses(tmp_path)) >= 3, "three jobs of the schedule")
    worker.signal(signal.SIGTERM)
    assert worker.end() == 0
    assert worker.text().count("fires the schedules") == 1
    # The stop of the worker stops the schedules: no signal is heard twice, or not at all.
    assert worker.text().count("stopped; it settled") == 2
    assert "scheduler-" in worker.wait_for("stopped; it sent")


async def test_schedules_that_nobody_keeps_end_the_worker_with_a_reason(run: Start, tmp_path: Path) -> None:
    write_app(tmp_path, "x")
    text = (tmp_path / "tasks.py").read_text()
    text += "\ntype(app.broker).own_schedules = lambda self: None\n"
    (tmp_path / "tasks.py").write_text(
        text.replace('Camora(os.environ["SHOP_BROKER"])', 'Camora("memory://", results=False)')
    )
    worker = run("worker", "tasks:app", "--scheduler")
    assert worker.end() == 2
    assert "nor the result backend keeps schedules" in worker.text()
    assert "Traceback" not in worker.text()
    # Where none are declared, the work is what matters.
    (tmp_path / "tasks.py").write_text((tmp_path / "tasks.py").read_text().replace("app.schedule(", "print("))
    worker = run("worker", "tasks:app", "--scheduler").ready()
    worker.wait_for("no schedules are run")
    worker.signal(signal.SIGINT)
    assert worker.end() == 0


def pulses(folder: Path) -> list[Path]:
    return list(folder.glob("pulse-*"))


# Queues


async def test_a_queue_that_looks_misspelt_is_hinted_at(start: Start) -> None:
    worker = start("--queues", "defualt,default").ready()
    worker.wait_for("no task of this app is in queue 'defualt'; did you mean 'default'?")
    impossible = start("--queues", "q" * 300)
    assert impossible.end() == 2
    assert "Traceback" not in impossible.text()


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


@pytest.mark.parametrize("arguments", [(), ("--processes", "2")], ids=["one", "two"])
@pytest.mark.parametrize("task", ["hold", "hold_thread"])
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


@pytest.mark.parametrize("task", ["forget_thread", "forget_own_thread"])
@pytest.mark.parametrize("arguments", [(), ("--processes", "2")], ids=["one", "two"])
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
