"""The command line beside real workers: why a job is not running, and what operators do about it."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import attrs
import pytest
from camora.cli.main import main

from tests import forked

from .processes import WorkerProcess, until, workers

TASKS = '''
import asyncio
import os
from pathlib import Path
from camora import Camora, Queue, RetryPolicy

HERE = Path(__file__).parent
app = Camora(f"sqlite:///{HERE}/camora.db", queues=[Queue("mail", rate_limit="1/h")])

@app.task(name="add", queue="sums")
async def add(x: int, y: int) -> int:
    return x + y

@app.task(name="hold", queue="slow")
async def hold(name: str) -> None:
    """Run until somebody makes the file `release-NAME`."""
    (HERE / f"started-{name}").touch()
    while not (HERE / f"release-{name}").exists():
        await asyncio.sleep(0.01)

@app.task(name="single", queue="slow", max_concurrency=1)
async def single(name: str) -> None:
    await hold(name)

@app.task(name="mail", queue="mail")
async def mail() -> None:
    pass

@app.task(name="again", queue="sums", retry_policy=RetryPolicy(max_tries=5, delay=3600, on=(OSError,)))
async def again() -> None:
    raise OSError("not now")

@app.task(name="fail", queue="sums")
async def fail() -> None:
    if not (HERE / "mended").exists():
        raise OSError("no such host")

if "SHOP_BEAT" in os.environ:  # reports so many seconds apart, which are believed for as long
    from camora.worker import reporting, worker
    worker.BEAT, reporting.TTL = float(os.environ["SHOP_BEAT"]), float(os.environ["SHOP_TTL"])
'''


@attrs.frozen
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


@attrs.frozen
class Shop:
    """A folder with an app, and what people do there."""

    folder: Path
    start: Callable[..., WorkerProcess]

    def camora(self, *words: str) -> Done:
        """Run a command, in this process; what it imports from the folder is forgotten afterwards."""
        out, err = io.StringIO(), io.StringIO()
        code = 0
        with redirect_stdout(out), redirect_stderr(err):
            try:
                main([*words, "--app", "why:app"])
            except SystemExit as end:
                code = int(end.code or 0)
            finally:
                sys.modules.pop("why", None)
        return Done(code, out.getvalue(), err.getvalue())

    def dispatch(self, *words: str) -> str:
        """Dispatch a job; its id."""
        done = self.camora("dispatch", *words)
        assert done.code == 0, done.err
        return done.out.strip()

    def data(self, *words: str) -> Any:
        """What a command prints with `--json`."""
        done = self.camora(*words, "--json")
        assert done.out, done.err
        return json.loads(done.out)

    def why(self, job: str) -> list[str]:
        """The codes of the reasons."""
        return [reason["code"] for reason in self.data("why", job)["reasons"]]

    def text(self, job: str, code: str) -> str:
        """What `camora why` says about this reason."""
        return str(next(row["text"] for row in self.data("why", job)["reasons"] if row["code"] == code))

    def worker(self, *words: str, **environment: str) -> WorkerProcess:
        """Start a worker, and wait until it has reported."""
        worker = self.start(self.folder, "", *words, app="why:app", PYTHONPATH=str(self.folder), **environment).ready()
        until(lambda: worker.process.pid in [row["pid"] for row in self.data("workers")["workers"]], "its report")
        return worker

    def started(self, name: str) -> None:
        """Wait until the job of this name runs."""
        until((self.folder / f"started-{name}").exists, f"{name} starting")

    def release(self, name: str) -> None:
        """Let it end."""
        (self.folder / f"release-{name}").touch()

    def burst(self) -> None:
        """Run what is due, in a worker that ends by itself."""
        worker = self.start(self.folder, "", "--burst", app="why:app", PYTHONPATH=str(self.folder))
        assert worker.end() == 0, worker.text()

    def status(self, job: str) -> str:
        """As `camora job show` has it."""
        return str(self.data("job", "show", job)["status"])


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    (tmp_path / "why.py").write_text(TASKS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("COLUMNS", "200")
    with workers() as start:
        yield Shop(tmp_path, start)


def test_no_worker_serves_its_queue(shop: Shop) -> None:
    job = shop.dispatch("add", "1", "2")
    assert shop.why(job) == ["no-worker"]
    shop.worker("--queues", "slow")
    assert shop.why(job) == ["no-worker"]
    assert "camora worker --queues sums" in shop.camora("why", job).out
    shop.worker("--queues", "sums")
    until(lambda: shop.why(job) == ["finished"], "the job ending")


def test_due_later(shop: Shop) -> None:
    job = shop.dispatch("add", "1", "2", "--delay", "1h")
    shop.worker()
    assert shop.why(job) == ["scheduled"]
    assert shop.text(job, "scheduled").startswith("it is due in ")


def test_paused_and_resumed_beside_a_worker(shop: Shop) -> None:
    shop.worker()
    assert shop.camora("queues", "pause", "sums").code == 0
    job = shop.dispatch("add", "1", "2")
    assert shop.why(job) == ["paused"]
    assert shop.camora("queues", "resume", "sums").code == 0
    until(lambda: shop.why(job) == ["finished"], "the job ending")


def test_a_task_that_no_worker_knows(shop: Shop) -> None:
    job = shop.dispatch("nonsense", "--unchecked", "--queue", "sums")
    assert shop.why(job) == ["no-worker", "unknown-task"]
    shop.worker()
    until(lambda: shop.why(job) == ["given-back", "unknown-task"], "giving it back")


def test_waiting_for_a_retry_with_the_error_before(shop: Shop) -> None:
    job = shop.dispatch("again")
    shop.worker()
    until(lambda: shop.why(job) == ["retry"], "the first attempt")
    assert shop.text(job, "retry").startswith("it waits for attempt 2 after OSError: not now; due in ")


def test_who_holds_the_lease(shop: Shop) -> None:
    job = shop.dispatch("hold", "name=a")
    worker = shop.worker("--queues", "slow", SHOP_BEAT="1", SHOP_TTL="15")
    shop.started("a")
    assert shop.why(job)[0] in {"leased", "running"}  # until the worker reports again
    until(lambda: shop.why(job) == ["running"], "the worker's report")
    name = worker.wait_for("takes jobs").split("worker ")[1].split()[0]
    assert f"it is running in worker {name} for " in shop.text(job, "running")
    shop.release("a")
    until(lambda: shop.why(job) == ["finished"], "the job ending")


def test_a_holder_that_was_killed_is_told(shop: Shop) -> None:
    job = shop.dispatch("hold", "name=a")
    worker = shop.worker("--queues", "slow", CAMORA_WORKER__LEASE="600", SHOP_BEAT="1", SHOP_TTL="4")
    shop.started("a")
    worker.signal(signal.SIGKILL)
    until(lambda: shop.why(job) == ["holder-silent"], "its report growing old")
    assert "lease" in str(shop.data("why", job)["reasons"][0]["fix"])


def test_limits_reached_and_by_whom(shop: Shop) -> None:
    shop.worker()
    first = shop.dispatch("single", "name=a")
    shop.started("a")
    second = shop.dispatch("single", "name=b")
    until(lambda: "limit" in shop.why(second), "the limit being met")
    text = shop.text(second, "limit")
    assert "the only slot of single is taken" in text
    assert first in text
    shop.release("a")
    shop.release("b")
    until(lambda: shop.why(second) == ["finished"], "the second ending")


def test_a_rate_used_up(shop: Shop) -> None:
    shop.worker()
    first, second = shop.dispatch("mail"), shop.dispatch("mail")
    until(lambda: shop.why(first) == ["finished"], "the first ending")
    until(lambda: "limit" in shop.why(second), "the limit being met")
    assert "the rate of queue mail is used up: 1 in 1 h" in shop.text(second, "limit")


def test_all_workers_busy(shop: Shop) -> None:
    shop.worker("--queues", "slow", "--concurrency", "1")
    shop.dispatch("hold", "name=a")
    shop.started("a")
    jobs = [shop.dispatch("hold", f"name={name}") for name in "bc"]
    until(lambda: {"behind", "busy"} & set(shop.why(jobs[1])), "the worker's report")
    for name in "abc":
        shop.release(name)
    until(lambda: shop.why(jobs[1]) == ["finished"], "the last ending")


def test_done_cancelled_expired_unknown(shop: Shop) -> None:
    done, gone = shop.dispatch("add", "1", "2"), shop.dispatch("add", "1", "2", "--delay", "1h")
    late = shop.dispatch("add", "1", "2", "--expires", "1ms")
    assert shop.camora("job", "cancel", gone).code == 0
    until(lambda: "expired" in shop.why(late), "the time passing")
    shop.burst()
    for job, status in ((done, "succeeded"), (gone, "cancelled"), (late, "expired")):
        assert f"it has ended: {status}" in shop.camora("why", job).out
    unknown = shop.camora("why", "nonsense")
    assert unknown.code == 3
    assert "nothing is known of it" in unknown.out


def test_dead_mended_and_requeued(shop: Shop) -> None:
    job = shop.dispatch("fail")
    shop.burst()
    text = shop.camora("why", job).out
    assert "OSError: no such host" in text
    assert f"camora dead requeue {job}" in text
    (shop.folder / "mended").touch()
    assert shop.camora("dead", "requeue", job).out == "1 requeued\n"
    assert shop.why(job) == ["no-worker"]
    shop.burst()
    assert shop.status(job) == "succeeded"
    assert shop.data("dead") == {"letters": [], "more": False}


def test_dead_when_no_results_are_kept(shop: Shop) -> None:
    (shop.folder / "why.py").write_text(TASKS.replace('camora.db", ', 'camora.db", results=False, '))
    job = shop.dispatch("fail")
    shop.burst()
    assert shop.why(job) == ["dead"]
    assert "(failed)" in shop.text(job, "dead")


def test_a_running_job_is_interrupted(shop: Shop) -> None:
    shop.worker()
    job = shop.dispatch("hold", "name=a")
    shop.started("a")
    assert "its worker has been told" in shop.camora("job", "cancel", job).out
    until(lambda: shop.status(job) == "cancelled", "the interruption")


def test_waiting_for_a_result_that_another_process_makes(shop: Shop) -> None:
    shop.worker()
    done = shop.camora("dispatch", "add", "20", "22", "--wait", "--timeout", "30s")
    assert (done.code, done.out) == (0, "42\n"), done.err


def test_the_first_two_commands(tmp_path: Path) -> None:
    def camora(*words: str) -> subprocess.CompletedProcess[str]:
        return forked.run(
            [sys.executable, "-m", "camora", *words], cwd=tmp_path, capture_output=True, text=True, timeout=60
        )

    begun = camora("init")
    assert begun.returncode == 0, begun.stderr
    assert len((tmp_path / "camora.toml").read_text().splitlines()) == 10
    first, second = (line.split() for line in begun.stdout.splitlines() if line.startswith("  camora "))
    sent = forked.Popen(
        [sys.executable, "-m", *second], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    worked = forked.Popen([sys.executable, "-m", *first], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    with sent, worked:
        out, err = sent.communicate(timeout=60)
        worked.terminate()
        worked.communicate(timeout=60)
    assert out.strip() == '"Hello, Ada!"', err
    assert worked.returncode == 0
    assert "exist already" in camora("init").stderr
