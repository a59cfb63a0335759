"""Sockets of event loops that may be gone, and those that the client library keeps to itself."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import Any

from aiormq.connection import TransportFactory
from yarl import URL

__all__ = ["Opener", "let_go"]


def let_go(transport: asyncio.BaseTransport, loop: asyncio.AbstractEventLoop) -> None:
    """Close the socket of a transport of this loop: from any thread, without waiting. May be repeated."""
    abort: Any = getattr(transport, "abort", transport.close)
    if not loop.is_closed():
        # It may run in another thread, or never again.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(abort)
        return
    with contextlib.suppress(RuntimeError):
        abort()
    # Of a loop that is closed, a transport cannot close its socket any more, and would complain.
    bottom: Any = getattr(getattr(transport, "_ssl_protocol", None), "_transport", None) or transport
    if (found := getattr(bottom, "_sock", None)) is not None:
        bottom._sock = None  # noqa: SLF001
        found.close()


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
