"""Jobs that wait for their time: what the service called them when it took them, so that they can be taken back.

Only this process knows these numbers; others find them by looking through the queues.
"""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["Scheduled"]

_MOST = 100_000


class Scheduled:
    """For any thread: each change is one step. Remembers the last 100,000 jobs."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[str, int, int]] = OrderedDict()

    def remember(self, job_id: str, entity: str, number: int, due: int) -> None:
        """This job lies in an entity under a sequence number, and is due then (milliseconds since the epoch)."""
        self._known.pop(job_id, None)
        self._known[job_id] = (entity, number, due)
        while len(self._known) > _MOST:
            try:
                self._known.popitem(last=False)
            except KeyError:  # another thread was faster
                return

    def take(self, job_id: str) -> tuple[str, int, int] | None:
        """Entity, sequence number and when it is due, and forget it; None for a job that is not known here."""
        return self._known.pop(job_id, None)
