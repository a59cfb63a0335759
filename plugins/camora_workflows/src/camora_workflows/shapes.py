"""The nodes of a workflow as people look at them: read from the store without their messages and values."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TypeVar, cast

import attrs
import msgspec
from camora.interfaces.workflows import START, NodeState, WorkflowStore

from camora_workflows.plan import Kind, Outcome, Spec, job_id, unpack

__all__ = ["Shape", "shapes_of"]

T = TypeVar("T")

_PAGE = 500


@attrs.frozen
class Shape:
    """One node. Moments are milliseconds since the epoch, 0 where there was none."""

    index: int
    kind: Kind
    task: str
    name: str
    feeds: tuple[int, ...]
    gate: int | None
    waiting: int
    run: int
    handler: bool
    side: bool
    mapping: bool
    """A join whose value is a mapping: that of a graph."""
    status: str
    cause: str
    origin: int
    error: str
    attempts: int
    started: int
    finished: int
    worker: str

    @property
    def ended(self) -> bool:
        """True when it has come to something."""
        return bool(self.status)

    def job(self, workflow: str) -> str:
        """The id of its job; empty for joins and gates, which have none."""
        return job_id(workflow, self.index, self.run) if self.kind is Kind.JOB else ""


async def shapes_of(store: WorkflowStore, workflow: str) -> dict[int, Shape]:
    """All nodes, in order of index."""
    return {shape.index: shape async for shape in _read(store, workflow)}


async def _read(store: WorkflowStore, workflow: str) -> AsyncIterator[Shape]:
    after = START
    while page := await store.nodes(workflow, after=after, limit=_PAGE):
        for node in page:
            yield _shape(node)
        after = page[-1].index


def _shape(node: NodeState) -> Shape:
    spec = _or(Spec, node.spec, Spec())
    outcome = _or(Outcome, node.outcome, Outcome(status=node.status))
    return Shape(
        index=node.index,
        kind=spec.kind,
        task=spec.task,
        name=spec.name,
        feeds=node.feeds,
        gate=node.gate,
        waiting=node.waiting,
        run=node.run,
        handler=spec.handler,
        side=spec.side,
        mapping=bool(spec.names),
        status=node.status,
        cause=outcome.cause,
        origin=outcome.origin,
        error="" if outcome.error is None else outcome.error.line,
        attempts=outcome.attempts,
        started=outcome.started,
        finished=outcome.finished,
        worker=outcome.worker,
    )


def _or(kind: type[T], data: bytes, default: T) -> T:
    """What another version has written and this one cannot read is shown as far as it goes."""
    try:
        return cast("T", unpack(kind, data)) if data else default
    except msgspec.DecodeError:
        return default
