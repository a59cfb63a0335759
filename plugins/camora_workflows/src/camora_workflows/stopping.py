"""Stopping the jobs of nodes: by whoever cancels a workflow, and by whoever publishes meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence

from camora.errors import UnsupportedCapability
from camora.interfaces import Host, NodeState, WorkflowStore
from camora.outcome import CancelResult, Status

from camora_workflows.plan import job_id
from camora_workflows.whereabouts import find_job

__all__ = ["stop", "stop_cancelled"]

_PAGE = 500
_AT_ONCE = 50
"""How many jobs are stopped at the same time."""
_CANCELLED = Status.CANCELLED.value


async def stop(host: Host, workflow: str, nodes: Sequence[NodeState]) -> set[CancelResult]:
    """Stop the jobs of these nodes; what the broker said."""
    said: set[CancelResult] = set()
    for start in range(0, len(nodes), _AT_ONCE):
        some = nodes[start : start + _AT_ONCE]
        said.update(await asyncio.gather(*(_stop(host, workflow, node) for node in some)))
    return said


async def stop_cancelled(host: Host, store: WorkflowStore, workflow: str, indexes: Sequence[int]) -> bool:
    """Whether these nodes, whose jobs were published just now, were cancelled meanwhile; then their jobs are stopped.

    Whoever cancels marks nodes first, and then stops the jobs that he finds; whoever publishes looks for marks after
    that. So one of both finds what the other has done. It is done in order of index: two of them tell of all.
    """
    if not _cancelled(await store.read(workflow, [indexes[0], indexes[-1]])):
        return False
    for start in range(0, len(indexes), _PAGE):
        await stop(host, workflow, _cancelled(await store.read(workflow, indexes[start : start + _PAGE])))
    return True


def _cancelled(nodes: Iterable[NodeState | None]) -> list[NodeState]:
    return [node for node in nodes if node is not None and node.status == _CANCELLED]


async def _stop(host: Host, workflow: str, node: NodeState) -> CancelResult:
    with contextlib.suppress(UnsupportedCapability):
        its_id = job_id(workflow, node.index, node.run)
        if node.run and (found := await find_job(host, workflow, node.index, node.run)) is not None:
            its_id = found.id
        return await host.jobs.cancel(its_id)
    return CancelResult.UNKNOWN  # it finds out when it runs
