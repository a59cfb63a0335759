"""Job ids: UUID version 7 (RFC 9562), as 32 hexadecimal digits.

They sort by the time of their making, are known before anything is sent, and hold 62 random bits and a counter, so
they can be made anywhere and not be guessed.
"""

from __future__ import annotations

import os
import threading
import time
from hashlib import blake2b

__all__ = ["IdSource", "child_id"]

_COUNTER_BITS = 12


class IdSource:
    """Makes ids; one per app. Safe to call from any thread.

    Within a millisecond the 12-bit field `rand_a` counts (RFC 9562, section 6.2, method 1), so ids of one process
    are strictly increasing; when it overflows, the millisecond is taken from the future.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        self._pool = b""
        self._position = 0
        self._pid = 0

    def __call__(self) -> str:
        """A new id."""
        with self._lock:
            stamp = (time.time_ns() // 1_000_000) << _COUNTER_BITS
            if stamp <= self._last:
                stamp = self._last + 1
            self._last = stamp
            position = self._position
            if position >= len(self._pool) or self._pid != os.getpid():
                # A forked child must not repeat its parent's randomness.
                self._pool, self._pid, position = os.urandom(4096), os.getpid(), 0
            self._position = position + 8
            random = int.from_bytes(self._pool[position : position + 8], "big")
        return f"{stamp >> 12:012x}7{stamp & 0xFFF:03x}{random & 0x3FFFFFFFFFFFFFFF | 0x8000000000000000:016x}"


def child_id(parent: str, role: str) -> str:
    """The id of a job that follows from `parent`: the same parent and role always give the same id.

    A repeated step is thus recognised by the broker as one it already has. The parent's time stays in front, so that
    ids keep their order.
    """
    digest = blake2b(f"{parent}/{role}".encode(), digest_size=10).hexdigest()
    return f"{parent[:12]}8{digest[:3]}8{digest[4:19]}"
