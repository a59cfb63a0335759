"""A server's process: started, killed, paused and started again by a test."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.servers.keeper import keeper
from tests.servers.ports import free_port

__all__ = ["ServerFailed", "ServerProcess", "wait_until"]

_numbers = itertools.count(1)


class ServerFailed(AssertionError):
    """A server did not start, or ended by itself; the text has the end of its log."""


class ServerProcess(ABC):
    """A server of its own folder and port, on the loopback address. As a context it is started and closed."""

    host = "127.0.0.1"
    in_use = "Address already in use"
    """What its log says when somebody else has its port."""
    user: Mapping[str, Any] = {}
    """As whom it runs, in the words of `subprocess.Popen`."""

    def __init__(self) -> None:
        self.folder = keeper().folder / str(next(_numbers))
        self.folder.mkdir()
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @abstractmethod
    def prepare(self) -> None:
        """Write what it reads at its start: it has a port now."""

    @abstractmethod
    def command(self) -> Sequence[str]:
        """What is run."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether it does what it is there for."""

    def environment(self) -> dict[str, str]:
        """What it is run with."""
        return dict(os.environ)

    @property
    def log(self) -> str:
        """What it has logged so far."""
        path = self.folder / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server is not running"
        return self._process.pid

    def running(self) -> bool:
        """Whether its process lives, be it paused."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it, again on the same port and folder if it ran before, and wait until it answers."""
        for _ in range(10 if not self.port else 1):
            fresh = not self.port
            self.launch()
            try:
                self.wait_ready()
            except ServerFailed:
                if not (fresh and self.in_use in self.log):
                    self.close()
                    raise
                self.port = 0  # somebody was faster; another one then
            else:
                return self
        raise ServerFailed("no free port was found")

    def launch(self) -> None:
        """Start its process, and do not wait."""
        assert not self.running(), "the server is running"
        if not self.port:
            self.port = free_port()
            self.prepare()
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                list(self.command()),
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C at the terminal is not for it
                **self.user,
            )
        keeper().add(self._process)

    def wait_ready(self, timeout: float = 60) -> None:
        """Wait until it answers, long on a busy machine. Raises `ServerFailed` when it ends, or does not in time."""
        wait_until(self.answers, "an answer", timeout, self)

    def stop(self) -> None:
        """End it in order: it saves what it is set up to save."""
        self.end(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once: it saves nothing more."""
        self.end(signal.SIGKILL)

    def pause(self) -> None:
        """Stop its process: connections stay, and nothing answers."""
        self.signal(signal.SIGSTOP)
        if sys.platform == "linux":
            # Each thread stops when it gets to it: on a busy machine one may answer still.
            wait_until(self._stands, "its stop", 60, self)

    def _stands(self) -> bool:
        """Whether every thread of the process is stopped."""
        states = []
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                states.append((thread / "stat").read_text().rpartition(")")[2].split()[0])
        return set(states) == {"T"}

    def resume(self) -> None:
        """Let a paused process go on."""
        self.signal(signal.SIGCONT)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of it."""
        assert self.running(), "the server is not running"
        self.send(number)

    def send(self, number: signal.Signals) -> None:
        """The same, for one that may have ended meanwhile."""
        assert self._process is not None
        self._process.send_signal(number)

    def close(self) -> None:
        """End it for good."""
        if self.running():
            self.kill()

    def end(self, number: signal.Signals) -> None:
        """Send a signal that ends it, and wait."""
        self.signal(number)
        if number != signal.SIGKILL:
            self.send(signal.SIGCONT)  # paused, it would not hear the other
        assert self._process is not None
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            raise ServerFailed(f"the server at {self.port} does not end; its log:\n{self.log[-3000:]}") from None
        keeper().drop(self._process)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
        if error is not None and self.log:
            error.add_note(f"the end of the log of the server at {self.port}:\n{self.log[-3000:]}")


def wait_until(condition: Callable[[], bool], what: str, timeout: float, *servers: ServerProcess) -> None:
    """Look until it is so: a server tells nobody. Raises `ServerFailed` with the logs if it is not so in time."""
    began = time.monotonic()
    while not condition():
        dead = [server for server in servers if not server.running()]
        waited = time.monotonic() - began
        if dead or waited > timeout:
            why = "the server ended" if dead else f"not within {timeout} s"
            logs = "\n".join(f"--- log of the server at {server.port}\n{server.log[-3000:]}" for server in servers)
            raise ServerFailed(f"{what}: {why}\n{logs}")
        time.sleep(min(0.002 + waited / 10, 0.05))  # quick at first; looking costs the servers time
