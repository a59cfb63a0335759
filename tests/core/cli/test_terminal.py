"""What is different on a terminal: bars, spinners, colours, questions."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path

import attrs
import pytest

from tests import forked

from .conftest import Run

APP = ("--app", "tasks:app")
_COLOUR = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-9]|9[0-7])(?:;\d+)*m")


@attrs.frozen
class Shown:
    """What a command wrote: to a pipe, and to a terminal."""

    stdout: str
    terminal: str
    returncode: int


def at_terminal(folder: Path, *words: str, keys: str = "", stdout: bool = False, **environment: str) -> Shown:
    """Run a command whose stdin and stderr, and with `stdout` that too, are a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    settings = {name: text for name, text in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "CI")}
    running = forked.Popen(
        [sys.executable, "-m", "camora", *words, *APP],
        cwd=folder,
        env={**settings, "TERM": "xterm-256color", **environment},
        stdin=theirs,
        stdout=theirs if stdout else subprocess.PIPE,
        stderr=theirs,
        text=True,
        start_new_session=True,
    )
    os.close(theirs)
    os.write(ours, keys.encode())
    shown: list[bytes] = []

    def read() -> None:
        with contextlib.suppress(OSError):  # the other end is closed when the command has ended
            while some := os.read(ours, 4096):
                shown.append(some)

    reader = threading.Thread(target=read)
    reader.start()
    out, _ = running.communicate(timeout=60)
    reader.join(60)
    os.close(ours)
    return Shown(out or "", b"".join(shown).decode(), running.returncode)


@pytest.fixture
def dead(camora: Run, folder: Path) -> int:
    """Some dead letters; how many."""
    (folder / "rows.jsonl").write_text('["x"]\n' * 20)
    assert camora("dispatch", "fail", "--from", "rows.jsonl", *APP).returncode == 0
    assert camora("worker", "--burst", "--log-level", "error", *APP).returncode == 0
    return 20


def test_bars_are_drawn_on_a_terminal_and_never_on_stdout(folder: Path, dead: int, process: Run) -> None:
    done = at_terminal(folder, "dead", "requeue", "--all", "--yes")
    assert done.stdout == f"{dead} requeued\n"
    assert "requeueing" in done.terminal
    sent = at_terminal(folder, "dispatch", "fail", "--from", "rows.jsonl")
    assert sent.stdout == "20 dispatched\n"
    assert "dispatching" in sent.terminal
    assert process("dispatch", "fail", "--from", "rows.jsonl", *APP).stderr == ""


def test_spinners_too(folder: Path) -> None:
    done = at_terminal(folder, "doctor", "--json")
    assert done.stdout.startswith("{")
    assert "dead letters …" in done.terminal


@pytest.mark.parametrize(
    ("key", "said"), [("n", "nothing was deleted"), ("", "nothing was deleted"), ("y", "20 deleted")]
)
def test_a_question_is_asked_and_answered(folder: Path, dead: int, key: str, said: str) -> None:
    done = at_terminal(folder, "dead", "purge", "--all", keys=f"{key}\n")
    assert "Delete all 20 dead letters of all queues for good? [y/N]" in done.terminal
    assert done.stdout == f"{said}\n"
    assert done.returncode == 0


def test_a_question_says_how_many_and_which(folder: Path, dead: int, process: Run) -> None:
    for words, question in (
        (["purge", "--all", "--queue", "mail"], "Delete all 20 dead letters of queue mail for good?"),
        (["purge", "--all", "--queue", "sums"], "Delete all 0 dead letters of queue sums for good?"),
        (["purge", "a", "b"], "Delete these 2 dead letters for good?"),
        (["purge", "a"], "Delete the dead letter a for good?"),
        (["requeue", "--all", "-q", "mail"], "Requeue all 20 dead letters of queue mail?"),
    ):
        assert question in process("dead", *words, *APP).stderr


def test_colours_unless_somebody_wants_none(folder: Path) -> None:
    assert _COLOUR.search(at_terminal(folder, "doctor", stdout=True).terminal)
    assert not _COLOUR.search(at_terminal(folder, "doctor", stdout=True, NO_COLOR="1").terminal)
    assert "\x1b" not in at_terminal(folder, "doctor").stdout


@pytest.mark.parametrize("words", [["queues"], ["dead"], ["doctor"], ["dispatch", "--help"]], ids=" ".join)
def test_nothing_is_wider_than_the_terminal(folder: Path, dead: int, words: list[str]) -> None:
    shown = at_terminal(folder, *words, stdout=True, NO_COLOR="1").terminal
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown)
    assert max(len(line.strip("\r\n").rstrip()) for line in plain.split("\n")) <= 80


def test_in_a_pipe_nothing_is_wrapped(folder: Path, dead: int) -> None:
    lines = at_terminal(folder, "dead").stdout.splitlines()
    assert len([line for line in lines if "OSError: no such host: x" in line and "fail(to='x')" in line]) == dead
