"""Observers: they see what happens, and can change nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec

__all__ = ["Event", "Observer"]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened. `kind` is a past participle; `at` is milliseconds since the epoch."""

    kind: str
    at: int
    job_id: str = ""
    task: str = ""
    queue: str = ""
    attempt: int = 0
    duration: float | None = None
    """Seconds the attempt took."""
    detail: str = ""


class Observer(ABC):
    """Sees events in batches, beside the work. What it raises is counted and logged, never passed on."""

    @abstractmethod
    async def observe(self, events: Sequence[Event]) -> None:
        """Take note. Ended after 5 seconds; events that arrive meanwhile wait in a bounded buffer."""
