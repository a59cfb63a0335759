"""Stopping a workflow, and running again what has failed in it."""

from __future__ import annotations

from camora.interfaces import Host, NodeState, WorkflowRecord, WorkflowStore
from camora.outcome import CancelResult, Status

from camora_workflows.following import Following
from camora_workflows.plan import Kind, Outcome, Spec, job_id, unpack
from camora_workflows.reopening import because_of
from camora_workflows.standing import Standing
from camora_workflows.stopping import stop
from camora_workflows.trail import step_of

__all__ = ["cancel_all", "retry_failed"]

_PAGE = 500
_AGAIN = frozenset({Status.FAILED.value, Status.EXPIRED.value, Status.CANCELLED.value})
"""The ends of jobs that are run again."""


async def cancel_all(host: Host, store: WorkflowStore, following: Following, workflow: str) -> CancelResult:
    """Mark all that has not ended as cancelled, and stop its jobs. May be repeated."""
    record = await store.get(workflow)
    if record is None:
        return CancelResult.UNKNOWN
    if record.state == "finished":
        return CancelResult.FINISHED
    if record.state == "recording":
        if await store.delete([workflow], state="recording"):
            return CancelResult.REMOVED  # whoever records it is told so by the next thing it adds
        record = await store.get(workflow)  # it has started meanwhile
        if record is None:
            return CancelResult.UNKNOWN
    answer, after = CancelResult.REMOVED, -1
    standing = Standing(store, record)
    while page := await store.nodes(workflow, after=after, limit=_PAGE, unfinished=True):
        after = page[-1].index
        jobs = [node for node in page if _spec(node).kind is Kind.JOB]
        begun = [node for node in jobs if await standing.begun(node)]
        ended = Outcome(status=Status.CANCELLED.value, finished=host.clock.now_ms())
        # Marked first: what ends or begins meanwhile finds it so, and comes to nothing.
        await following.carry_out(store, [step_of(workflow, node.index, node.run, ended) for node in jobs])
        if CancelResult.SIGNALLED in await stop(host, workflow, begun):
            answer = CancelResult.SIGNALLED
    await following.conclude(store, workflow)
    return answer


async def retry_failed(host: Host, store: WorkflowStore, following: Following, record: WorkflowRecord) -> int:
    """Reopen the jobs that failed and all that comes after them, and let the first of them begin."""
    workflow = record.id
    failed = await _failed(store, workflow)
    if not failed:
        return 0
    stores = await host.stores()
    if stores.results is not None:
        # Before anything runs: what the workflow comes to now must find no record that stands.
        await stores.results.forget([workflow])
    await store.reopen(workflow, await because_of(store, workflow, failed), host.clock.now_ms())
    standing = Standing(store, record)
    indexes = sorted(failed)
    for start in range(0, len(indexes), _PAGE):
        read = await store.read(workflow, indexes[start : start + _PAGE])
        nodes = [node for node in read if node is not None and not node.status]
        await following.begin(store, workflow, [node for node in nodes if await standing.begun(node)])
        # Their letters are answered: put back now, they would run a second time.
        letters = [job_id(workflow, node.index, run) for node in nodes for run in range(node.run)]
        await stores.broker.dead_letters.purge(ids=letters)
    return len(failed)


async def _failed(store: WorkflowStore, workflow: str) -> set[int]:
    found: set[int] = set()
    after = -1
    while page := await store.nodes(workflow, after=after, limit=_PAGE):
        found.update(node.index for node in page if node.status in _AGAIN and _spec(node).kind is Kind.JOB)
        after = page[-1].index
    return found


def _spec(node: NodeState) -> Spec:
    spec: Spec = unpack(Spec, node.spec)
    return spec
