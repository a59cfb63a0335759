"""The first minutes: init, demo, shell, completion."""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forked

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
    command = [sys.executable, "-m", "camora", "shell", "--app", "tasks:app"]
    pipe = subprocess.PIPE
    with forked.Popen(command, cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as running:
        out, err = running.communicate(text, timeout=60)
    return Done(running.returncode, out, err)


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


@pytest.mark.parametrize(
    ("typed", "ran"),
    [
        ("camora wh\t JOB", "why JOB"),
        ("camora queues pau\t mail", "queues pause mail"),
        ("camora job prune --old\t 1d", "job prune --older-than 1d"),
        ("camora dispatch tasks:total --pri\t 5", "dispatch tasks:total --priority 5"),
        ("camora sql mi\t", "sql migrate"),
        ("camora new-plugin x --kind sched\t", "new-plugin x --kind scheduler"),
    ],
)
def test_tab_completes_in_bash(completion: Path, typed: str, ran: str) -> None:
    assert (
        in_bash(f'source {completion}\ncamora() {{ echo; echo "ran <$*>"; }}\n{typed}\nexit\n').count(f"ran <{ran}>")
        == 1
    )


@pytest.fixture(scope="module")
def completion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The script that bash is given."""
    target = tmp_path_factory.mktemp("completion") / "camora"
    command = [sys.executable, "-m", "camora", "--install-completion", "--shell", "bash", "--output", str(target)]
    subprocess.run(command, env={**os.environ, "HOME": str(target.parent)}, check=True, capture_output=True, timeout=60)
    return target


def in_bash(keys: str) -> str:
    """What an interactive bash shows to whom presses these keys."""
    ours, theirs = pty.openpty()
    shell = subprocess.Popen(
        ["bash", "--norc", "--noprofile", "-i"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "dumb", "PS1": "$ "},
        start_new_session=True,
    )
    os.close(theirs)
    os.write(ours, keys.encode())
    shown = b""
    with shell, contextlib.suppress(OSError):  # the other end is closed when bash has ended
        while some := os.read(ours, 4096):
            shown += some
    os.close(ours)
    return shown.decode()
