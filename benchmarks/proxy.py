"""Counts what a client asks of its server: a relay that reads what passes.

The server's own counts cannot tell: what a script or a function calls counts there as if a client had sent it. A relay
changes the timing, so nothing is timed through it.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

__all__ = ["RequestCounter", "counting"]

_CHUNK = 1 << 16


class Parser(ABC):
    """Reads one direction of one connection."""

    @abstractmethod
    def feed(self, data: bytes) -> int:
        """How many requests have come to an end in this piece."""


class RedisParser(Parser):
    """Commands. What a client sends between MULTI and EXEC counts one by one; a script is one."""

    def __init__(self) -> None:
        import hiredis

        self._nothing: Any = object()
        self._reader = hiredis.Reader(notEnoughData=self._nothing)

    def feed(self, data: bytes) -> int:
        self._reader.feed(data)
        count = 0
        while self._reader.gets() is not self._nothing:
            count += 1
        return count


class PostgresParser(Parser):
    """Statements, BEGIN and COMMIT among them: each Query, which may hold several, and each Execute.

    What prepares a statement is none. TLS is not looked into: use an address with `sslmode=disable` where it is on.
    """

    _ASKS = frozenset(b"QE")
    _VERSION = 3

    def __init__(self) -> None:
        self._data = bytearray()
        self._started = False

    def feed(self, data: bytes) -> int:
        self._data += data
        count = at = 0
        # A type of one byte, except in what comes first; then a length of four, which counts itself.
        while len(self._data) - at >= 8 or (self._started and len(self._data) - at >= 5):
            head = 1 if self._started else 0
            end = at + head + int.from_bytes(self._data[at + head : at + head + 4], "big")
            if end > len(self._data):
                break
            if self._started:
                count += self._data[at] in self._ASKS
            else:
                # Before it there may be questions for TLS and the like, which have numbers of their own.
                self._started = int.from_bytes(self._data[at + 4 : at + 8], "big") >> 16 == self._VERSION
            at = end
        del self._data[:at]
        return count


class AmqpParser(Parser):
    """Methods of AMQP 0-9-1, and heartbeats. A publish is one, whatever frames its message takes."""

    _ASKS = frozenset((1, 8))
    _GREETING, _HEAD, _END = 8, 7, 1

    def __init__(self) -> None:
        self._data = bytearray()
        self._greeted = False

    def feed(self, data: bytes) -> int:
        self._data += data
        count = at = 0
        if not self._greeted:
            if len(self._data) < self._GREETING:
                return 0
            self._greeted, at = True, self._GREETING
        # A type of one byte, a channel of two, a length of four, the payload, and a byte that ends it.
        while len(self._data) - at >= self._HEAD:
            end = at + self._HEAD + int.from_bytes(self._data[at + 3 : at + self._HEAD], "big") + self._END
            if end > len(self._data):
                break
            count += self._data[at] in self._ASKS
            at = end
        del self._data[:at]
        return count


class Amqp1Parser(Parser):
    """Frames of AMQP 1.0, those of the logging in among them; empty ones, which say that one lives, are none.

    TLS is not looked into: the emulator has none.
    """

    _GREETING, _HEAD = b"AMQP", 8

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> int:
        self._data += data
        count = at = 0
        # Greetings of eight bytes, and frames: a length of four, which counts itself, where the payload begins, a type
        # and a channel.
        while len(self._data) - at >= self._HEAD:
            greeting = self._data[at : at + 4] == self._GREETING
            end = at + (self._HEAD if greeting else int.from_bytes(self._data[at : at + 4], "big"))
            if end > len(self._data):
                break
            count += not greeting and end - at > self._HEAD
            at = end
        del self._data[:at]
        return count


_KINDS: Mapping[str, tuple[tuple[str, ...], int, Callable[[], Parser]]] = {
    "redis": (("redis",), 6379, RedisParser),
    "postgresql": (("postgresql", "postgres"), 5432, PostgresParser),
    "rabbitmq": (("amqp",), 5672, AmqpParser),
    "servicebus": (("servicebus",), 5672, Amqp1Parser),
}
"""The schemes of its URLs, its port, and what reads it."""


class RequestCounter:
    """`requests` so far; point the client at `url`."""

    def __init__(self, kind: str, url: str) -> None:
        schemes, port, self._parser = _KINDS[kind]
        parts = urlsplit(url)
        if parts.scheme not in schemes or not parts.hostname:
            raise ValueError(f"requests can be counted on {schemes[0]}://host:port only, not on {parts.scheme}://")
        self._target = (parts.hostname, parts.port or port)
        self._parts = parts
        self._writers: set[asyncio.StreamWriter] = set()
        self.url = ""
        self.requests = 0

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
                group.create_task(self._pump(reader, back_writer, self._parser()))
                group.create_task(self._pump(back_reader, writer, None))
        except* OSError:
            pass  # one side is gone
        finally:
            self._writers -= {writer, back_writer}

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, parser: Parser | None) -> None:
        try:
            while data := await reader.read(_CHUNK):
                if parser:
                    self.requests += parser.feed(data)
                writer.write(data)
                await writer.drain()
        finally:
            writer.close()

    def close(self) -> None:
        """Cut what is still connected."""
        for writer in self._writers:
            writer.close()


@contextlib.asynccontextmanager
async def counting(kind: str, url: str) -> AsyncIterator[RequestCounter]:
    """A relay to the server at `url`, for the length of the block. Raises `ValueError` for a URL it cannot relay to."""
    counter = RequestCounter(kind, url)
    server = await asyncio.start_server(counter.relay, "127.0.0.1", 0)
    counter.listening(server.sockets[0].getsockname()[1])
    try:
        yield counter
    finally:
        server.close()
        counter.close()
