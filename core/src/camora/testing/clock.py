"""A clock that stands still until a test moves it."""

from __future__ import annotations

import threading
from collections.abc import Callable

__all__ = ["VirtualClock"]

_MICROSECONDS = 1_000_000


class VirtualClock:
    """A `MovableClock`. Safe to read and to move from any thread."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self._start = now_ms
        # Whole microseconds: years of small steps add up to what they should.
        self._passed = 0
        self._lock = threading.Lock()
        self._watchers: dict[object, Callable[[], None]] = {}

    def now_ms(self) -> int:
        """Milliseconds since the epoch, as far as this clock was moved."""
        return self._start + self._passed // 1000

    def monotonic(self) -> float:
        """Seconds since this clock was made."""
        return self._passed / _MICROSECONDS

    def advance(self, seconds: float) -> None:
        """Move on, and tell all who wait for it. Raises `ValueError` for a step back."""
        if seconds < 0:
            raise ValueError(f"a clock cannot be moved back (by {seconds} s)")
        with self._lock:
            self._passed += round(seconds * _MICROSECONDS)
            watchers = list(self._watchers.values())
        for moved in watchers:
            moved()

    def watch(self, moved: Callable[[], None]) -> Callable[[], None]:
        """Call `moved` after each move, until the returned function is called."""
        token = object()
        with self._lock:
            self._watchers[token] = moved

        def unwatch() -> None:
            with self._lock:
                self._watchers.pop(token, None)

        return unwatch
