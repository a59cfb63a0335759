"""Counts the commands that a client sends to Redis: a relay that reads what passes.

The server's own counts cannot tell: what a script calls counts there as if a client had sent it. A relay changes the
timing, so nothing is timed through it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit

__all__ = ["CommandCounter", "counting"]

_CHUNK = 1 << 16


class CommandCounter:
    """`commands` so far; point the client at `url`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "redis" or not parts.hostname:
            raise ValueError(f"commands can be counted on redis://host:port only, not on {parts.scheme}://")
        self._target = (parts.hostname, parts.port or 6379)
        self._parts = parts
        self._writers: set[asyncio.StreamWriter] = set()
        self.url = ""
        self.commands = 0

    def listening(self, port: int) -> None:
        """Say where the relay is."""
        login, at, _ = self._parts.netloc.rpartition("@")
        self.url = self._parts._replace(netloc=f"{login}{at}127.0.0.1:{port}").geturl()

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side ends it."""
        back_reader, back_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, back_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, back_writer, count=True))
                group.create_task(self._pump(back_reader, writer, count=False))
        except* OSError:
            pass  # one side is gone
        finally:
            self._writers -= {writer, back_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, count: bool) -> None:
        import hiredis

        nothing: Any = object()
        parser = hiredis.Reader(notEnoughData=nothing)
        try:
            while data := await reader.read(_CHUNK):
                if count:
                    parser.feed(data)
                    while parser.gets() is not nothing:
                        self.commands += 1
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    def close(self) -> None:
        """Cut what is still connected."""
        for writer in self._writers:
            writer.close()


@contextlib.asynccontextmanager
async def counting(url: str) -> AsyncIterator[CommandCounter]:
    """A relay to the Redis at `url`, for the length of the block. Raises `ValueError` for a URL it cannot relay to."""
    counter = CommandCounter(url)
    server = await asyncio.start_server(counter.relay, "127.0.0.1", 0)
    counter.listening(server.sockets[0].getsockname()[1])
    try:
        yield counter
    finally:
        server.close()
        counter.close()
