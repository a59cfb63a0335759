"""Waiting for a store that is away for a moment."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from camora.errors import BrokerUnavailable
from camora.interfaces import Host

__all__ = ["patiently"]

R = TypeVar("R")

_FIRST, _MOST = 0.05, 1.0
"""Seconds between two tries: at first, and at most."""


async def patiently(host: Host, step: Callable[[], Awaitable[R]]) -> R:
    """Try a step that may be repeated for as long as a dispatch may take; then raise `BrokerUnavailable`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + host.settings.dispatch_timeout
    pause = _FIRST
    while True:
        try:
            return await step()
        except BrokerUnavailable:
            wait = random.uniform(0.5, 1) * pause  # noqa: S311 -- jitter
            if loop.time() + wait >= deadline:
                raise
            await asyncio.sleep(wait)
            pause = min(2 * pause, _MOST)
