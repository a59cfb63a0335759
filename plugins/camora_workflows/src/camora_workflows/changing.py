"""Stopping a workflow, and running again what has failed in it."""

from __future__ import annotations

from collections.abc import Sequence

from camora.interfaces import Host, NodeState, WorkflowRecord, WorkflowStore
from camora.outcome import CancelResult, Status

from camora_workflows.following import Following
from camora_workflows.plan import SKIPPED, Kind, Outcome, Spec, job_id, unpack
from camora_workflows.reopening import read_all, reopen, to_run_again
from camora_workflows.standing import Standing
from camora_workflows.stopping import stop
from camora_workflows.sweeping import resume
from camora_workflows.trail import step_of
from camora_workflows.whereabouts import is_nowhere

__all__ = ["cancel_all", "retry_failed"]

_PAGE = 500


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
    """Reopen the jobs that failed and all that comes after them, and let what waits for nothing begin.

    Each run that has failed is followed by one, however many try at once. What an earlier call has reopened, and did
    not live to publish, begins now, where the broker can tell that it does not have it. Returns how many jobs both are.
    """
    workflow = record.id
    again, open_again = await to_run_again(store, workflow)
    reopened = await reopen(host, following, store, workflow, again)
    standing = Standing(store, record)
    indexes, jobs = sorted(reopened), 0
    for start in range(0, len(indexes), _PAGE):
        read = [node for node in await store.read(workflow, indexes[start : start + _PAGE]) if node is not None]
        jobs += sum(_spec(node).kind is Kind.JOB for node in read)
        nodes = [node for node in read if not node.status and node.run == reopened[node.index]]
        await following.begin(store, workflow, [node for node in nodes if await standing.begun(node)])
        # Their letters are answered: put back now, they would run a second time.
        letters = [job_id(workflow, node.index, run) for node in nodes for run in range(node.run)]
        await (await host.stores()).broker.dead_letters.purge(ids=letters)
    return jobs + await _gone_on_with(host, store, following, record, open_again)


async def _gone_on_with(
    host: Host, store: WorkflowStore, following: Following, record: WorkflowRecord, nodes: Sequence[NodeState]
) -> int:
    """If some of these, which were reopened before, are nowhere, do what is left undone; returns how many begin."""
    standing = Standing(store, record)
    left = [node.index for node in nodes if await standing.begun(node) and await is_nowhere(host, record.id, node)]
    if not left:
        return 0
    await resume(host, following, store, record)
    # Of some it was only left to say that they do not run, because others have failed again.
    return sum(node.status != SKIPPED for node in await read_all(store, record.id, left))


def _spec(node: NodeState) -> Spec:
    spec: Spec = unpack(Spec, node.spec)
    return spec
