"""Work in the background that nothing but its owner ends."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

__all__ = ["Lasting"]

_PAUSE = 0.1
"""Seconds until what has failed begins anew."""

logger = logging.getLogger("camora.redis")


class Lasting:
    """Runs `what()` in a task, and again when that ends: jobs may cancel every task they can find.

    Belongs to the event loop in which it is started.
    """

    def __init__(self, what: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._what = what
        self._task: asyncio.Task[None] | None = None
        self._again: asyncio.TimerHandle | None = None
        self.running = False
        """True from its start to its stop."""

    def start(self) -> None:
        """Begin."""
        self.running = True
        self._begin()

    def _begin(self) -> None:
        self._again = None
        self._task = asyncio.get_running_loop().create_task(self._what())
        self._task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            logger.error("this failed, and begins anew", exc_info=error)
        if self.running:
            self._again = task.get_loop().call_later(_PAUSE, self._begin)

    async def stop(self) -> None:
        """End it, and wait until it has ended. May be repeated."""
        self.running = False
        if self._again is not None:
            self._again.cancel()
        while self._task is not None and not self._task.done():
            # Not only once: the redis client swallows some cancellations while it opens a connection.
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_PAUSE)
