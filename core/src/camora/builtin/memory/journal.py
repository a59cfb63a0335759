"""The journal of jobs that are done in steps, in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from camora.builtin.memory.store import MemoryStore
from camora.interfaces.journal import Journal

__all__ = ["MemoryJournal"]


class MemoryJournal(Journal):
    """Keeps entries in the store that its broker keeps its messages in."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self._store = store if store is not None else MemoryStore()
        self._journals = self._store.journals

    def _at(self) -> float:
        return self._store.clock.monotonic()

    async def open(self) -> None:
        """Nothing to connect to."""

    async def claim(self, job_id: str, token: int, keep: float) -> Mapping[str, bytes] | None:
        """One step."""
        with self._store.lock:
            return self._journals.claim(job_id, token, keep, self._at())

    async def write(self, job_id: str, token: int, name: str, value: bytes, keep: float) -> bytes | None:
        """One step."""
        with self._store.lock:
            return self._journals.write(job_id, token, name, value, keep, self._at())

    async def post(self, job_id: str, name: str, value: bytes, keep: float, post_id: str) -> int:
        """One step."""
        with self._store.lock:
            return self._journals.post(job_id, name, value, keep, post_id, self._at())

    async def read(self, job_id: str) -> Mapping[str, bytes]:
        """As they are now."""
        with self._store.lock:
            return self._journals.read(job_id, self._at())

    async def forget(self, job_ids: Sequence[str]) -> int:
        """One step."""
        with self._store.lock:
            return self._journals.forget(job_ids, self._at())

    def twin(self) -> Self:
        """On the same store."""
        return type(self)(self._store)

    async def close(self) -> None:
        """The entries stay with the store."""
