"""Jobs in steps whose workers are killed: real processes, a real signal from the command line."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from camora import Camora, Status
from processes import WorkerProcess, shared, until, workers

ORDERS = '''
import os
from pathlib import Path

from camora import Camora
from camora_workflows import durable_sleep, step, wait_for_signal

FOLDER = Path(os.environ["SHOP_FOLDER"])
app = Camora(os.environ["SHOP_BROKER"])


def done(what: str) -> str:
    """A line for each time that it is done."""
    with (FOLDER / "done").open("a") as file:
        file.write(what + "\\n")
    return what


def hang() -> None:
    (FOLDER / "hanging").touch()
    while not (FOLDER / "go").exists():
        import time
        time.sleep(0.01)


@app.task(name="order")
async def order() -> str:
    await step("charge", done, "charged")
    await step("hang", hang)
    await step("pack", done, "packed")
    await durable_sleep(seconds=0.2)
    answer = await wait_for_signal("shipped", type=str)
    return await step("close", done, f"closed: {answer}")
'''


@pytest.fixture(params=["sqlite", "redis"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return shared(request.param, tmp_path)


@pytest.fixture
def start(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], WorkerProcess]]:
    (tmp_path / "orders.py").write_text(ORDERS)
    monkeypatch.setattr(WorkerProcess, "cwd", tmp_path)
    with workers() as make:
        yield lambda: make(tmp_path, url, app="orders:app").ready()


async def _until(what: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not await what():
            await asyncio.sleep(0.02)


async def test_each_step_is_done_once_whoever_is_killed(
    start: Callable[[], WorkerProcess], tmp_path: Path, url: str
) -> None:
    def done() -> list[str]:
        return (tmp_path / "done").read_text().splitlines()

    async with Camora(url) as app:
        job = await app.dispatch("order")
        first = start()
        until((tmp_path / "hanging").exists, "the second step")
        first.signal(signal.SIGKILL)  # after the first step, and in the middle of the second
        first.end()
        (tmp_path / "go").touch()

        second = start()

        async def waits() -> bool:
            return "packed" in done() and await job.status() is Status.SCHEDULED

        await _until(waits)
        second.signal(signal.SIGKILL)  # it sleeps, or waits for a signal: no worker is needed
        second.end()
        assert done() == ["charged", "packed"]

        sent = subprocess.run(
            [sys.executable, "-m", "camora", "job", "signal", job.id, "shipped", "by train", "--app", "orders:app"],
            cwd=tmp_path,
            env={**os.environ, "SHOP_FOLDER": str(tmp_path), "SHOP_BROKER": url},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert sent.returncode == 0, sent.stderr
        assert "'shipped' was sent" in sent.stdout

        start()
        assert await job.result(60) == "closed: by train"
        assert done() == ["charged", "packed", "closed: by train"]
