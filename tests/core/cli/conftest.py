"""Running `camora …`: in this process, because that is fast, or in one of its own, as people do."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from camora.cli.main import main

from tests import forked


@attrs.frozen
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]

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
def process(folder: Path) -> Run:
    """Run the command line in that folder, in a process of its own."""

    def run(*arguments: str, **environment: str) -> Done:
        done = forked.run(
            [sys.executable, "-m", "camora", *arguments],
            cwd=folder,
            env={**os.environ, "COLUMNS": "120", **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def camora(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in that folder, in this process; modules that it imports there are forgotten each time."""
    monkeypatch.chdir(folder)

    def run(*arguments: str, **environment: str) -> Done:
        capsys.readouterr()
        code = 0
        before = dict(os.environ)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "path", list(sys.path))
            patch.setattr(sys, "stdin", io.StringIO())
            for name, value in {"COLUMNS": "120", **environment}.items():
                patch.setenv(name, value)
            try:
                main(arguments)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
            finally:
                forget(folder)
        for name in os.environ.keys() - before.keys():  # left there for worker processes
            del os.environ[name]
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return run


def forget(folder: Path) -> None:
    """Drop the modules of this folder, so that the next command reads them anew."""
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]
