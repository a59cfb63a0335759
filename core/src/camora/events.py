"""The way from what happens to who observes it: buffered, in batches, beside the work."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, wait

from camora.clock import SYSTEM_CLOCK, Clock
from camora.feeds import Feed, FeedSettings, ObserverStats
from camora.interfaces.observer import Event, Observer

__all__ = ["EventBus", "FeedSettings", "ObserverStats"]


class EventBus:
    """Hands events to observers. Safe to `emit` into from any event loop or thread; never blocks, never raises."""

    def __init__(
        self,
        observers: Iterable[Observer],
        *,
        logger: logging.Logger,
        clock: Clock = SYSTEM_CLOCK,
        settings: FeedSettings | None = None,
    ) -> None:
        self._settings = settings or FeedSettings()
        self._logger = logger
        self._clock = clock
        self._feeds: list[Feed] = []
        self.active = False
        """False when nobody observes: then events need not even be made."""
        for observer in observers:
            self.add(observer)

    def add(self, observer: Observer) -> None:
        """One more that observes what is emitted from now on; not while others emit."""
        if not self._feeds:
            # A program that ends, or drops its app, without closing it: the last events are shown all the same.
            weakref.finalize(self, _end, self._feeds)
        self._feeds.append(Feed(observer, self._logger, self._clock, self._settings))
        self.active = True

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Who observes."""
        return tuple(feed.observer for feed in self._feeds)

    def emit(self, event: Event) -> None:
        """Take note of an event."""
        for feed in self._feeds:
            feed.put(event)

    def stats(self) -> tuple[ObserverStats, ...]:
        """The counts of each observer."""
        return tuple(feed.stats() for feed in self._feeds)

    async def flush(self) -> bool:
        """Wait until everything emitted so far has been shown, or has had its time.

        Returns within twice `patience`; False when an observer had not come to an end by then.
        """
        return not await self._late([feed.flush() for feed in self._feeds], 2 * self._settings.patience)

    async def close(self) -> None:
        """Show what is left, and let go of the observers; returns within three times `patience`.

        May be repeated. The bus may be used again: the next event begins anew.
        """
        closing = [feed.close() for feed in self._feeds]
        for late in await self._late(closing, 3 * self._settings.patience):
            self._feeds[late].give_up()

    async def _late(self, futures: Sequence[Future[None]], timeout: float) -> list[int]:
        """The places of those that are not done in time."""
        waiting = [asyncio.wrap_future(future) for future in futures if not future.done()]
        try:
            if waiting:
                await asyncio.wait(waiting, timeout=timeout)
        finally:
            for one in waiting:
                one.cancel()  # only the wrapping: nobody will be there to be told later
        return [place for place, future in enumerate(futures) if not future.done()]


def _end(feeds: Sequence[Feed]) -> None:
    """Show what is left, within a second."""
    with contextlib.suppress(Exception):  # an interpreter that is ending has no more threads to give
        wait([feed.close() for feed in feeds if feed.alive], timeout=1.0)
