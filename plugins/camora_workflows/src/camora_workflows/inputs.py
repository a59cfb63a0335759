"""What a job of a recorded workflow gets first, read from the store where the job runs; and no job twice."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec
from camora.context import Context
from camora.errors import BrokerUnavailable, ConfigurationError, PayloadError
from camora.interfaces import Host, Middleware, NodeState, WorkflowStore
from camora.interfaces.middleware import Executed
from camora.outcome import Status
from camora.signals import Discard, Recorded
from camora.steering import NotYet

from camora_workflows.alone import alone, gathers
from camora_workflows.failed_step import failed_step
from camora_workflows.plan import GIVEN, HEADER, SKIPPED, Input, Kind, Outcome, Place, Spec, job_id, place_of, unpack
from camora_workflows.trail import outcome_of
from camora_workflows.values import Values, feeding

__all__ = ["WorkflowInputs"]

_PAUSE = (1.0, 5.0)
"""Seconds after which a job comes again whose store was away."""


class WorkflowInputs(Middleware):
    """Before the attempt, and outside of retries, limits and timeouts: what fails here is no attempt of the job.

    A job that was run before, and whose node has ended, is not run again: its outcome is the one that stands. A store
    that is away sends the job back for a moment, uncounted.
    """

    phase = "guard"

    def __init__(self, host: Callable[[], Host], store: Callable[[], Awaitable[WorkflowStore]]) -> None:
        self._host = host
        self._store = store
        self._cancels = False
        """True once it is known that the broker takes back what is cancelled before it runs."""

    def execute(self, context: Context, call_next: Executed) -> Coroutine[Any, Any, Any]:
        """Costs a look into the headers for jobs of no workflow, and no more for those that get nothing."""
        headers = context.message.headers
        if not headers or HEADER not in headers or (GIVEN not in headers and not self._may_have_ended(context)):
            return call_next(context)
        place = place_of(headers[HEADER])
        if not isinstance(place, Place):
            return call_next(context)
        return self._placed(context, call_next, place)

    async def _placed(self, context: Context, call_next: Executed, place: Place) -> Any:
        store, own, fed = await self._read(context, place)
        opened = self._host().opened
        if own.status or (opened is not None and opened.broker.capabilities.dedup) or not gathers(own, fed):
            return await self._go_on(context, call_next, place, store, own, fed)
        async with alone(context):
            # Another one may have run it meanwhile.
            return await self._go_on(context, call_next, place, *await self._read(context, place))

    async def _read(self, context: Context, place: Place) -> tuple[WorkflowStore, NodeState, NodeState | None]:
        """Its node, and the one that it gets something of where the message names it."""
        _, _, text = context.message.headers.get(GIVEN, "").partition(" ")
        try:
            store = await self._store()
            own, fed = await store.read(place.workflow, [place.index, int(text or -1)])
        except (BrokerUnavailable, OSError) as error:
            raise self._later(context, error) from error
        if own is None:
            raise Discard(f"the workflow {place.workflow} is gone from its store: it was deleted, or kept long enough")
        return store, own, fed

    def _later(self, context: Context, error: Exception) -> NotYet:
        self._host().logger.warning("%s: its workflow cannot be read, trying again: %s", context.id, error)
        return NotYet(random.uniform(*_PAUSE))  # noqa: S311 -- jitter

    async def _go_on(
        self,
        context: Context,
        call_next: Executed,
        place: Place,
        store: WorkflowStore,
        own: NodeState,
        fed: NodeState | None,
    ) -> Any:
        """Fill in what it gets, and run it; or what it came to, if it has ended before."""
        if own.run != place.run:
            later = job_id(place.workflow, place.index, own.run)
            raise Discard(f"{context.id} belongs to an earlier run of its workflow, in which {later} takes its place")
        if own.status:
            return _came_to(own, place)
        if kind := context.message.headers.get(GIVEN, "").partition(" ")[0]:
            try:
                value = await self._value(store, place.workflow, own, Input(kind), fed)
            except (BrokerUnavailable, OSError) as error:
                raise self._later(context, error) from error
            message = context.message
            context.message = msgspec.structs.replace(message, args=[value, *message.args])
        return await call_next(context)

    def _may_have_ended(self, context: Context) -> bool:
        """Whether to look before a job is run that gets nothing: not for the first time, where cancelling removes."""
        message = context.message
        if context.deliveries > 1 or message.attempt > 1 or message.life > 0:
            return True
        if not self._cancels:  # an app has one broker, so it is asked once
            opened = self._host().opened
            self._cancels = opened is not None and bool(opened.broker.capabilities.cancel)
        return not self._cancels

    async def _value(
        self, store: WorkflowStore, workflow: str, own: NodeState, kind: Input, fed: NodeState | None
    ) -> Any:
        values = Values(store, self._host().result_codec, workflow)
        if kind is Input.ALL:
            spec: Spec = unpack(Spec, own.spec)
            return await values.listed(own.index, spec.sources)
        source = fed or await _source(store, workflow, own)
        if kind is Input.FAILURE:
            return await _failure(store, workflow, source)
        return await values.of(source)


def _came_to(own: NodeState, place: Place) -> Recorded:
    if own.status in (Status.CANCELLED.value, SKIPPED):
        outcome = outcome_of(own)
        why = f"because of what node {outcome.origin} came to" if outcome.origin >= 0 else "before it could run"
        raise Discard(f"node {place.index} of the workflow {place.workflow} was {own.status} {why}")
    return Recorded(outcome_of(own).value)


async def _source(store: WorkflowStore, workflow: str, own: NodeState) -> NodeState:
    """The node whose end let this one begin: the one that feeds it, or its gate."""
    if own.gate is not None:
        [gate] = await store.read(workflow, [own.gate])
        if gate is not None:
            return gate
    async for source in feeding(store, workflow, own.index):
        return source
    raise PayloadError(f"workflow {workflow}: nothing feeds node {own.index}, so there is nothing to hand over")


async def _failure(store: WorkflowStore, workflow: str, source: NodeState) -> Any:
    """A `FailedStep`, as plain data, of the job that is the reason why this source did not succeed."""
    spec: Spec = unpack(Spec, source.spec)
    while spec.kind is Kind.GATE:
        source = await _source(store, workflow, source)
        spec = unpack(Spec, source.spec)
    outcome: Outcome = outcome_of(source)
    if outcome.origin >= 0 and outcome.origin != source.index:
        [origin] = await store.read(workflow, [outcome.origin])
        if origin is not None and origin.status:
            source, spec, outcome = origin, unpack(Spec, origin.spec), outcome_of(origin)
    return failed_step(job_id(workflow, source.index, source.run), spec.task, outcome)


def no_store() -> ConfigurationError:
    """The error where a job of a recorded workflow runs in an app without a store."""
    return ConfigurationError(
        "this app keeps no workflows, and the job belongs to one: give the worker the same broker and results= as "
        "the app that dispatched it"
    )
