"""What a memory store knows of jobs that are done in steps: plain data and its rules, without locks."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import attrs

__all__ = ["Journals"]


@attrs.define(eq=False)
class _Pages:
    """What one job has entered, and what was posted to it; kept until `ends` (monotonic seconds)."""

    ends: float
    token: int | None = None
    """The greatest one that was used; None while none was."""
    entries: dict[str, bytes] = attrs.field(factory=dict)
    posts: dict[tuple[str, str], int] = attrs.field(factory=dict)
    """The number of each name and `post_id`."""
    free: dict[str, int] = attrs.field(factory=dict)
    """For each name that was posted to, a number below which none is free."""

    def admits(self, token: int) -> bool:
        if self.token is not None and token < self.token:
            return False
        self.token = token
        return True


class Journals:
    """By job. Every method takes the monotonic time (`at`), and forgets first whose time is over."""

    def __init__(self) -> None:
        self._pages: dict[str, _Pages] = {}
        self._ends: list[tuple[float, str]] = []

    def _alive(self, at: float) -> dict[str, _Pages]:
        while self._ends and self._ends[0][0] <= at:
            _, job_id = heapq.heappop(self._ends)
            pages = self._pages.get(job_id)
            if pages is None:
                continue
            if pages.ends <= at:
                del self._pages[job_id]
            else:
                # Kept for longer since: one place in the heap for each job, however often that happens.
                heapq.heappush(self._ends, (pages.ends, job_id))
        return self._pages

    def _of(self, job_id: str, keep: float, at: float) -> _Pages:
        pages = self._alive(at).get(job_id)
        if pages is None:
            pages = self._pages[job_id] = _Pages(at + keep)
            heapq.heappush(self._ends, (pages.ends, job_id))
        return pages

    def claim(self, job_id: str, token: int, keep: float, at: float) -> dict[str, bytes] | None:
        """See `Journal.claim`."""
        pages = self._of(job_id, keep, at)
        if not pages.admits(token):
            return None
        pages.ends = max(pages.ends, at + keep)
        return dict(pages.entries)

    def write(self, job_id: str, token: int, name: str, value: bytes, keep: float, at: float) -> bytes | None:
        """See `Journal.write`."""
        pages = self._of(job_id, keep, at)
        if not pages.admits(token):
            return None
        pages.ends = max(pages.ends, at + keep)
        return pages.entries.setdefault(name, value)

    def post(self, job_id: str, name: str, value: bytes, keep: float, post_id: str, at: float) -> int:
        """See `Journal.post`."""
        pages = self._of(job_id, keep, at)
        pages.ends = max(pages.ends, at + keep)
        number = pages.posts.get((name, post_id))
        if number is not None:
            return number
        number = pages.free.get(name, 0)
        while f"{name}/{number}" in pages.entries:
            number += 1
        pages.entries[f"{name}/{number}"] = value
        pages.posts[name, post_id] = number
        pages.free[name] = number + 1
        return number

    def read(self, job_id: str, at: float) -> dict[str, bytes]:
        """See `Journal.read`."""
        pages = self._alive(at).get(job_id)
        return {} if pages is None else dict(pages.entries)

    def forget(self, job_ids: Sequence[str], at: float) -> int:
        """See `Journal.forget`."""
        alive = self._alive(at)
        return sum(alive.pop(job_id, None) is not None for job_id in job_ids)
