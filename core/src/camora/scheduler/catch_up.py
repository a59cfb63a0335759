"""Which of the ticks that have come are fired: a function of the schedule and the moment alone.

Whoever repeats a fire that somebody else began must come to the same ticks, or else jobs would be doubled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from camora.interfaces.schedule import CatchUp, Trigger
from camora.schedules.ticks import next_tick

__all__ = ["BATCH", "LATE", "MOST", "ticks_to_fire"]

LATE = 60_000
"""Milliseconds after which a tick counts as missed: longer than it takes to replace a killed scheduler."""
MOST = 1000
"""Missed ticks that `all` makes up for; what is older is left out."""
BATCH = 100
"""Ticks fired under one lease."""


def ticks_to_fire(trigger: Trigger, due: int, now: int, catch_up: CatchUp) -> tuple[list[int], int | None]:
    """The ticks to fire of those from `due` to `now`, and the one that comes next: not after `now` if more are due."""
    if catch_up == "all":
        return _all(trigger, due, now)
    if catch_up == "none" and due < now - LATE:
        in_time = next_tick(trigger, now - LATE - 1)
        fired = [] if in_time is None or in_time > now else [in_time]
    else:
        fired = [due]
    return fired, next_tick(trigger, now)


def _all(trigger: Trigger, due: int, now: int) -> tuple[list[int], int | None]:
    tick: int | None = _oldest_wanted(trigger, due, now)
    fired: list[int] = []
    while tick is not None and tick <= now and len(fired) < BATCH:
        fired.append(tick)
        tick = next_tick(trigger, tick)
    return fired, tick


def _oldest_wanted(trigger: Trigger, due: int, now: int) -> int:
    """The first of the last `MOST` ticks; found from the near end, because there may be millions at the far one."""
    span = LATE
    while now - span > due and _count(trigger, now - span, now) < MOST:
        span *= 2
    if now - span <= due and _count(trigger, due, now) < MOST:
        return due
    last: deque[int] = deque(_between(trigger, max(now - span, due), now), maxlen=MOST)
    return last[0]


def _count(trigger: Trigger, after: int, until: int) -> int:
    """How many ticks there are in between, not counted beyond `MOST`."""
    return sum(1 for _, _ in zip(range(MOST), _between(trigger, after, until), strict=False))


def _between(trigger: Trigger, after: int, until: int) -> Iterator[int]:
    tick = next_tick(trigger, after)
    while tick is not None and tick <= until:
        yield tick
        tick = next_tick(trigger, tick)
