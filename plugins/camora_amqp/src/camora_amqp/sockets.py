"""Sockets that the client library keeps to itself."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from aiormq.connection import TransportFactory
from camora.sockets import let_go
from yarl import URL

__all__ = ["Opener"]


class Opener(TransportFactory):
    """Makes one connection for the client library, and can cut it when the library does not come to an end."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None

    async def create(self, url: URL, **_: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect. Raises `OSError`."""
        reader, writer = await asyncio.open_connection(url.host, url.port, ssl=self._context)
        self._transport = writer.transport
        return reader, writer

    def let_go(self) -> None:
        """Close the socket: from any thread, without waiting. May be repeated."""
        if self._transport is not None:
            let_go(self._transport, self._loop)
