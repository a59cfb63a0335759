"""`subprocess.Popen` whose children are forked by a process of ours where that makes no difference."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import inspect
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.forked.request import STARTUP, receive, send

__all__ = ["Popen", "run"]

ROOT = Path(__file__).parents[2]
_HARMLESS = {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "PYTHONPATH"}
"""These can be followed later, too."""
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of prctl(2)
_ASKED = inspect.signature(subprocess.Popen._execute_child)  # type: ignore[attr-defined]
_ORDINARY: dict[str, Any] = {
    "preexec_fn": None, "pass_fds": (), "shell": False, "restore_signals": True, "gid": None, "gids": None,
    "uid": None, "umask": -1, "process_group": -1,
}  # fmt: skip


class Popen(subprocess.Popen[Any]):
    """As its base; a command of this interpreter is forked, all others are started as ever."""

    def _execute_child(self, *args: Any, **kwargs: Any) -> None:
        asked = _ASKED.bind(self, *args, **kwargs).arguments
        environment = dict(os.environ if asked["env"] is None else asked["env"])
        command = [os.fspath(word) for word in asked["args"]] if isinstance(asked["args"], (list, tuple)) else []
        options = _options(command)
        if options is None or not _can_fork(asked, environment):
            super()._execute_child(*args, **kwargs)  # type: ignore[misc]
            return
        streams = [asked["p2cread"], asked["c2pwrite"], asked["errwrite"]]
        self.pid = _server().fork(
            {
                "command": command,
                "words": command[1 + len(options) :],
                "warnings": options[1:],
                "folder": os.fspath(asked["cwd"] or Path.cwd()),
                "environment": environment,
                "session": bool(asked["start_new_session"]),
            },
            [own if given == -1 else given for own, given in enumerate(streams)],
        )
        self._child_created = True
        self._close_pipe_fds(  # type: ignore[attr-defined]
            *(asked[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite"))
        )


def run(*args: Any, check: bool = False, timeout: float | None = None, **kwargs: Any) -> Any:
    """As `subprocess.run`, without `input`."""
    if kwargs.pop("capture_output", False):
        kwargs |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Popen(*args, **kwargs) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(process.args, process.returncode, out, err)
    if check:
        done.check_returncode()
    return done


def _options(command: Sequence[str]) -> tuple[str, ...] | None:
    """Of the interpreter, where it is this one and they can be followed later: what becomes of warnings can."""
    if sys.platform != "linux" or os.environ.get("CAMORA_TEST_EXEC") == "1" or command[:1] != [sys.executable]:
        return None
    options = tuple(command[1:3]) if command[1:2] == ["-W"] else ()
    [word] = command[1 + len(options) : 2 + len(options)] or ["-"]
    return options if word in ("-m", "-c") or not word.startswith("-") else None


def _can_fork(asked: dict[str, Any], environment: dict[str, str]) -> bool:
    if any(asked.get(name, value) != value for name, value in _ORDINARY.items()):
        return False
    folders = environment.get("PYTHONPATH", "").split(os.pathsep)
    if any(Path(folder, "sitecustomize.py").exists() for folder in folders):
        return False
    return _startup(environment) == _startup(dict(os.environ))


def _startup(environment: dict[str, str]) -> dict[str, str]:
    return {name: v for name, v in environment.items() if name.startswith(STARTUP) and name not in _HARMLESS}


@functools.cache
def _server() -> _Server:
    return _Server()


class _Server:
    """A process that forks: one for this test process, which it ends with."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.forked.server", str(theirs.fileno())],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()],
            )  # fmt: skip
        atexit.register(self._close)

    def _close(self) -> None:
        self._socket.close()
        self._process.wait(30)

    def fork(self, message: dict[str, Any], descriptors: list[int]) -> int:
        """The id of a new child of this process. It is begotten by a process between, which leaves it to us."""
        with self._lock, _adopting():
            send(self._socket, message, descriptors)
            answer = receive(self._socket)
        if answer is None:
            raise RuntimeError("the process that forks has ended: see what it wrote")
        if "error" in answer[0]:
            raise FileNotFoundError(answer[0]["error"])
        return int(answer[0]["pid"])


@contextlib.contextmanager
def _adopting() -> Iterator[None]:
    """Meanwhile, the orphans below this process become its children."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    try:
        with _undisturbed():
            yield
    finally:
        prctl(_SUBREAPER, 0, 0, 0, 0)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A test's timeout between question and answer would leave the answer to the next one."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM, signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
