"""The messages that are not due yet."""

from __future__ import annotations

import heapq
import math

from camora.builtin.memory.entries import Entry
from camora.interfaces.broker import JobState

__all__ = ["Delayed"]

_SCHEDULED = JobState.SCHEDULED
_FEW = 64


class Delayed:
    """A heap by due time, over all queues. Every method is called under the store's lock."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Entry]] = []
        self._gone = 0

    def add(self, due: int, entry: Entry) -> bool:
        """Keep it until `due`; True when it is now the first."""
        heapq.heappush(self._heap, (due, entry.order, entry))
        return self._heap[0][2] is entry

    def first_due(self) -> float:
        """When the next one is due, in milliseconds since the epoch; infinity when there is none."""
        return self._heap[0][0] if self._heap else math.inf

    def due(self, now: int) -> list[Entry]:
        """Those that have come due, earliest first; they are no longer kept here."""
        heap, found = self._heap, []
        while heap and heap[0][0] <= now:
            entry = heapq.heappop(heap)[2]
            if entry.state is _SCHEDULED:
                found.append(entry)
            else:
                self._gone -= 1
        return found

    def remove(self) -> None:
        """Note that an entry's state has just become None; the heap is cleaned when half of it is gone."""
        self._gone += 1
        if self._gone > _FEW and self._gone * 2 > len(self._heap):
            self._heap = [item for item in self._heap if item[2].state is _SCHEDULED]
            heapq.heapify(self._heap)
            self._gone = 0

    def clear(self, queue: str) -> list[Entry]:
        """Take out all of one queue."""
        found = [item[2] for item in self._heap if item[2].envelope.queue == queue and item[2].state is _SCHEDULED]
        self._heap = [item for item in self._heap if item[2].envelope.queue != queue and item[2].state is _SCHEDULED]
        heapq.heapify(self._heap)
        self._gone = 0
        return found
