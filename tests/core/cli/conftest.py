"""Running `camora …` as people do: in a process of its own, by its output and exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

TASKS = """
from camora import Camora, RetryPolicy
app = Camora("sqlite:///camora.db")

@app.task(name="add", queue="sums")
async def add(x: int, y: int) -> int:
    return x + y

@app.task(name="fail", queue="mail")
def fail(to: str) -> None:
    raise OSError(f"no such host: {to}")

@app.task(name="again", queue="mail", retry_policy=RetryPolicy(max_tries=5, delay=3600, on=(OSError,)))
def again(to: str) -> None:
    raise OSError("not now")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an app in `tasks.py`, on a database of its own."""
    (tmp_path / "tasks.py").write_text(TASKS)
    return tmp_path


@pytest.fixture
def camora(folder: Path) -> Run:
    """Run the command line in that folder."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "camora", *arguments],
            cwd=folder,
            env={**os.environ, "COLUMNS": "120", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run
