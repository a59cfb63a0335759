"""The messages that may be taken now: a deque for each queue and priority."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from camora.builtin.memory.entries import Entry
from camora.interfaces.broker import JobState

__all__ = ["Ready"]

_READY = JobState.READY
_IDLE_QUEUES = 1000
_FEW = 64


class _Queue:
    """One queue. `gone` counts the removed entries that its deques still hold."""

    __slots__ = ("gone", "lanes")

    def __init__(self) -> None:
        self.lanes: dict[int, deque[Entry]] = {}
        self.gone = 0


class Ready:
    """All queues' ready messages. Every method is called under the store's lock."""

    def __init__(self) -> None:
        self._queues: dict[str, _Queue] = {}
        self.paused: set[str] = set()

    def lane(self, queue: str, priority: int) -> deque[Entry]:
        """The deque to append to."""
        found = self._queues.get(queue)
        if found is None:
            if len(self._queues) >= _IDLE_QUEUES:
                # Queues named after something short-lived must not pile up.
                self._queues = {name: queue for name, queue in self._queues.items() if any(queue.lanes.values())}
            found = self._queues[queue] = _Queue()
        lane = found.lanes.get(priority)
        if lane is None:
            # Most urgent first, so that taking looks at them in order.
            found.lanes[priority] = lane = deque()
            found.lanes = dict(sorted(found.lanes.items(), reverse=True))
        return lane

    def put_back(self, entries: list[Entry]) -> None:
        """To the front, in their old order: they have waited longest."""
        for entry in sorted(entries, key=_order, reverse=True):
            self.lane(entry.envelope.queue, entry.envelope.priority).appendleft(entry)

    def take(self, queues: Iterable[str], limit: int) -> list[Entry]:
        """Up to `limit` entries, the most urgent first, then the oldest, over all these queues that are not paused."""
        lanes = self._open_lanes(queues)
        taken: list[Entry] = []
        if len(lanes) == 1:
            self._drain(lanes[0][1], limit, taken)
            return taken
        while lanes and len(taken) < limit:
            urgent = max(priority for priority, _ in lanes)
            level = [lane for priority, lane in lanes if priority == urgent]
            lanes = [pair for pair in lanes if pair[0] != urgent]
            if len(level) == 1:
                self._drain(level[0], limit, taken)
            else:
                self._merge(level, limit, taken)
        return taken

    def _open_lanes(self, queues: Iterable[str]) -> list[tuple[int, deque[Entry]]]:
        lanes = []
        for name in queues:
            queue = self._queues.get(name)
            if queue is None or name in self.paused:
                continue
            if len(queue.lanes) > _FEW:
                queue.lanes = {priority: lane for priority, lane in queue.lanes.items() if lane}
            lanes.extend([pair for pair in queue.lanes.items() if pair[1]])
        return lanes

    def _drain(self, lane: deque[Entry], limit: int, taken: list[Entry]) -> None:
        pop = lane.popleft
        missing = limit - len(taken)
        while missing and lane:
            entry = pop()
            if entry.state is _READY:
                taken.append(entry)
                missing -= 1
            else:
                self._queues[entry.envelope.queue].gone -= 1

    def _merge(self, lanes: list[deque[Entry]], limit: int, taken: list[Entry]) -> None:
        while len(taken) < limit:
            lanes = [lane for lane in lanes if lane]
            if not lanes:
                return
            oldest = min(lanes, key=_head)
            self._drain(oldest, len(taken) + 1, taken)

    def remove(self, entry: Entry) -> None:
        """Forget an entry whose state has just become None; the deques are cleaned when half of them is gone."""
        queue = self._queues[entry.envelope.queue]
        queue.gone += 1
        if queue.gone > _FEW and queue.gone * 2 > sum(map(len, queue.lanes.values())):
            for lane in queue.lanes.values():
                kept = [entry for entry in lane if entry.state is _READY]
                lane.clear()
                lane.extend(kept)
            queue.gone = 0

    def clear(self, queue: str) -> Iterator[Entry]:
        """Empty one queue, giving out what was in it."""
        found = self._queues.pop(queue, None)
        if found is not None:
            for lane in found.lanes.values():
                yield from (entry for entry in lane if entry.state is _READY)


def _order(entry: Entry) -> int:
    return entry.order


def _head(lane: deque[Entry]) -> int:
    return lane[0].order
