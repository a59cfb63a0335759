"""A limit that holds across all workers, as a value."""

from __future__ import annotations

import msgspec

__all__ = ["Limit"]


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One limit, shared by all who ask under its `name`.

    With `per` (seconds) it is a rate: at most `most` grants in any `per` seconds. With `per=0` it is a number of
    slots: at most `most` holders at once.
    """

    name: str
    most: int
    per: float = 0.0
