"""What has run on_failure already, of that which a retry would run again: it is not undone, and does not run again."""

from __future__ import annotations

from collections.abc import AsyncIterator

import attrs
from camora.interfaces import NodeState, WorkflowStore

from camora_workflows.plan import SKIPPED, Kind, Spec, job_id, unpack
from camora_workflows.reopening import because_of, behind, read_all, to_run_again

__all__ = ["Answer", "answers_to_failures"]


@attrs.frozen
class Answer:
    """A job that ran because another one had failed."""

    job: str
    task: str


async def answers_to_failures(store: WorkflowStore, workflow: str) -> list[Answer]:
    """Those that ran on_failure of what `retry` would run again now, in order. Raises `BrokerUnavailable`."""
    again, _ = await to_run_again(store, workflow)
    reopened = await because_of(store, workflow, await read_all(store, workflow, sorted(again)))
    fed = {target for node in await read_all(store, workflow, sorted(reopened)) for target in node.feeds}
    found = []
    for node in await read_all(store, workflow, sorted(fed - reopened.keys())):
        if unpack(Spec, node.spec).handler:
            found += [answer async for answer in _ran(store, workflow, node)]
    return found


async def _ran(store: WorkflowStore, workflow: str, handler: NodeState) -> AsyncIterator[Answer]:
    """Its job, or those that stand behind it, as far as they have run to their ends."""
    if handler.status in ("", SKIPPED):
        return
    spec: Spec = unpack(Spec, handler.spec)
    if spec.kind is Kind.JOB:
        yield Answer(job_id(workflow, handler.index, handler.run), spec.task)
    elif spec.kind is Kind.GATE:
        async for node in behind(store, workflow, handler.index):
            its: Spec = unpack(Spec, node.spec)
            if its.kind is Kind.JOB and node.status not in ("", SKIPPED):
                yield Answer(job_id(workflow, node.index, node.run), its.task)
