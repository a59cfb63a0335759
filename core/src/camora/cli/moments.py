"""Moments and durations as people read them."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["exact", "moment_of", "relative", "span"]

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"))


def span(seconds: float) -> str:
    """A duration in its two largest units: `3 min 20 s`, `2 d 4 h`."""
    seconds = abs(seconds)
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    rest, parts = round(seconds), []
    for length, unit in (*_UNITS, (1, "s")):
        count, rest = divmod(rest, length)
        if count:
            parts.append(f"{count} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def relative(moment: int, now: int) -> str:
    """A moment (ms since the epoch) seen from another one: `in 3 min 20 s`, `5 s ago`."""
    ahead = (moment - now) / 1000
    return f"in {span(ahead)}" if ahead > 0 else f"{span(ahead)} ago"


def exact(moment: int) -> str:
    """A moment (ms since the epoch) in UTC, to the second."""
    return datetime.fromtimestamp(moment / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def moment_of(stamp: int) -> datetime | None:
    """A moment (ms since the epoch) as JSON output has it; None for 0, which is never."""
    return datetime.fromtimestamp(stamp / 1000, UTC) if stamp else None
