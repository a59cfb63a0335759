"""Servers for the run: one from the environment, or a private one that ends with it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

__all__ = ["KINDS", "NoServer", "Server", "free_port", "running", "serve"]

KINDS = ("redis", "postgresql", "rabbitmq", "servicebus")


class NoServer(Exception):
    """There is none to be had; the text says what was looked for."""


class Server(ABC):
    """A server to measure against. It belongs to the run: `clear` deletes what the last entrant left."""

    kind: ClassVar[str]

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is, and its version."""

    @abstractmethod
    def clear(self) -> None:
        """Delete everything that is in it. Blocks."""


@contextlib.contextmanager
def serve(kind: str, flavour: str = "") -> Iterator[Server]:
    """A server of one of `KINDS`; for Redis `flavour` says which program. Raises `NoServer`."""
    # A kind is imported when it is asked for: the clients of the others need not be installed.
    if kind == "redis":
        from benchmarks.redis_server import redis_server

        serving: contextlib.AbstractContextManager[Server] = redis_server(flavour or "redis")
    elif kind == "postgresql":
        from benchmarks.postgres_server import postgres_server

        serving = postgres_server()
    elif kind == "rabbitmq":
        from benchmarks.rabbitmq_server import rabbitmq_server

        serving = rabbitmq_server()
    elif kind == "servicebus":
        from benchmarks.servicebus_server import servicebus_server

        serving = servicebus_server()
    else:
        raise NoServer(f"no {kind} server")
    with serving as server:
        yield server


def free_port() -> int:
    """One that nobody had at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@contextlib.contextmanager
def running(
    command: Sequence[str],
    log: Path,
    answers: Callable[[], bool],
    *,
    end: int,
    environment: Mapping[str, str] | None = None,
    user: Mapping[str, Any] | None = None,
    patience: float = 10.0,
) -> Iterator[None]:
    """A server's process, from when it answers until it is ended with this signal.

    Raises `NoServer` if it does not start, or does not answer within `patience` seconds.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment or {**os.environ},
            cwd=log.parent, **(user or {}),
        )  # fmt: skip
    try:
        late = time.monotonic() + patience
        while True:
            if process.poll() is not None:
                raise NoServer(f"{Path(command[0]).name} did not start: {log.read_text(errors='replace')[-300:]}")
            if answers():
                break
            if time.monotonic() > late:
                raise NoServer(f"{Path(command[0]).name} did not answer within {patience:g} s")
            time.sleep(0.05)
        yield
    finally:
        process.send_signal(end)
        process.wait(30)
