"""The list of all queues' names, told again to a server that may have lost it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from camora_redis.calling import answered
from camora_redis.link import Link
from camora_redis.scripting import script

__all__ = ["Roll"]

_ENLIST = script("enlist")
_PAUSE = 0.5
"""Seconds until a server that is away is tried again."""


class Roll:
    """Makes queues known, and does so again whenever the connection to the list of them has ended.

    A server that comes back, or another one in its place, may have lost the list. Belongs to one event loop.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._queues: set[str] = set()
        self._telling: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self._closed = False

    def keep(self, queues: Iterable[str]) -> None:
        """See to it from now on that these are known."""
        new = set(queues) - self._queues
        self._queues |= new
        if new and self._telling is None and self._again is None:
            self._begin()

    def _begin(self) -> None:
        self._again = None
        if not self._closed and self._telling is None:
            self._telling = asyncio.get_running_loop().create_task(self._tell())
            self._telling.add_done_callback(self._told)

    async def _tell(self) -> None:
        name = self._link.store.keys.queues
        wire = await self._link.wire(name)
        await answered(self._link, self._link.run(_ENLIST, (name,), *sorted(self._queues)))
        wire.when_ended(self._begin)

    def _told(self, task: asyncio.Task[None]) -> None:
        self._telling = None
        # Jobs may cancel every task they can find.
        if (task.cancelled() or task.exception() is not None) and not self._closed:
            self._again = task.get_loop().call_later(_PAUSE, self._begin)

    async def close(self) -> None:
        """Tell no more. May be repeated."""
        self._closed = True
        if self._again is not None:
            self._again.cancel()
        while self._telling is not None and not self._telling.done():
            # Not only once: the redis client swallows some cancellations while it opens a connection.
            self._telling.cancel()
            await asyncio.wait([self._telling], timeout=_PAUSE)
