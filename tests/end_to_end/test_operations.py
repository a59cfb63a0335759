"""Operating real worker processes: replaced, reloaded, with schedules beside them. Nothing is lost by any of it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from camora import Camora
from camora.testing.ledger import audit
from processes import APPS, Start, WorkerProcess, pid_of, started, until

from tests import forked


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
    jobs = [await app.dispatch("work", number=number) for number in range(70)]
    await balance(app, tmp_path, jobs)
    supervisor.wait_for("20 jobs begun, max_jobs is 20", 2)
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
    for number in range(6):
        await (await app.dispatch("work", number=number)).result(60)
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
    supervisor = start("--max-memory", "250MB", CAMORA_WORKER__LEASE="60").ready()
    greedy = int(await (await app.dispatch("hoard", megabytes=250)).result(30))
    supervisor.wait_for("max_memory is 250000000")
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
