"""What a workflow came to, as a user asks for it: typed values, in their order, or the error of the job that failed."""

from __future__ import annotations

from typing import Any

from camora.errors import (
    JobCancelled,
    JobDiscarded,
    JobExpired,
    JobFailed,
    JobTimeout,
    ResultError,
    ResultExpired,
    ResultsDisabled,
)
from camora.interfaces import Host, NodeState, WorkflowStore
from camora.outcome import Status

from camora_workflows.plan import Kind, Outcome, Spec, job_id, unpack
from camora_workflows.summing_up import status_of
from camora_workflows.trail import outcome_of
from camora_workflows.values import feeding

__all__ = ["Gathering", "error_of"]


class Gathering:
    """Reads typed values of one workflow."""

    def __init__(self, host: Host, store: WorkflowStore, workflow: str) -> None:
        self._host = host
        self._store = store
        self._workflow = workflow

    async def of(self, node: NodeState, *, chunk: bool = False) -> Any:
        """What a node that has succeeded came to; a `chunk` is a list of results of its task.

        Raises `ResultsDisabled` where a job keeps none.
        """
        spec: Spec = unpack(Spec, node.spec)
        if spec.kind is Kind.JOB:
            return self._of_job(node, spec, chunk=chunk)
        if spec.kind is Kind.GATE:
            async for source in feeding(self._store, self._workflow, node.index):
                return await self.of(source)
            raise ResultExpired(f"workflow {self._workflow}: node {node.index} has no value", job_id=self._workflow)
        found = {}
        async for source in feeding(self._store, self._workflow, node.index):
            found[source.index] = await self.of(source, chunk=spec.flat)
        values = [found[index] for index in spec.sources] if spec.sources else list(found.values())
        if spec.names:
            return dict(zip(spec.names, values, strict=True))
        return [item for items in values for item in items] if spec.flat else values

    def _of_job(self, node: NodeState, spec: Spec, *, chunk: bool) -> Any:
        outcome = outcome_of(node)
        its_id = job_id(self._workflow, node.index, node.run)
        if outcome.value is None:
            raise ResultsDisabled(
                f"{spec.task} {its_id} succeeded, and keeps no result (keep_result=False), so workflow "
                f"{self._workflow} has none",
                job_id=self._workflow,
            )
        if not chunk:
            return self._host.value(spec.task, outcome.value)
        codec = self._host.result_codec
        return [self._host.value(spec.task, codec.encode_value(item)) for item in codec.decode_value(outcome.value)]


async def error_of(store: WorkflowStore, workflow: str, result: int, outcome: Outcome) -> ResultError:
    """The error for a workflow that did not succeed: that of the job that is the reason, with its traceback."""
    index = outcome.origin if outcome.origin >= 0 else result
    [origin] = await store.read(workflow, [index])
    if origin is None or not origin.status:
        return ResultExpired(
            f"workflow {workflow} came to {status_of(outcome)}, and nothing more is known", job_id=workflow
        )
    spec: Spec = unpack(Spec, origin.spec)
    its_id, ended = job_id(workflow, origin.index, origin.run), outcome_of(origin)
    named = f"{spec.name} ({spec.task} {its_id})" if spec.name else f"{spec.task} {its_id}"
    if spec.kind is not Kind.JOB:
        named = f"node {origin.index}"
    why = f": {ended.error.text}" if ended.error and ended.error.text else ""
    match status_of(outcome):
        case Status.DISCARDED:
            return JobDiscarded(f"workflow {workflow} was ended by {named}, which was discarded{why}", job_id=workflow)
        case Status.EXPIRED:
            return JobExpired(f"workflow {workflow}: {named} expired before it could start", job_id=workflow)
        case Status.CANCELLED:
            return JobCancelled(f"workflow {workflow}: {named} was cancelled", job_id=workflow)
        case _:
            return _failure(workflow, named, ended)


def _failure(workflow: str, named: str, ended: Outcome) -> ResultError:
    error = ended.error
    if error is None:
        return ResultExpired(f"workflow {workflow}: {named} failed, and nothing more is known", job_id=workflow)
    kind = JobTimeout if error.timeout else JobFailed
    tries = f"{ended.attempts} attempt{'s' * (ended.attempts != 1)}"
    text = f"workflow {workflow}: {named} failed after {tries}: {error.type}"
    failure = kind(
        f"{text}: {error.text}" if error.text else text,
        job_id=workflow,
        error_type=error.type,
        error_text=error.text,
        traceback=error.traceback,
    )
    if error.traceback:
        failure.add_note(f"In the worker {ended.worker}:\n{error.traceback.rstrip()}")
    return failure
