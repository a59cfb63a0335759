"""The memory results of a `TestWorker`: they note the ends of jobs whose message was settled before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

from camora.builtin.memory import MemoryResultBackend, MemoryStore
from camora.outcome import JobRecord

__all__ = ["StagedResults"]


class StagedResults(MemoryResultBackend):
    """Most records come with a settlement; those of `ack="before"` come by themselves, after the run."""

    def __init__(self, store: MemoryStore, ended: Callable[[JobRecord], None]) -> None:
        super().__init__(store)
        self._store = store
        self._ended = ended

    async def store(self, records: Sequence[JobRecord]) -> None:
        """Keep a batch."""
        await super().store(records)
        for record in records:
            if record.status.finished:
                self._ended(record)

    def twin(self) -> Self:
        """On the same store."""
        return type(self)(self._store, self._ended)
