"""The first minutes: init, demo, shell, completion."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import Done, Run


def test_demo_shows_what_becomes_of_jobs(camora: Run) -> None:
    done = camora("demo", "--jobs", "21")
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["call-api", "succeeded", "6", "12", "6"] in rows
    assert ["divide", "failed", "1", "2", "1"] in rows
    assert ["resize", "succeeded", "14", "14", "0"] in rows
    assert "ZeroDivisionError: division by zero" in done.stdout
    assert "camora init" in done.stdout
    assert done.stderr == ""


def shell(folder: Path, text: str) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "camora", "shell", "--app", "tasks:app"],
        cwd=folder,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def test_shell_awaits_with_the_app_and_its_tasks_in_scope(folder: Path) -> None:
    done = shell(folder, "job = await add.dispatch(20, 22)\nawait job.status()\nawait app.run_now(add.s(20, 22))\n")
    assert done.returncode == 0, done.stderr
    assert "in scope: app, add, fail, again" in done.stderr
    assert "<Status.QUEUED: 'queued'>" in done.stdout
    assert "42" in done.stdout


def test_shell_shows_errors_and_goes_on(folder: Path) -> None:
    done = shell(folder, "1/0\nawait add.dispatch('x', 1)\n40 + 2\n")
    assert "ZeroDivisionError" in done.stderr
    assert "add: x: expected int, got 'x' (str)" in done.stderr
    assert "42" in done.stdout
    assert "Unclosed" not in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_of_the_core_and_of_plugins_and_their_options(
    process: Run, tmp_path: Path, shell: str
) -> None:
    target = tmp_path / "completion"
    done = process("--install-completion", "--shell", shell, "--output", str(target), HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    script = target.read_text()
    for word in ("dispatch", "queues", "pause", "--older-than", "sql", "migrate"):
        assert word.lstrip("-") in script, word


def test_the_bash_completion_is_a_script_that_bash_reads(process: Run, tmp_path: Path) -> None:
    target = tmp_path / "completion"
    process("--install-completion", "--shell", "bash", "--output", str(target), HOME=str(tmp_path))
    assert subprocess.run(["bash", "-n", str(target)], capture_output=True, text=True, timeout=60).stderr == ""
