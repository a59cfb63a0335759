"""Word that something has changed, from whoever has changed it to all who listen."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any

from pamqp import commands

from camora_amqp.errors import Refused, WireLost
from camora_amqp.link import connect
from camora_amqp.store import Store
from camora_amqp.wire import Wire

__all__ = ["News"]

_PAUSES = (0.05, 2.0)
"""Seconds until the next try to connect: at first, and at most."""


class News:
    """Listens to a fan-out exchange by a queue of its own, from the first `wait` on. Belongs to one event loop.

    A connection that was lost may have missed something: what is heard first after it is that there is news.
    """

    def __init__(self, store: Store, exchange: str) -> None:
        self._store = store
        self._exchange = exchange
        self._heard = asyncio.Event()
        self._listening: asyncio.Task[None] | None = None
        self._wire: Wire | None = None

    async def wait(self, timeout: float) -> None:
        """Return at the first news since the last call, at the latest after so many seconds."""
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._heard.wait()
        self._heard.clear()

    async def _listen(self) -> None:
        pause = _PAUSES[0]
        while True:
            with contextlib.suppress(WireLost, Refused):
                wire = self._wire = await connect(self._store, purpose="schedules")
                try:
                    await self._subscribe(wire)
                    self._heard.set()
                    pause = _PAUSES[0]
                    await asyncio.shield(wire.closed)
                finally:
                    wire.fail(WireLost("closed"))
            await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 -- jitter
            pause = min(pause * 2, _PAUSES[1])

    async def _subscribe(self, wire: Wire) -> None:
        channel = await wire.channel()
        channel.on_deliver = lambda _: self._heard.set()
        channel.on_close = lambda error: wire.fail(WireLost(str(error)))
        channel.on_cancel = lambda tag: wire.fail(WireLost(f"{tag} was cancelled"))
        nothing: dict[str, Any] = {}
        await channel.call(commands.Exchange.Declare(0, self._exchange, "fanout", False, True))
        made = await channel.call(commands.Queue.Declare(0, "", False, False, True, True, False, nothing))
        await channel.call(commands.Queue.Bind(0, made.queue, self._exchange, "", False, nothing))
        await channel.call(commands.Basic.Consume(0, made.queue, "camora", False, True, True, False, nothing))

    def abandon(self) -> None:
        """Let go of the socket of a loop that is gone."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.abandon()

    async def close(self) -> None:
        """Stop listening. May be repeated."""
        listening, self._listening = self._listening, None
        if listening is not None:
            if self._wire is not None:
                await self._wire.close()
            listening.cancel()
            await asyncio.wait([listening])
