"""Being told of commits by the server: LISTEN, over a connection of its own."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from camora_sql.drivers.errors import ServerError
from camora_sql.timing import ServerClock
from camora_sql.wakeup import Topic, Wakeups

__all__ = ["ListeningWakeups"]

_CHECK_EVERY = 5.0
"""Seconds between two questions over the connection, which tell that it lives, and what time it is there."""
_TOPICS = {topic.value: topic for topic in Topic}


class Listener(Protocol):
    """A connection that listens."""

    async def hear(self, seconds: float) -> None:
        """Listen for so long. Raises `ServerError` when the connection is gone."""

    async def ask(self, text: str) -> Any:
        """The first value of a statement's first row. Raises `ServerError`."""

    def abort(self) -> None:
        """Cut it."""


Listen = Callable[[Callable[[str], None]], Awaitable[Listener]]
"""Connects and listens; what is heard goes to the function."""


class ListeningWakeups(Wakeups):
    """Connects when the first subscribes, again when the connection is lost, and keeps it until it is closed."""

    floor = 2.0

    def __init__(self, listen: Listen, moment: str, time: ServerClock) -> None:
        super().__init__()
        self._connect = listen
        self._moment = moment
        self._time = time
        self._listener: Listener | None = None
        self._announced = 0
        self._loop = asyncio.get_running_loop()
        self._keeper: asyncio.Task[None] | None = None

    def _start(self) -> None:
        if self._keeper is None or self._keeper.done():
            self._keeper = self._loop.create_task(self._keep())

    def mark(self) -> object | None:
        """A number, while it listens."""
        return self._announced if self._listener is not None else None

    def _stop(self) -> None:
        """Stays connected: who waits once will wait again."""

    async def _keep(self) -> None:
        pause = 0.05
        while True:
            began = self._loop.time()
            try:
                await self._listen()
            except ServerError:
                # Whoever waits looks by himself meanwhile, and so hears what is wrong.
                pause = 0.1 if self._loop.time() - began > _CHECK_EVERY else min(pause * 2, 5.0)
            await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 -- jitter

    async def _listen(self) -> None:
        listener = self._listener = await self._connect(self._heard)
        try:
            # What was told while nobody listened.
            self._announced += 1
            self.wake()
            while True:
                await self._ask(listener)
                await listener.hear(_CHECK_EVERY)
        finally:
            self._listener = None
            listener.abort()

    async def _ask(self, listener: Listener) -> None:
        sent = self._time.local_ms()
        server = await listener.ask(self._moment)
        self._time.learn(float(server), sent, self._time.local_ms())

    def _heard(self, payload: str) -> None:
        self._announced += 1
        for name in payload.split(","):
            self.wake(_TOPICS.get(name))

    def close(self) -> None:
        """Disconnect."""
        super().close()
        if self._keeper is not None:
            self._keeper.cancel()

    def abandon(self) -> None:
        """Let go without the loop, which is closed."""
        super().abandon()
        if self._listener is not None:
            self._listener.abort()
