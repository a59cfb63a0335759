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

_COUNTS = [f"{count:03x}" for count in range(0x1000)]
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


class IdSource:
    """Makes ids; one per app. Safe to call from any thread.

    Within a millisecond the 12-bit field `rand_a` counts (RFC 9562, section 6.2, method 1), so ids of one process
    are strictly increasing; when it overflows, the millisecond is taken from the future.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ms = 0
        self._head = ""
        self._counter = 0
        self._pool = ""
        self._position = 0
        self._pid = 0

    def __call__(self) -> str:
        """A new id."""
        with self._lock:
            ms = time.time_ns() // 1_000_000
            counter = self._counter + 1
            if ms > self._ms:
                self._ms, self._head, counter = ms, f"{ms:012x}7", 0
            elif counter > 0xFFF:
                self._ms += 1
                self._head, counter = f"{self._ms:012x}7", 0
            self._counter = counter
            position = self._position
            if position >= len(self._pool) or self._pid != os.getpid():
                # A forked child must not repeat its parent's randomness.
                self._pool, self._pid, position = os.urandom(4096).hex(), os.getpid(), 0
            self._position = position + 16
            tail = self._pool[position + 1 : position + 16]
            return f"{self._head}{_COUNTS[counter]}{_VARIANT[self._pool[position]]}{tail}"


def child_id(parent: str, role: str) -> str:
    """The id of a job that follows from `parent`: the same parent and role always give the same id.

    A repeated step is thus recognised by the broker as one it already has. The parent's time stays in front, so that
    ids keep their order.
    """
    digest = blake2b(f"{parent}/{role}".encode(), digest_size=10).hexdigest()
    return f"{parent[:12]}8{digest[:3]}8{digest[4:19]}"
