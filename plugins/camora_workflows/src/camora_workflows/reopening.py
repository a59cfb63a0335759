"""Running failed jobs of a workflow again, together with what did not run because of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence

from camora.interfaces import Host, NodeState, WorkflowStore
from camora.outcome import Status

from camora_workflows.consequences import SUCCEEDED
from camora_workflows.following import Following
from camora_workflows.plan import SKIPPED, Kind, Spec, unpack
from camora_workflows.trail import outcome_of

__all__ = ["because_of", "behind", "read_all", "reopen", "to_run_again"]

_PAGE = 500
_AGAIN = frozenset({Status.FAILED.value, Status.EXPIRED.value, Status.CANCELLED.value})
"""The ends of jobs that are run again."""


async def to_run_again(store: WorkflowStore, workflow: str) -> tuple[dict[int, int], list[NodeState]]:
    """What is to be run again, with its runs; and the jobs that were reopened and have not ended.

    These are the jobs that failed; and what ended because of a job that does not stand as failed any more: somebody
    reopened that before it was told of all that waits for it how it ends because of it.
    """
    again: dict[int, int] = {}
    open_again: list[NodeState] = []
    ended_by: dict[int, dict[int, int]] = {}
    after = -1
    while page := await store.nodes(workflow, after=after, limit=_PAGE):
        for node in page:
            if not node.status:
                if node.run and _is_job(node):
                    open_again.append(node)
            elif node.status in _AGAIN and _is_job(node):
                again[node.index] = node.run
            elif node.status != SUCCEEDED and (origin := outcome_of(node).origin) >= 0:
                ended_by.setdefault(origin, {})[node.index] = node.run
        after = page[-1].index
    for reason in await read_all(store, workflow, sorted(ended_by)):
        if reason.status in ("", SUCCEEDED):
            again.update(ended_by[reason.index])
    return again, open_again


async def reopen(
    host: Host, following: Following, store: WorkflowStore, workflow: str, seen: Mapping[int, int]
) -> Mapping[int, int]:
    """Reopen those of these nodes that still stand as they were seen, and all that ended because of them, in one step.

    `seen` has for each of them the run that was seen end. Returns those that it was this call that reopened, with the
    runs that they are in: they are the caller's to begin. What others have reopened meanwhile is theirs.
    """
    results = (await host.stores()).results
    taken_back = False
    while True:
        nodes = await read_all(store, workflow, sorted(seen))
        standing = [node for node in nodes if node.status and node.run == seen[node.index]]
        if not standing:
            if taken_back:  # what it has come to since, by the work of others, stands
                await following.conclude(store, workflow, again=True)
            return {}
        runs = await because_of(store, workflow, standing)
        if results is not None:
            # Before anything runs: what the workflow comes to now must find no record that stands.
            await results.forget([workflow])
            taken_back = True
        # Where somebody else was faster with one of them, it is looked what is left: none of it alone would do, for
        # what ended because of several is reopened with the first of them.
        if await store.reopen(workflow, runs, host.clock.now_ms()):
            return {node.index: node.run + 1 for node in standing}


async def because_of(store: WorkflowStore, workflow: str, nodes: Sequence[NodeState]) -> dict[int, int]:
    """These nodes, and those that ended without running for the reason that these did not succeed: in which runs.

    They are what is to be reopened, all in one step, to run these again. Handlers that ran are not among them: that
    was told, and is not taken back.
    """
    reasons = {node.index for node in nodes}
    found: dict[int, int] = {}
    waiting = list(nodes)
    while waiting:
        found.update((node.index, node.run) for node in waiting)
        further: set[int] = set()
        for node in waiting:
            further.update(node.feeds)
            spec: Spec = unpack(Spec, node.spec)
            if spec.kind is Kind.GATE and node.status == SKIPPED:
                async for one in behind(store, workflow, node.index):
                    further.add(one.index)
        candidates = await read_all(store, workflow, sorted(further - found.keys()))
        waiting = [node for node in candidates if _is_because_of(node, reasons)]
    return found


def _is_job(node: NodeState) -> bool:
    spec: Spec = unpack(Spec, node.spec)
    return spec.kind is Kind.JOB


def _is_because_of(node: NodeState, reasons: Collection[int]) -> bool:
    if not node.status or outcome_of(node).origin not in reasons:
        return False
    spec: Spec = unpack(Spec, node.spec)
    return node.status == SKIPPED or spec.kind is not Kind.JOB


async def read_all(store: WorkflowStore, workflow: str, indexes: Sequence[int]) -> list[NodeState]:
    """Those of them that there are."""
    found = []
    for begin in range(0, len(indexes), _PAGE):
        found += [node for node in await store.read(workflow, indexes[begin : begin + _PAGE]) if node is not None]
    return found


async def behind(store: WorkflowStore, workflow: str, gate: int) -> AsyncIterator[NodeState]:
    """The nodes behind a gate, in order."""
    after = -1
    while page := await store.nodes(workflow, after=after, limit=_PAGE, gate=gate):
        for node in page:
            yield node
        after = page[-1].index
