"""Sockets and tasks that the client library keeps to itself."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Coroutine
from typing import Any

from aiormq.connection import TransportFactory
from camora.sockets import let_go
from yarl import URL

__all__ = ["Opener"]


class _Noting:
    """An event loop that knows which of the tasks that were begun by way of it have not ended yet."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.tasks: set[asyncio.Task[Any]] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:
        task = self._loop.create_task(coro, **options)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task


class Opener(TransportFactory):
    """Makes one connection for the client library, and can cut it when the library does not come to an end."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None
        self.loop = _Noting(self._loop)
        """What the library takes for its event loop."""

    async def create(self, url: URL, **_: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect. Raises `OSError`."""
        reader, writer = await asyncio.open_connection(url.host, url.port, ssl=self._context)
        self._transport = writer.transport
        return reader, writer

    def let_go(self) -> None:
        """Close the socket: from any thread, without waiting. May be repeated."""
        if self._transport is not None:
            let_go(self._transport, self._loop)

    async def end(self, timeout: float) -> None:
        """Close the socket, and wait until the library's tasks have noticed and ended: for `timeout` seconds at most.

        They begin further ones when they end, which a loop that is closed too early never runs.
        """
        self.let_go()
        until = self._loop.time() + timeout
        while self.loop.tasks and (left := until - self._loop.time()) > 0:
            await asyncio.wait(set(self.loop.tasks), timeout=left)
