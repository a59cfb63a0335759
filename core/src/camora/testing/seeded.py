"""Chance that can be repeated."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from camora.clock import Clock

__all__ = ["SeededIds", "seeded_chance"]


class SeededIds:
    """Job ids as `camora.ids.IdSource` makes them (UUID version 7), from a clock and a seed. Safe in any thread."""

    def __init__(self, clock: Clock, seed: int) -> None:
        self._clock = clock
        self._chance = random.Random(f"camora ids {seed}")  # noqa: S311 -- to be repeated, not to be secret
        self._lock = threading.Lock()
        self._last = 0

    def __call__(self) -> str:
        """A new id, greater than all before."""
        with self._lock:
            # Time and counter in one number: it overflows into the next millisecond by itself.
            self._last = max(self._last + 1, self._clock.now_ms() << 12)
            head = f"{self._last >> 12:012x}7{self._last & 0xFFF:03x}"
            return f"{head}{self._chance.getrandbits(62) | 2 << 62:016x}"


@contextmanager
def seeded_chance(seed: int) -> Iterator[None]:
    """Inside the block, the module `random` (jitter, among others) answers by this seed; afterwards as before."""
    before = random.getstate()
    random.seed(f"camora chance {seed}")
    try:
        yield
    finally:
        random.setstate(before)
