"""What makes publishing idempotent: ids that were finished lately, and the keys that are taken."""

from __future__ import annotations

import heapq

__all__ = ["FinishedIds", "Keys"]


class FinishedIds:
    """The ids of jobs that ended lately: at least the last `window / 2`, at most the last `window` of them.

    Two generations of a set, the older of which is dropped whole: one addition for each job, whatever the window.
    """

    __slots__ = ("_half", "new", "old")

    def __init__(self, window: int) -> None:
        self._half = max(1, window // 2)
        self.new: set[str] = set()
        self.old: set[str] = set()

    def add(self, job_id: str) -> None:
        """Remember it."""
        new = self.new
        new.add(job_id)
        if len(new) >= self._half:
            self.old, self.new = new, set()

    def discard(self, job_id: str) -> None:
        """Forget it."""
        self.new.discard(job_id)
        self.old.discard(job_id)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self.new or job_id in self.old


class Keys:
    """Which job holds which idempotency key, and, once that job has ended, until when (monotonic seconds)."""

    def __init__(self) -> None:
        self._holders: dict[str, tuple[str, float | None]] = {}
        self._ends: list[tuple[float, str]] = []

    def take(self, key: str, job_id: str, now: float) -> str:
        """The job that holds the key: this one, if nobody does."""
        self._expire(now)
        holder, _ = self._holders.setdefault(key, (job_id, None))
        return holder

    def finish(self, key: str, job_id: str, ttl: float, now: float) -> None:
        """Its job has ended: the key stays taken for `ttl` seconds more."""
        holder = self._holders.get(key)
        if holder is None or holder[0] != job_id or holder[1] is not None:
            return
        if ttl <= 0:
            del self._holders[key]
            return
        self._expire(now)
        self._holders[key] = (job_id, now + ttl)
        heapq.heappush(self._ends, (now + ttl, key))

    def retake(self, key: str, job_id: str, now: float) -> None:
        """Its job is unfinished again; the key is its own once more unless another one has it by now."""
        self._expire(now)
        holder = self._holders.get(key)
        if holder is None or holder[0] == job_id:
            self._holders[key] = (job_id, None)

    def _expire(self, now: float) -> None:
        ends = self._ends
        while ends and ends[0][0] <= now:
            end, key = heapq.heappop(ends)
            holder = self._holders.get(key)
            # Anything else than the same end: the key has been taken anew since.
            if holder is not None and holder[1] == end:
                del self._holders[key]
