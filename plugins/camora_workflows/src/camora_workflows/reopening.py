"""Running failed jobs of a workflow again, together with what did not run because of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Sequence

from camora.interfaces import NodeState, WorkflowStore

from camora_workflows.plan import SKIPPED, Kind, Spec, unpack
from camora_workflows.trail import outcome_of

__all__ = ["because_of"]

_PAGE = 500


async def because_of(store: WorkflowStore, workflow: str, indexes: Iterable[int]) -> list[int]:
    """These nodes, and those that ended without running for the reason that these did not succeed, in order.

    They are what is to be reopened, all in one step, to run these again. Handlers that ran are not among them: that
    was told, and is not taken back.
    """
    reasons = set(indexes)
    found: set[int] = set()
    waiting = sorted(reasons)
    while waiting:
        found.update(waiting)
        further: set[int] = set()
        for node in await _read(store, workflow, waiting):
            further.update(node.feeds)
            spec: Spec = unpack(Spec, node.spec)
            if spec.kind is Kind.GATE and node.status == SKIPPED:
                async for behind in _behind(store, workflow, node.index):
                    further.add(behind.index)
        candidates = await _read(store, workflow, sorted(further - found))
        waiting = [node.index for node in candidates if _is_because_of(node, reasons)]
    return sorted(found)


def _is_because_of(node: NodeState, reasons: Collection[int]) -> bool:
    if not node.status or outcome_of(node).origin not in reasons:
        return False
    spec: Spec = unpack(Spec, node.spec)
    return node.status == SKIPPED or spec.kind is not Kind.JOB


async def _read(store: WorkflowStore, workflow: str, indexes: Sequence[int]) -> list[NodeState]:
    found = []
    for begin in range(0, len(indexes), _PAGE):
        found += [node for node in await store.read(workflow, indexes[begin : begin + _PAGE]) if node is not None]
    return found


async def _behind(store: WorkflowStore, workflow: str, gate: int) -> AsyncIterator[NodeState]:
    after = -1
    while page := await store.nodes(workflow, after=after, limit=_PAGE, gate=gate):
        for node in page:
            yield node
        after = page[-1].index
