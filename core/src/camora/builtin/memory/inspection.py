"""Looking into a memory store's queues, and stopping things in them."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from camora.builtin.memory.entries import Entry
from camora.builtin.memory.store import MemoryStore
from camora.interfaces.broker import JobState
from camora.interfaces.queues import CancelResult, QueuedJob, Queues

__all__ = ["MemoryQueues"]


class MemoryQueues(Queues):
    """Walks over all entries: made for people who look, not for loops that ask a thousand times a second."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Messages per queue and state."""
        found: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        with self._store.as_of_now():
            for entry in self._store.entries.values():
                found[entry.envelope.queue][str(entry.state)] += 1
        return {queue: dict(states) for queue, states in found.items()}

    async def find(self, job_id: str) -> QueuedJob | None:
        """Where it lies."""
        with self._store.as_of_now():
            entry = self._store.entries.get(job_id)
            return None if entry is None else _shown(self._store, entry, entry.envelope.body)

    async def list(self, queue: str, *, limit: int = 100, after: str = "") -> Sequence[QueuedJob]:
        """A page of the unfinished."""
        with self._store.as_of_now():
            unfinished = [
                entry
                for entry in self._store.entries.values()
                if entry.envelope.queue == queue and entry.state is not JobState.DEAD and entry.envelope.id > after
            ]
            page = heapq.nsmallest(limit, unfinished, key=lambda entry: entry.envelope.id)
            return [_shown(self._store, entry, b"") for entry in page]

    async def cancel(self, job_id: str) -> CancelResult:
        """Remove or flag."""
        store = self._store
        with store.as_of_now():
            entry = store.entries.get(job_id)
            if entry is None:
                return CancelResult.FINISHED if job_id in store.finished else CancelResult.UNKNOWN
            if entry.state is JobState.DEAD:
                return CancelResult.FINISHED
            if entry.state is JobState.LEASED:
                store.flagged.add(job_id)
                return CancelResult.SIGNALLED
            was_ready = entry.state is JobState.READY
            store.locked_finish(entry)
            if was_ready:
                store.ready.remove(entry)
            else:
                store.delayed.remove()
            return CancelResult.REMOVED

    async def reschedule(self, job_id: str, due: int) -> bool:
        """Move it."""
        store = self._store
        with store.as_of_now() as touched:
            entry = store.entries.get(job_id)
            if entry is None or entry.state not in (JobState.READY, JobState.SCHEDULED):
                return False
            now, was_ready = store.clock.now_ms(), entry.state is JobState.READY
            if was_ready and due <= now:
                return True
            # The heap or the deque keeps the old object until it meets it, so it must not come to life again.
            moved = msgspec.structs.replace(
                entry,
                envelope=msgspec.structs.replace(entry.envelope, due=due if due > now else 0),
                order=store.locked_next_order(),
            )
            entry.state = None
            if was_ready:
                store.ready.remove(entry)
            else:
                store.delayed.remove()
            store.entries[job_id] = moved
            store.locked_enqueue(moved, touched)
            return True

    async def pause(self, queue: str, *, paused: bool = True) -> None:
        """Stop or let go on."""
        with self._store.as_of_now() as touched:
            if paused:
                self._store.ready.paused.add(queue)
            else:
                self._store.ready.paused.discard(queue)
                touched.add(queue)

    async def paused(self) -> Sequence[str]:
        """In order of name."""
        with self._store.lock:
            return sorted(self._store.ready.paused)

    async def purge(self, queue: str) -> int:
        """Delete what waits."""
        store = self._store
        with store.as_of_now():
            waiting = [*store.ready.clear(queue), *store.delayed.clear(queue)]
            for entry in waiting:
                store.locked_finish(entry)
        return len(waiting)


def _shown(store: MemoryStore, entry: Entry, body: bytes) -> QueuedJob:
    envelope = entry.envelope
    return QueuedJob(
        id=envelope.id,
        task=envelope.task,
        queue=envelope.queue,
        state=str(entry.state),
        due=envelope.due,
        deliveries=entry.deliveries,
        worker=store.stakes[entry.stake].worker if entry.stake else "",
        body=body,
    )
