"""The memory result backend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from camora.builtin.memory.journal import MemoryJournal
from camora.builtin.memory.limits import MemoryLimits
from camora.builtin.memory.records import Wakes
from camora.builtin.memory.schedules import MemoryScheduleStore
from camora.builtin.memory.store import MemoryStore
from camora.builtin.memory.waiting import Waiter, wake_all
from camora.builtin.memory.workers import MemoryWorkers
from camora.builtin.memory.workflows import MemoryWorkflowStore
from camora.interfaces.journal import Journal
from camora.interfaces.limits import Limits
from camora.interfaces.results import ResultBackend
from camora.interfaces.schedule import ScheduleStore
from camora.interfaces.workers import WorkerDirectory
from camora.interfaces.workflows import WorkflowStore
from camora.outcome import JobRecord

__all__ = ["MemoryResultBackend"]


class MemoryResultBackend(ResultBackend):
    """Records in this process. On a memory broker's `store`, settlements write them in the same step."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self._memory = store if store is not None else MemoryStore()
        self._waiters: set[Waiter[JobRecord]] = set()

    def shares(self, store: MemoryStore) -> bool:
        """True when its records lie in this store."""
        return self._memory is store

    def own_limits(self) -> Limits:
        """Limits on the same store."""
        return MemoryLimits(self._memory)

    def own_workers(self) -> WorkerDirectory:
        """A directory on the same store."""
        return MemoryWorkers(self._memory)

    def own_schedules(self) -> ScheduleStore:
        """Schedules on the same store."""
        return MemoryScheduleStore(self._memory)

    def own_workflows(self) -> WorkflowStore:
        """Workflows on the same store."""
        return MemoryWorkflowStore(self._memory)

    def own_journal(self) -> Journal:
        """A journal on the same store."""
        return MemoryJournal(self._memory)

    async def open(self) -> None:
        """Nothing to connect to."""

    async def store(self, records: Sequence[JobRecord]) -> None:
        """Keep a batch."""
        memory = self._memory
        wakes: Wakes = []
        with memory.lock:
            now = memory.clock.monotonic()
            for record in records:
                memory.records.put(record, now, wakes)
        if wakes:
            wake_all(wakes)

    async def fetch(self, job_ids: Sequence[str]) -> Sequence[JobRecord | None]:
        """The records, None where there is none."""
        memory = self._memory
        with memory.lock:
            now = memory.clock.monotonic()
            return [memory.records.get(job_id, now) for job_id in job_ids]

    async def wait(self, job_id: str, timeout: float | None) -> JobRecord | None:
        """The finished record, pushed by whoever stores it."""
        memory = self._memory
        waiter: Waiter[JobRecord] = Waiter()
        with memory.lock:
            record = memory.records.wait(job_id, waiter, memory.clock.monotonic())
        if record is not None:
            return record
        self._waiters.add(waiter)
        try:
            return await waiter.wait(timeout)
        finally:
            self._waiters.discard(waiter)
            with memory.lock:
                memory.records.give_up(job_id, waiter)

    async def forget(self, job_ids: Sequence[str]) -> int:
        """Delete records; how many there were."""
        memory = self._memory
        with memory.lock:
            now = memory.clock.monotonic()
            return sum(memory.records.forget(job_id, now) for job_id in job_ids)

    async def prune(self, before: int, *, only_successful: bool = False, limit: int = 1000) -> int:
        """Walk over all records: made for people who clean up, not for loops."""
        memory = self._memory
        with memory.lock:
            now = memory.clock.monotonic()
            old = memory.records.finished_before(before, only_successful=only_successful, limit=limit)
            for job_id in old:
                memory.records.forget(job_id, now)
        return len(old)

    def twin(self) -> Self:
        """Another backend on the same records."""
        return type(self)(self._memory)

    async def close(self) -> None:
        """End the pending waits of this backend with None."""
        wake_all((waiter, None) for waiter in list(self._waiters))
