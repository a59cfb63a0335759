"""Whether a node may have begun."""

from __future__ import annotations

from camora.interfaces import START, NodeState, WorkflowRecord, WorkflowStore

from camora_workflows.consequences import SUCCEEDED

__all__ = ["Standing"]


class Standing:
    """Looks at gates of one workflow, and remembers those that are open."""

    def __init__(self, store: WorkflowStore, record: WorkflowRecord) -> None:
        self._store = store
        self._workflow = record.id
        self._open = {START} if record.state != "recording" else set()

    async def begun(self, node: NodeState) -> bool:
        """True when nothing keeps it from running."""
        if node.gate is None:
            return node.waiting == 0
        if node.gate not in self._open:
            [gate] = await self._store.read(self._workflow, [node.gate])
            if gate is None or gate.status != SUCCEEDED:
                return False
            self._open.add(node.gate)
        return True
