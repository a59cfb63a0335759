"""Counting grants in a sliding window, in a small state that any store can keep.

An exact window remembers every grant of its length; here grants are counted in buckets of a hundredth of it, and a
bucket counts until the last moment it can hold has left the window. So there are never more than `most` grants in any
`per` seconds, at most 101 pairs of numbers are kept, and the price is that a place comes free up to a hundredth late.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["Window", "admit", "granted_now", "used"]

Window = Sequence[tuple[int, int]]
"""(number of the bucket, grants in it), oldest first."""

_BUCKETS = 100


def _bucket_length(per: float) -> int:
    return max(1, math.ceil(per * 1000 / _BUCKETS))


def _alive(window: Window, now: int, per: float) -> list[tuple[int, int]]:
    length, span = _bucket_length(per), math.ceil(per * 1000)
    return [(bucket, count) for bucket, count in window if (bucket + 1) * length + span > now]


def used(window: Window, now: int, per: float) -> int:
    """How many grants may still lie in the window that ends at `now` (milliseconds on the store's clock)."""
    return sum(count for _, count in _alive(window, now, per))


def admit(window: Window, now: int, *, most: int, per: float) -> tuple[list[tuple[int, int]], float]:
    """One more grant at `now` (milliseconds): the window after it, and 0.0; or the window, and the seconds to wait.

    A clock that was set back is taken to stand still: what was granted in its future counts until that has come.
    """
    alive = _alive(window, now, per)
    over = sum(count for _, count in alive) - most
    length, span = _bucket_length(per), math.ceil(per * 1000)
    if over < 0:
        bucket = now // length
        if alive and alive[-1][0] >= bucket:
            last, count = alive[-1]
            alive[-1] = (last, count + 1)
        else:
            alive.append((bucket, 1))
        return alive, 0.0
    for bucket, count in alive:
        over -= count
        if over < 0:
            return alive, ((bucket + 1) * length + span - now) / 1000
    raise AssertionError("a window that is full holds at least one grant")


def granted_now(count: int, now: int, *, per: float) -> list[tuple[int, int]]:
    """A window in which so much was granted at `now`: what is assumed where the moments themselves say nothing.

    So there are never too many grants; the price is a wait of one window.
    """
    return [(now // _bucket_length(per), count)] if count else []
