"""The way from what happens to who observes it: buffered, in batches, beside the work."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
from collections.abc import Sequence

from camora.interfaces.observer import Event, Observer

__all__ = ["EventBus"]

_PAUSE = 0.05
"""Seconds that events are gathered for."""
_MOST = 10_000
"""Events that wait at most for one observer; the oldest go first, and are counted."""
_PATIENCE = 5.0
"""Seconds an observer may take for a batch."""


class EventBus:
    """Hands events to observers. Safe to `emit` into from any event loop or thread; never blocks, never raises."""

    def __init__(self, observers: Sequence[Observer], *, logger: logging.Logger) -> None:
        self._feeds = [_Feed(observer, logger) for observer in observers]
        self.active = bool(self._feeds)
        """False when nobody observes: then events need not even be made."""

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Who observes."""
        return tuple(feed.observer for feed in self._feeds)

    def emit(self, event: Event) -> None:
        """Take note of an event."""
        for feed in self._feeds:
            feed.put(event)

    async def flush(self) -> None:
        """Wait until everything emitted so far has been shown, or has had its time."""
        await asyncio.gather(*(feed.flush() for feed in self._feeds))

    async def close(self) -> None:
        """Show what is left, and let go of the observers. May be repeated."""
        await self.flush()
        await asyncio.gather(*(feed.close() for feed in self._feeds))


class _Feed:
    """One observer's own buffer, so that a slow one holds nobody back."""

    def __init__(self, observer: Observer, logger: logging.Logger) -> None:
        self.observer = observer
        self._logger = logger
        self._waiting: collections.deque[Event] = collections.deque(maxlen=_MOST)
        self._showing: asyncio.Task[None] | None = None
        self.failures = 0
        """How often it raised or took too long."""
        self.dropped = 0
        """Events that found the buffer full."""

    def put(self, event: Event) -> None:
        if len(self._waiting) == _MOST:
            self.dropped += 1
        self._waiting.append(event)
        if self._showing is None or self._showing.done():
            with contextlib.suppress(RuntimeError):  # no loop here: the next one takes it along
                self._showing = asyncio.get_running_loop().create_task(self._show())

    async def _show(self) -> None:
        while self._waiting:
            await asyncio.sleep(_PAUSE)
            await self._show_batch()

    async def _show_batch(self) -> None:
        batch = list(self._waiting)
        self._waiting.clear()
        try:
            async with asyncio.timeout(_PATIENCE):
                await self.observer.observe(batch)
        except Exception:
            self.failures += 1
            self._logger.exception("observer %s failed; its events of that moment are lost to it", self.observer.name)

    async def flush(self) -> None:
        while self._waiting:
            await self._show_batch()

    async def close(self) -> None:
        try:
            await self.observer.close()
        except Exception:
            self._logger.exception("observer %s could not be closed", self.observer.name)
