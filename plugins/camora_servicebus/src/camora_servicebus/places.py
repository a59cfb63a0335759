"""Where dead letters lay when somebody looked through all of them: whoever goes on from there need not look again."""

from __future__ import annotations

import bisect
import time
from collections.abc import Iterator, Sequence

__all__ = ["Place", "Places"]

Place = tuple[str, int]
"""Entity and sequence number."""
_KEPT = 60.0
"""Seconds after the last use."""
_MOST = 200_000


class Places:
    """Of one look at the letters of a queue, or of all. What has come or gone since then is not known here."""

    def __init__(self, queue: str | None) -> None:
        self._queue = queue
        self._by_id: dict[str, list[Place]] = {}
        self._ids: list[str] = []
        self._used = time.monotonic()
        self._full = False

    def note(self, job_id: str, entity: str, number: int) -> None:
        """One letter."""
        if len(self._by_id) < _MOST:
            self._by_id.setdefault(job_id, []).append((entity, number))
        else:
            self._full = True

    def end(self) -> None:
        """That was the last one."""
        self._ids = [] if self._full else sorted(self._by_id)

    def serves(self, queue: str | None) -> bool:
        """Whether it can answer for this queue, or for all: if it is not too old, and was not too large."""
        return queue == self._queue and not self._full and self._fresh()

    def _fresh(self) -> bool:
        now = time.monotonic()
        fresh = now - self._used < _KEPT
        if fresh:
            self._used = now
        return fresh

    def of(self, job_id: str) -> Sequence[Place]:
        """Where the letters of one job were, in their order; none where it is not known."""
        return self._by_id.get(job_id, ()) if self._fresh() else ()

    def after(self, job_id: str, at_once: int) -> Iterator[list[Place]]:
        """Places of letters with greater ids, in order of id, so many at once."""
        begin = bisect.bisect_right(self._ids, job_id)
        for start in range(begin, len(self._ids), at_once):
            yield [place for one in self._ids[start : start + at_once] for place in self._by_id[one]]
