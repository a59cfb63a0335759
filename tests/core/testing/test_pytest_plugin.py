"""The fixtures, in suites of their own that run in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFTEST = """
import pytest
from camora import Camora

app = Camora()

@app.task
async def add(x: int, y: int) -> int:
    return x + y

@pytest.fixture
def camora_app():
    return app
"""


def run(folder: Path, test: str, *options: str, conftest: str = CONFTEST) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(conftest)
    (folder / "test_it.py").write_text(test)
    loops = "" if "no:asyncio" in options else "asyncio_default_fixture_loop_scope = function\n"
    (folder / "pytest.ini").write_text(f"[pytest]\nfilterwarnings = error\n{loops}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "COV_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


def test_a_sync_suite_without_any_async_plugin(tmp_path: Path) -> None:
    test = """
from conftest import add
from datetime import timedelta

def test_dispatched(camora_dispatched):
    add.dispatch_sync(1, 2)
    camora_dispatched.assert_dispatched(add, x=1, y=2)

def test_simulated(camora_simulate, camora_seed):
    async def scenario(worker):
        await add.options(delay=60).dispatch(1, 2)

    found = camora_simulate(scenario, length=timedelta(hours=1))
    assert len(found.finished.of(add)) == 1
    assert camora_seed == found.seed == 7
"""
    ended = run(tmp_path, test, "-p", "no:asyncio", "-p", "no:anyio", "--camora-seed=7")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2 passed" in ended.stdout


@pytest.mark.parametrize(
    ("mark", "options"),
    [("asyncio", ("-p", "no:anyio")), ("anyio", ("-p", "no:asyncio"))],
)
def test_an_async_suite(tmp_path: Path, mark: str, options: tuple[str, ...]) -> None:
    pytest.importorskip("anyio" if mark == "anyio" else "pytest_asyncio")
    test = f"""
import pytest
from conftest import add

pytestmark = pytest.mark.{mark}

@pytest.fixture
def anyio_backend():
    return "asyncio"

async def test_worker(camora_worker):
    job = await add.options(delay=3600).dispatch(1, 2)
    await camora_worker.advance(hours=1)
    assert await job.result() == 3
    camora_worker.assert_dispatched(add, times=1)

async def test_recorded(camora_dispatched):
    await add.dispatch(1, 2)
    camora_dispatched.assert_dispatched(add, times=1)
"""
    ended = run(tmp_path, test, *options)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "2 passed" in ended.stdout


def test_the_app_must_be_named(tmp_path: Path) -> None:
    ended = run(tmp_path, "def test_it(camora_dispatched): pass\n", conftest="")
    assert ended.returncode == 1
    assert "define a fixture camora_app in conftest.py" in ended.stdout


def test_a_suite_that_does_not_use_it_pays_next_to_nothing(tmp_path: Path) -> None:
    test = """
import sys

def test_it():
    loaded = {name for name in sys.modules if name.startswith("camora")}
    assert "camora.testing.pytest_plugin" in loaded
    assert not loaded & {"camora.app", "camora.plugins", "camora.testing.worker"}
    assert not {name.partition(".")[0] for name in sys.modules} & {"cattrs", "msgspec", "svcs", "rich"}
"""
    ended = run(tmp_path, test, conftest="")
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_test_worker_is_not_collected(tmp_path: Path) -> None:
    test = "from camora.testing import TestWorker\n\ndef test_it(): assert TestWorker\n"
    ended = run(tmp_path, test, conftest="")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "1 passed" in ended.stdout
