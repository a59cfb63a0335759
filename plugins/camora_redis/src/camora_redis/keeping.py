"""How long keys are kept, as the server wants it."""

from __future__ import annotations

__all__ = ["kept"]

_LONGEST = 100 * 366 * 24 * 3600 * 1000
"""Milliseconds: the server refuses moments that it cannot reckon."""


def kept(seconds: float) -> int:
    """In milliseconds: not less than one, and not more than a hundred years."""
    return max(1, round(min(seconds * 1000, _LONGEST)))
