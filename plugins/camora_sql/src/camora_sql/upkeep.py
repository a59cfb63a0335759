"""Work that is to be done now and then, beside what somebody waits for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from camora.errors import BrokerUnavailable

from camora_sql.link import Link
from camora_sql.session import Session

__all__ = ["Upkeep"]

logger = logging.getLogger("camora.sql")

_EVERY = 5.0
"""Seconds between two looks."""


class Upkeep:
    """For one event loop: whatever uses the store asks it along, so that it is done where there are no workers, too."""

    def __init__(self, link: Link, work: Callable[[Session], bool], what: str) -> None:
        self._link = link
        self._work = work
        self._what = what
        self._at = 0.0
        self._told = False
        self._running: asyncio.Future[bool] | None = None

    def perhaps(self) -> None:
        """Begin to do it, if it is time; nobody waits for it. Again at once while the work answers True."""
        now = asyncio.get_running_loop().time()
        if self._running is None and now >= self._at:
            self._at = now + _EVERY
            self._running = self._link.run(self._work)
            self._running.add_done_callback(self._done)

    def _done(self, running: asyncio.Future[bool]) -> None:
        self._running = None
        if running.cancelled():
            return
        error = running.exception()
        if error is None:
            self._told = False
            if running.result():
                self._at = 0.0
        elif not self._told:
            self._told = True
            expected = isinstance(error, BrokerUnavailable)
            logger.warning("the upkeep of %s fails: %s", self._what, error, exc_info=None if expected else error)
