"""SIGTERM and SIGINT, for a worker that runs in the main thread."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any, Self

__all__ = ["Repeats", "StopSignals"]

_SAME = {signal.SIGTERM: 1.0}


class Repeats:
    """Tells a signal that is meant from one that only came twice.

    SIGTERM twice within a second counts once: service managers send it to every process of a group, and the supervisor
    passes its own on. `now` is monotonic seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last: dict[int, float] = {}

    def counts(self, number: int) -> bool:
        """False for a repetition. May be called from a signal handler."""
        now, last = self._now(), self._last.get(number)
        if last is not None and now - last < _SAME.get(signal.Signals(number), 0.0):
            return False
        self._last[number] = now
        return True


class StopSignals:
    """Inside the block, both signals call `stop` in the loop that runs now.

    The second one also calls `insisted` at once, though the loop be blocked: from a signal handler, so that it may only
    do what is safe there.
    """

    def __init__(self, stop: Callable[[], None], insisted: Callable[[], None] | None = None) -> None:
        self._stop = stop
        self._insisted = insisted
        self._count = 0
        self._repeats = Repeats()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()

        # A plain handler, not the loop's: it is called while a job blocks the loop, too.
        def signalled(number: int, frame: FrameType | None) -> None:
            del frame
            if not self._repeats.counts(number):
                return
            self._count += 1
            loop.call_soon_threadsafe(self._stop)
            if self._count == 2 and self._insisted is not None:
                self._insisted()

        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError):  # not in the main thread
                self._before[number] = signal.signal(number, signalled)
        return self

    def ignore_from_now_on(self) -> None:
        """The process is about to end by itself: after the block nothing is to be told any more, and nothing killed."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)
        self._before.clear()

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
