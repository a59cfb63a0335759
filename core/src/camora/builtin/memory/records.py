"""The records of jobs: kept for their time, first finished one wins, waiters are told."""

from __future__ import annotations

from collections import deque
from itertools import islice

from camora.builtin.memory.waiting import Waiter
from camora.outcome import JobRecord, Status

__all__ = ["Records", "Wakes"]

Wakes = list[tuple[Waiter[JobRecord], JobRecord | None]]

_Slot = tuple[float, JobRecord]
_FINISHED = frozenset(status for status in Status if status.finished)


class _Shelf:
    """Records by id, each with the moment its time is over; at most `most` of them, then the oldest goes.

    Records of one `ttl` end in the order they came in, so that a deque for each `ttl` finds the next to end.
    """

    __slots__ = ("_by_ttl", "_most", "_size", "slots")

    def __init__(self, most: int) -> None:
        self.slots: dict[str, _Slot] = {}
        self._by_ttl: dict[float, deque[_Slot]] = {}
        self._most = most
        self._size = 0

    def put(self, record: JobRecord, now: float) -> None:
        """Keep it, in place of an older one."""
        ttl = record.ttl
        slot = (now + ttl, record)
        self.slots[record.id] = slot
        ends = self._by_ttl.get(ttl)
        if ends is None:
            ends = self._by_ttl[ttl] = deque()
        ends.append(slot)
        self._size += 1
        if self._size > self._most:
            self._drop(ends if len(self._by_ttl) == 1 else max(self._by_ttl.values(), key=len))
        # One look for each one put: what has ended goes as fast as new records come.
        if ends[0][0] <= now:
            self._sweep(now)

    def get(self, job_id: str, now: float) -> JobRecord | None:
        """The record, if its time is not over."""
        slot = self.slots.get(job_id)
        return None if slot is None or slot[0] <= now else slot[1]

    def pop(self, job_id: str, now: float) -> bool:
        """Delete it; True when there was one."""
        slot = self.slots.pop(job_id, None)
        return slot is not None and slot[0] > now

    def _drop(self, ends: deque[_Slot]) -> None:
        slot = ends.popleft()
        self._size -= 1
        job_id = slot[1].id
        if self.slots.get(job_id) is slot:
            del self.slots[job_id]

    def _sweep(self, now: float) -> None:
        for ttl, ends in list(self._by_ttl.items()):
            while ends and ends[0][0] <= now:
                self._drop(ends)
            if not ends:
                del self._by_ttl[ttl]


class Records:
    """Finished and unfinished records, apart, so that progress never pushes a result out.

    Every method is called under the store's lock; `put` answers with whom to wake afterwards.
    """

    def __init__(self, most: int) -> None:
        self._finished = _Shelf(most)
        self._unfinished = _Shelf(most)
        self._waiters: dict[str, set[Waiter[JobRecord]]] = {}

    def put(self, record: JobRecord, now: float, wakes: Wakes) -> None:
        """Keep a record, unless the job has a finished one already."""
        finished = self._finished
        if record.id in finished.slots and finished.get(record.id, now) is not None:
            return
        if record.status not in _FINISHED:
            self._unfinished.put(record, now)
            return
        finished.put(record, now)
        if self._unfinished.slots:
            self._unfinished.slots.pop(record.id, None)
        if self._waiters:
            wakes.extend((waiter, record) for waiter in self._waiters.pop(record.id, ()))

    def get(self, job_id: str, now: float) -> JobRecord | None:
        """The finished record, else the unfinished one."""
        return self._finished.get(job_id, now) or self._unfinished.get(job_id, now)

    def forget(self, job_id: str, now: float) -> bool:
        """Delete what is known; True when there was anything."""
        # Both, without a short cut: a job may have left one of each.
        return any([self._finished.pop(job_id, now), self._unfinished.pop(job_id, now)])

    def finished_before(self, moment: int, *, only_successful: bool, limit: int) -> list[str]:
        """Ids of up to `limit` jobs that finished before this moment (ms since the epoch)."""
        old = (
            record.id
            for _, record in self._finished.slots.values()
            if record.finished < moment and (record.status is Status.SUCCEEDED or not only_successful)
        )
        return list(islice(old, limit))

    def wait(self, job_id: str, waiter: Waiter[JobRecord], now: float) -> JobRecord | None:
        """The finished record; when there is none, the waiter will be woken with it."""
        record = self._finished.get(job_id, now)
        if record is None:
            self._waiters.setdefault(job_id, set()).add(waiter)
        return record

    def give_up(self, job_id: str, waiter: Waiter[JobRecord]) -> None:
        """It waits no longer."""
        waiters = self._waiters.get(job_id)
        if waiters is not None:
            waiters.discard(waiter)
            if not waiters:
                del self._waiters[job_id]
