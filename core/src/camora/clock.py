"""Time as a thing that is handed in, so that tests travel in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol, runtime_checkable

__all__ = ["SYSTEM_CLOCK", "Clock", "MovableClock", "SystemClock", "seconds", "to_epoch_ms"]


class Clock(Protocol):
    """Where all of Camora reads the time."""

    def now_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC: for moments that travel."""

    def monotonic(self) -> float:
        """Seconds that never run backwards: for durations on this machine."""


@runtime_checkable
class MovableClock(Clock, Protocol):
    """A clock that somebody moves. Who waits for one of its moments asks to be told, instead of sleeping real time."""

    def watch(self, moved: Callable[[], None]) -> Callable[[], None]:
        """Call `moved`, in the thread that moves the clock, after each move, until the returned function is called."""


class SystemClock:
    """The machine's own time."""

    def now_ms(self) -> int:
        """Milliseconds since the epoch, by the wall clock."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds by `time.monotonic`."""
        return time.monotonic()


SYSTEM_CLOCK = SystemClock()


def seconds(value: float | timedelta) -> float:
    """A duration, given as seconds or `timedelta`, in seconds."""
    return value.total_seconds() if isinstance(value, timedelta) else float(value)


def to_epoch_ms(moment: datetime) -> int:
    """An aware moment as milliseconds since the epoch.

    Raises `ValueError` for a naive datetime: whose midnight it means cannot be known.
    """
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise ValueError(
            f"{moment!r} has no time zone; give an aware datetime, for example datetime.now(UTC) + timedelta(hours=1)"
        )
    return round((moment - datetime.fromtimestamp(0, UTC)).total_seconds() * 1000)
