"""Who is due when, soonest first."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterator
from typing import Any, Generic, TypeVar

__all__ = ["Deadlines"]

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """One time for each key. All is O(log n), of those that are set: what was dropped is cleaned away in time."""

    __slots__ = ("_count", "_heap", "_times")

    def __init__(self) -> None:
        self._times: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._count = 0  # keys need not have an order

    def __len__(self) -> int:
        return len(self._times)

    def __contains__(self, key: Any) -> bool:
        return key in self._times

    def set(self, key: K, when: float) -> None:
        """Set, or move."""
        self._times[key] = when
        self._count += 1
        heapq.heappush(self._heap, (when, self._count, key))
        if len(self._heap) > 2 * len(self._times) + 64:
            self._rebuild()

    def drop(self, key: K) -> None:
        """Forget it, if it is there."""
        self._times.pop(key, None)

    def first(self) -> float | None:
        """The soonest."""
        heap = self._heap
        times = self._times
        while heap:
            when, _, key = heap[0]
            if times.get(key) == when:
                return when
            heapq.heappop(heap)
        return None

    def due(self, now: float) -> Iterator[K]:
        """Take out all whose time has come."""
        while (when := self.first()) is not None and when <= now:
            _, _, key = heapq.heappop(self._heap)
            del self._times[key]
            yield key

    def _rebuild(self) -> None:
        self._heap = [(when, number, key) for number, (key, when) in enumerate(self._times.items())]
        self._count = len(self._heap)
        heapq.heapify(self._heap)
