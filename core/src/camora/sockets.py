"""Sockets of event loops that may be gone: for brokers whose program ends without closing them."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

__all__ = ["let_go"]


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
