"""The dead letters of a memory store."""

from __future__ import annotations

import bisect
from collections.abc import Sequence

from camora.builtin.memory.store import MemoryStore
from camora.interfaces.dead_letters import DeadLetters
from camora.message import Envelope
from camora.outcome import DeadLetter

__all__ = ["MemoryDeadLetters"]


class MemoryDeadLetters(DeadLetters):
    """Letters are kept until somebody requeues or purges them: they are not bounded."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def list(self, *, queue: str | None = None, limit: int = 100, after: str = "") -> Sequence[DeadLetter]:
        """A page."""
        with self._store.lock:
            letters = self._store.letters
            page: list[DeadLetter] = []
            ids = sorted(letters)
            for job_id in ids[bisect.bisect_right(ids, after) :]:
                if len(page) >= limit:
                    break
                if queue is None or letters[job_id].queue == queue:
                    page.append(letters[job_id])
            return page

    async def get(self, job_id: str) -> DeadLetter | None:
        """One."""
        return self._store.letters.get(job_id)

    async def requeue(self, job_id: str, *, body: bytes | None = None) -> bool:
        """Back into its queue, as a message that was never taken."""
        store = self._store
        with store.as_of_now() as touched:
            letter = store.letters.pop(job_id, None)
            if letter is None:
                return False
            entry = store.entries[job_id]
            old = entry.envelope
            entry.envelope = Envelope(
                id=job_id,
                task=old.task,
                queue=letter.queue,
                body=letter.body if body is None else body,
                expires=old.expires,
                priority=old.priority,
                key=old.key,
                key_ttl=old.key_ttl,
            )
            entry.deliveries = 0
            entry.order = store.locked_next_order()
            if old.key is not None:
                store.keys.retake(old.key, job_id, store.clock.monotonic())
            # The failed record stands for good otherwise, and would hide what the new run comes to.
            store.records.forget(job_id, store.clock.monotonic())
            store.locked_enqueue(entry, touched)
        return True

    async def purge(self, *, queue: str | None = None, ids: Sequence[str] | None = None) -> int:
        """Delete for good."""
        store = self._store
        with store.lock:
            wanted = list(store.letters) if ids is None else [job_id for job_id in set(ids) if job_id in store.letters]
            gone = [job_id for job_id in wanted if queue is None or store.letters[job_id].queue == queue]
            for job_id in gone:
                del store.letters[job_id]
                store.locked_finish(store.entries[job_id])
        return len(gone)
