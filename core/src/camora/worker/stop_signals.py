"""SIGTERM and SIGINT, for a worker that runs in the main thread."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable

__all__ = ["StopSignals"]

_SAME = 1.0


class StopSignals:
    """Inside the block, both signals call `stop`; SIGTERM twice within a second counts once.

    Service managers send it to every process of a group, and the supervisor passes its own on.
    """

    def __init__(self, stop: Callable[[], None]) -> None:
        self._stop = stop
        self._last: float | None = None
        self._installed: list[int] = []

    def _signalled(self, number: int) -> None:
        now = time.monotonic()
        if number == signal.SIGTERM and self._last is not None and now - self._last < _SAME:
            return
        self._last = now
        self._stop()

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
                loop.add_signal_handler(number, self._signalled, number)
                self._installed.append(number)

    def __exit__(self, *_: object) -> None:
        loop = asyncio.get_running_loop()
        for number in self._installed:
            loop.remove_signal_handler(number)
