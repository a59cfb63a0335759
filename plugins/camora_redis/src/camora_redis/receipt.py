"""What a delivery is settled by."""

from __future__ import annotations

import msgspec

__all__ = ["Receipt"]


class Receipt(msgspec.Struct, gc=False, frozen=True, eq=True):
    """An entry of the stream of a priority, and how often it had been taken: nobody else has the two alike."""

    priority: int
    entry: str
    taken: int
    key: str = ""
    key_ttl: float = 0.0
