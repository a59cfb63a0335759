"""Waking where the server tells nobody of commits: those of this process at once, those of others by looking.

Whoever waits looks by himself when he is woken; so the pace of waking is the pace of looking: quick while there is
something going on, then slower and slower.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from weakref import WeakSet

from camora_sql.wakeup import Wakeups

__all__ = ["Pace", "PacedWakeups"]

_SHORTEST = 0.005
_LONGEST = 0.2
"""Seconds between two looks."""
_SLOWER = 1.25


class Pace:
    """How often those who wait look, in all event loops of this process. Safe in any thread."""

    def __init__(self) -> None:
        self._watchers: WeakSet[PacedWakeups] = WeakSet()
        self.seconds = _SHORTEST

    def add(self, watcher: PacedWakeups) -> None:
        """It wants to hear of commits."""
        self._watchers.add(watcher)

    def hurry(self) -> None:
        """Something goes on: whoever begins to wait now looks often."""
        self.seconds = _SHORTEST

    def slow(self) -> None:
        """Somebody has looked again."""
        self.seconds = min(_LONGEST, self.seconds * _SLOWER)

    def announce(self) -> None:
        """This process has committed something: have all look now."""
        self.hurry()
        for watcher in self._those():
            watcher.wake_soon()

    def _those(self) -> Iterator[PacedWakeups]:
        # Another thread may add one while they are gone through.
        for _ in range(3):
            with contextlib.suppress(RuntimeError):
                yield from list(self._watchers)
                return


class PacedWakeups(Wakeups):
    """Wakes everybody at a pace. Costs nothing while nobody waits."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        pace.add(self)

    def _start(self) -> None:
        self._timer = self._loop.call_later(self._pace.seconds, self._look)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._pace.slow()
        self._start()
        self.wake()

    def wake_soon(self) -> None:
        """Wake everybody; from any thread."""
        with contextlib.suppress(RuntimeError):  # its loop is closed
            self._loop.call_soon_threadsafe(self._hurry)

    def _hurry(self) -> None:
        if self._timer is not None:
            self._stop()
            self._start()
        self.wake()

    def close(self) -> None:
        """Stop waking."""
        super().close()
        self._stop()
