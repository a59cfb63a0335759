"""From the times on a wall clock to moments: what daylight saving time does to a pattern, said once for all patterns.

A pattern that names hours means those times of a day. Each of them comes exactly once: a time that the clock skips
comes at the first moment after the gap (several skipped ones come there together, as one), and a time that the clock
shows twice comes at the first.

A pattern that leaves the hour open runs on through: it comes at every moment at which the clock shows a matching time.
In a gap the clock shows nothing, and a repeated hour counts again.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Protocol
from zoneinfo import ZoneInfo

__all__ = ["Pattern", "next_moment"]

_HORIZON = timedelta(hours=26)
"""No zone's clock is ever turned by more, and none is turned twice within it."""
_SECOND = timedelta(seconds=1)


class Pattern(Protocol):
    """Times on a wall clock, as naive datetimes."""

    @property
    def names_hours(self) -> bool:
        """False when it matches in every hour alike."""

    def after(self, wall: datetime) -> datetime | None:
        """The first matching time strictly after this one; None when there is none any more."""


def next_moment(pattern: Pattern, zone: ZoneInfo, moment: datetime) -> datetime | None:
    """The first moment strictly after an aware one at which the pattern comes, in UTC."""
    moment = moment.astimezone(UTC)
    try:
        if pattern.names_hours:
            return _next_named(pattern, zone, moment)
        return _next_shown(pattern, zone, moment)
    except OverflowError:  # beyond the year 9999
        return None


def _next_named(pattern: Pattern, zone: ZoneInfo, moment: datetime) -> datetime | None:
    wall = pattern.after(_wall(moment, zone))
    while wall is not None:
        came = _first(wall, zone)
        if came > moment:
            return came
        # Shown for the second time, or one of several that came together after a gap.
        wall = pattern.after(wall)
    return None


def _next_shown(pattern: Pattern, zone: ZoneInfo, moment: datetime) -> datetime | None:
    wall = pattern.after(_wall(moment, zone))
    ahead: datetime | None = None
    while wall is not None:
        ahead = next((shown for shown in _shown(wall, zone) if shown > moment), None)
        if ahead is not None:
            break
        wall = pattern.after(wall)
    horizon = moment + _HORIZON if ahead is None else min(ahead, moment + _HORIZON)
    if _offset(horizon, zone) >= _offset(moment, zone):
        return ahead
    # The clock is set back in between: what it shows from there on may be earlier times than it shows now.
    back = _turn(moment, horizon, zone)
    again = pattern.after(_wall(back, zone) - _SECOND)
    repeated = again and next((shown for shown in _shown(again, zone) if shown >= back), None)
    return min((found for found in (ahead, repeated) if found is not None), default=None)


def _wall(moment: datetime, zone: ZoneInfo) -> datetime:
    return moment.astimezone(zone).replace(tzinfo=None, fold=0)


def _offset(moment: datetime, zone: ZoneInfo) -> timedelta:
    return moment.astimezone(zone).utcoffset() or timedelta(0)


def _readings(wall: datetime, zone: ZoneInfo) -> tuple[datetime, datetime]:
    """The moments that a wall time stands for, by the offsets before and after a turn of the clock."""
    before, after = (wall.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    return before, after


def _shown(wall: datetime, zone: ZoneInfo) -> list[datetime]:
    """The moments at which the clock shows this time, in order: one, two, or none."""
    before, after = _readings(wall, zone)
    if before == after:
        return [before]
    return [before, after] if before < after else []


def _first(wall: datetime, zone: ZoneInfo) -> datetime:
    """The moment at which this time comes: the first at which it is shown, or else the end of the gap it lies in."""
    before, after = _readings(wall, zone)
    return before if before <= after else _turn(after, before, zone)


def _turn(early: datetime, late: datetime, zone: ZoneInfo) -> datetime:
    """The moment in between from which on the clock has another offset than at `early`; turns are at whole seconds."""
    offset = _offset(early, zone)
    early, seconds = early.replace(microsecond=0), 0
    first, last = 1, int((late - early) / _SECOND) + 1
    while first < last:
        seconds = (first + last) // 2
        if _offset(early + seconds * _SECOND, zone) == offset:
            first = seconds + 1
        else:
            last = seconds
    return early + first * _SECOND
