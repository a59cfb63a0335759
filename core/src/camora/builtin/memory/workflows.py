"""Workflows in memory: for the workers of one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from camora.builtin.memory.store import MemoryStore
from camora.interfaces.workflows import Mark, Marked, Node, NodeState, WorkflowRecord, WorkflowStore

__all__ = ["MemoryWorkflowStore"]


class MemoryWorkflowStore(WorkflowStore):
    """Keeps workflows in the store that its broker keeps its messages in."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self._store = store if store is not None else MemoryStore()
        self._graphs = self._store.graphs

    def _at(self) -> float:
        return self._store.clock.monotonic()

    async def open(self) -> None:
        """Nothing to connect to."""

    async def create(self, record: WorkflowRecord) -> bool:
        """One step."""
        with self._store.lock:
            return self._graphs.create(record, self._at())

    async def add(self, workflow_id: str, nodes: Sequence[Node], now: int = 0) -> bool:
        """One step."""
        with self._store.lock:
            return self._graphs.add(workflow_id, nodes, now, self._at())

    async def start(self, workflow_id: str, plan: bytes, now: int) -> bool:
        """One step."""
        with self._store.lock:
            return self._graphs.start(workflow_id, plan, now, self._at())

    async def end(self, marks: Sequence[Mark], now: int) -> Sequence[Marked]:
        """One step for all of them."""
        with self._store.lock:
            return self._graphs.end(marks, now, self._at())

    async def reopen(self, workflow_id: str, runs: Mapping[int, int], now: int) -> bool:
        """One step."""
        with self._store.lock:
            return self._graphs.reopen(workflow_id, runs, now, self._at())

    async def read(self, workflow_id: str, indexes: Sequence[int]) -> Sequence[NodeState | None]:
        """As they are now."""
        with self._store.lock:
            return self._graphs.read(workflow_id, indexes, self._at())

    async def nodes(
        self,
        workflow_id: str,
        *,
        after: int = -1,
        limit: int = 500,
        feeding: int | None = None,
        gate: int | None = None,
        unfinished: bool = False,
        unsuccessful: bool = False,
        bare: bool = False,
    ) -> Sequence[NodeState]:
        """As they are now; whole, which costs nothing here."""
        del bare
        with self._store.lock:
            return self._graphs.nodes(
                workflow_id,
                self._at(),
                after=after,
                limit=limit,
                feeding=feeding,
                gate=gate,
                unfinished=unfinished,
                unsuccessful=unsuccessful,
            )

    async def passed(self, workflow_id: str, gate: int, index: int, now: int, run: int = 0) -> None:
        """One step."""
        with self._store.lock:
            self._graphs.passed(workflow_id, gate, index, now, run, self._at())

    async def finish(self, workflow_id: str, status: str, keep: float, now: int) -> bool:
        """One step."""
        with self._store.lock:
            return self._graphs.finish(workflow_id, status, keep, now, self._at())

    async def get(self, workflow_id: str) -> WorkflowRecord | None:
        """As it is now."""
        with self._store.lock:
            return self._graphs.get(workflow_id, self._at())

    async def list(
        self,
        *,
        after: str = "",
        limit: int = 100,
        state: str = "",
        status: str = "",
        changed_before: int | None = None,
    ) -> Sequence[WorkflowRecord]:
        """By a look at all of them."""
        with self._store.lock:
            return self._graphs.list(
                self._at(), after=after, limit=limit, state=state, status=status, changed_before=changed_before
            )

    async def delete(self, workflow_ids: Sequence[str], *, state: str = "") -> int:
        """One step."""
        with self._store.lock:
            return self._graphs.delete(workflow_ids, state, self._at())

    def twin(self) -> Self:
        """On the same store."""
        return type(self)(self._store)

    async def close(self) -> None:
        """The workflows stay with the store."""
