"""The record of a workflow as a whole, under its own id: so that its result is waited for as that of any job."""

from __future__ import annotations

from camora.errors import EncodeError, PayloadError
from camora.interfaces import Host, WorkflowStore
from camora.outcome import JobRecord, Status

from camora_workflows.consequences import SUCCEEDED
from camora_workflows.plan import Kind, Outcome, Spec, unpack
from camora_workflows.trail import outcome_of
from camora_workflows.values import TooMuch, Values

__all__ = ["status_of", "summed_up"]

_ROOM = 1024 * 1024
"""How many bytes the values of a join may have for the record to hold them; larger ones stay in the store alone."""


def status_of(outcome: Outcome) -> Status:
    """What a workflow comes to when the node that it comes to has ended so."""
    told = outcome.told
    return Status(told) if told else Status.DISCARDED


async def summed_up(host: Host, store: WorkflowStore, workflow: str, result: int, outcome: Outcome) -> JobRecord:
    """The record, with the value of one job, or the values of a join where they are small enough."""
    status = status_of(outcome)
    reason = result if outcome.origin < 0 else outcome.origin
    last, origin = await store.read(workflow, [result, reason])
    spec: Spec = Spec() if last is None else unpack(Spec, last.spec)
    told = outcome if origin is None or not origin.status else outcome_of(origin)
    value = outcome.value
    if last is not None and status is Status.SUCCEEDED and spec.kind is not Kind.JOB:
        try:
            found = await Values(store, host.result_codec, workflow, room=_ROOM).of(last)
            value = host.result_codec.encode_value(found)
        except (TooMuch, PayloadError, EncodeError):
            value = None
    task = spec.task
    if status.value != SUCCEEDED and origin is not None:
        task = unpack(Spec, origin.spec).task
    return JobRecord(
        id=workflow,
        status=status,
        task=task,
        queue=spec.queue,
        value=value,
        kept=value is not None,
        error=told.error,
        attempts=told.attempts,
        started=told.started,
        finished=host.clock.now_ms(),
        worker=told.worker,
        ttl=host.settings.result_ttl,
    )
