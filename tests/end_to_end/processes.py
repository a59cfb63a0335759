"""Real worker processes for fault tests: started, waited for by events, killed."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from tests import forked
from tests.servers.fixtures import fresh_postgres_url, fresh_url

APPS = Path(__file__).parent / "apps"


class WorkerProcess:
    """`camora worker shop:app` in a process of its own; its log is kept line by line."""

    command: tuple[str, ...] | None = None
    cwd: Path = APPS

    def __init__(self, folder: Path, broker: str, *arguments: str, app: str = "shop:app", **environment: str) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self._changed = threading.Condition()
        settings = {
            "CAMORA_WORKER__LEASE": "1.5",
            "CAMORA_WORKER__SHUTDOWN_TIMEOUT": "20",
            "SHOP_FOLDER": str(folder),
            "SHOP_BROKER": broker,
            "PYTHONUNBUFFERED": "1",
        }
        self.process = forked.Popen(
            [sys.executable, "-m", "camora", *(self.command or ("worker", app)), *arguments],
            cwd=self.cwd,
            env={**os.environ, **settings, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self.lines.append(line.rstrip())
                self._changed.notify_all()
        with self._changed:
            self.lines.append("<end>")
            self._changed.notify_all()

    def wait_for(self, text: str, count: int = 1, timeout: float = 60) -> str:
        """The line with this text, as soon as it has come `count` times."""
        with self._changed:
            found = self._changed.wait_for(
                lambda: sum(text in line for line in self.lines) >= count or "<end>" in self.lines, timeout
            )
            lines = [line for line in self.lines if text in line]
            assert found and len(lines) >= count, f"{text!r} did not come; the log:\n" + "\n".join(self.lines)
            return lines[count - 1]

    def ready(self, count: int = 1) -> WorkerProcess:
        self.wait_for("takes jobs", count)
        return self

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def insist(self, number: int) -> None:
        """Send it again until the process has ended, as one does whose Ctrl-C is not heard.

        The first may be pending still, and another thread than the blocked one may be told of the second.
        """

        def again() -> bool:
            self.signal(number)
            return self.process.poll() is not None

        until(again, "its end")

    def end(self, timeout: float = 60) -> int:
        """Wait for its end; the exit code."""
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        return code

    def text(self) -> str:
        return "\n".join(self.lines)

    def destroy(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait(30)
        self._reader.join(10)
        if self.process.stdout is not None:
            self.process.stdout.close()


Start = Callable[..., WorkerProcess]
"""Starts one, with arguments of its command line and variables of its environment."""


def shared(kind: str, folder: Path) -> str:
    """The URL of a fresh store of this kind that several processes can share; servers join here."""
    match kind:
        case "sqlite":
            return f"sqlite:///{folder}/camora.db"
        case "postgresql":
            return fresh_postgres_url()
        case _:
            return fresh_url(kind)


def until(what: Callable[[], object], text: str, timeout: float = 60) -> None:
    """Look until it is so; files and processes of others have no events to wait on."""
    deadline = time.monotonic() + timeout
    while not what():
        assert time.monotonic() < deadline, f"{text} did not happen within {timeout} s"
        time.sleep(0.005)


def freeze_between_writes(worker: WorkerProcess, database: Path) -> None:
    """Stop a process, but not while it holds the database: nobody could write to that until it goes on."""
    frozen = psutil.Process(worker.process.pid)
    for _ in range(1000):
        worker.signal(signal.SIGSTOP)
        until(lambda: frozen.status() == psutil.STATUS_STOPPED, "the stop")
        with contextlib.closing(sqlite3.connect(database, timeout=0.1, isolation_level=None)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
            except sqlite3.OperationalError:
                worker.signal(signal.SIGCONT)
            else:
                return
    raise AssertionError("it holds the database all the time")


def started(folder: Path, name: str, count: int = 1) -> Callable[[], bool]:
    return lambda: len(list(folder.glob(f"started-{name}-*"))) >= count


def pid_of(folder: Path, name: str) -> int:
    [path] = folder.glob(f"started-{name}-*")
    return int(path.name.rpartition("-")[2])


@contextlib.contextmanager
def workers() -> Iterator[Callable[..., WorkerProcess]]:
    made: list[WorkerProcess] = []

    def start(*args: object, **kwargs: str) -> WorkerProcess:
        made.append(WorkerProcess(*args, **kwargs))  # type: ignore[arg-type]
        return made[-1]

    try:
        yield start
    finally:
        for worker in made:
            worker.destroy()
