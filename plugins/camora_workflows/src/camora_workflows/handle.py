"""The handle to a dispatched workflow."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, TypeVar

import attrs
from camora.errors import ResultExpired, ResultsDisabled, ResultTimeout, UnsupportedCapability
from camora.interfaces import Host, NodeState, WorkflowRecord, WorkflowStore
from camora.job import Job, JobInfo
from camora.outcome import CancelResult, ErrorInfo, Status

from camora_workflows.changing import cancel_all, retry_failed
from camora_workflows.following import Following
from camora_workflows.gathering import Gathering, error_of
from camora_workflows.plan import Kind, Plan, Spec, job_id, unpack
from camora_workflows.standing import Standing
from camora_workflows.summing_up import status_of
from camora_workflows.trail import outcome_of
from camora_workflows.whereabouts import find_job

__all__ = ["Member", "WorkflowJob"]

R_co = TypeVar("R_co", covariant=True)

_LOOK_AGAIN = (1.0, 5.0, 20.0, 60.0)
"""Seconds after which somebody who waits looks whether the workflow is still known: at first, and then."""
_PAGE = 500


@attrs.frozen(kw_only=True)
class Member:
    """One job of a workflow. Moments are aware and in UTC, None where not (yet) known."""

    index: int
    """Its place in the workflow, from 0."""
    name: str
    """The name of a graph's node; else empty."""
    task: str
    queue: str
    id: str
    """The id of its job."""
    status: str
    """A `Status`; or `waiting` for others, or `skipped` because of others. `queued` may run already: see `members`."""
    cause: str = ""
    """Why it was skipped: what became of the job that is the reason; empty for a handler that was not needed."""
    run: int = 0
    """How often it was tried again by `WorkflowJob.retry`."""
    attempts: int = 0
    started: datetime | None = None
    finished: datetime | None = None
    worker: str = ""
    error: ErrorInfo | None = None


class WorkflowJob(Job[R_co]):
    """A dispatched workflow, as a job: its status, its result, and its members. Cheap, and valid in any process."""

    __slots__ = ("_following", "_host")

    def __init__(self, workflow: str, name: str, host: Host, following: Following) -> None:
        super().__init__(workflow, name, host.jobs)
        self._host = host
        self._following = following

    async def result(self, timeout: float | None = None) -> R_co:
        """What it came to; waits up to `timeout` seconds (None: for ever).

        Of a chain, the last step's value; of a group, the list of its members' values, in order; of a graph, a mapping.
        Raises as `Job.result`: `JobFailed` holds the error of the member that failed.
        """
        stores = await self._host.stores()
        store = await stores.workflows()
        if stores.results is None:
            raise ResultsDisabled(
                "this app keeps no results, so nobody can wait for a workflow; say where: Camora(results=…), or url in "
                "[results] of camora.toml",
                job_id=self.id,
            )
        if store is None:
            return await super().result(timeout)
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        for pause in itertools.chain(_LOOK_AGAIN, itertools.repeat(_LOOK_AGAIN[-1])):
            since = loop.time()
            span = pause if deadline is None else max(0.0, min(pause, deadline - since))
            record = await stores.results.wait(self.id, span)
            whole = await store.get(self.id)
            if whole is not None and (node := await self._last(store, whole)) is not None and node.status:
                value: R_co = await self._value(store, node)
                return value
            if record is not None and whole is None:  # it was forgotten, and its record was not
                return await super().result(0)
            if whole is None:
                raise ResultExpired(self._unknown(), job_id=self.id)
            if deadline is not None and loop.time() >= deadline:
                raise ResultTimeout(
                    f"workflow {self.id} is not finished after {timeout:g} s; it goes on. Wait longer, or look at "
                    "job.members()",
                    job_id=self.id,
                )
            if record is None and loop.time() - since < 0.9 * span:
                raise ResultTimeout(f"waiting for workflow {self.id} was ended by closing the app", job_id=self.id)
            if record is not None:
                # What it came to before it was tried again: stored late, and nobody is woken by what it comes to now.
                await asyncio.sleep(min(span, _LOOK_AGAIN[0]))
        raise AssertionError  # the pauses have no end

    def result_sync(self, timeout: float | None = None) -> R_co:
        """`result` for code without an event loop; blocks."""
        value: R_co = self._port.run_sync(self.result(timeout))
        return value

    async def status(self) -> Status:
        """Where the whole stands: `queued` while it is recorded, `running` until it has come to something."""
        return (await self.info()).status

    async def info(self) -> JobInfo:
        """Times, and the error of the member that is the reason. Does I/O, does not wait."""
        store = await (await self._host.stores()).workflows()
        record = None if store is None else await store.get(self.id)
        if store is None or record is None:
            return await super().info()
        status = Status.QUEUED if record.state == "recording" else Status.RUNNING
        error, finished = None, record.finished
        node = await self._last(store, record)
        if node is not None and node.status:
            outcome = outcome_of(node)
            status, finished = status_of(outcome), outcome.finished or record.finished
            origin = node
            if outcome.origin >= 0:
                origin = (await store.read(self.id, [outcome.origin]))[0] or node
            error = outcome_of(origin).error
        return JobInfo(
            id=self.id,
            status=status,
            task=record.name,
            created=_moment(record.created),
            finished=_moment(finished),
            error=error,
        )

    async def members(self, *, live: bool = False) -> AsyncIterator[Member]:
        """Its jobs, in order of index; read in pages, so there may be any number.

        With `live`, the broker is asked for each one that has begun and not ended, whether it runs: one round trip
        each, where the broker shows its jobs. Raises `ResultExpired` for a workflow that nobody knows (any more).
        """
        store = await self._store("members")
        standing = Standing(store, await self._record(store))
        async for node in _all(store, self.id):
            spec: Spec = unpack(Spec, node.spec)
            if spec.kind is Kind.JOB:
                yield await self._member(node, spec, standing, live=live)

    async def cancel(self) -> CancelResult:
        """Stop it: what has not begun never will, what runs is cancelled as by `Job.cancel`. Says what happened.

        `signalled` if something was running, `removed` if nothing was. Nothing is run on_failure. May be repeated.
        """
        store = await self._store("cancel")
        return await cancel_all(self._host, store, self._following, self.id)

    async def retry(self) -> int:
        """Run the members that failed, expired or were cancelled once more, and what was skipped because of them.

        Returns how many there were; the others keep what they came to. Who waits for the result of the whole waits for
        the new one. Called twice at the same moment, it runs them once. What has run on_failure already does not run
        again. Raises `ResultExpired` for a workflow that nobody knows (any more).
        """
        store = await self._store("retry")
        record = await self._record(store)
        return await retry_failed(self._host, store, self._following, record)

    async def forget(self) -> bool:
        """Delete what is kept of it; False, and nothing, while it has not finished."""
        stores = await self._host.stores()
        store = await self._store("forget")
        record = await store.get(self.id)
        if record is not None and record.state != "finished":
            return False
        if stores.results is not None:
            await stores.results.forget([self.id])
        return record is not None and await store.delete([self.id], state="finished") == 1

    async def _store(self, what: str) -> WorkflowStore:
        store = await (await self._host.stores()).workflows()
        if store is None:
            raise UnsupportedCapability(
                f"{what}: this app's stores keep no workflows, so nobody knows the members of {self.id}; keep results "
                "in a store that does: Camora(…, results='redis://…')",
                capability="workflows",
            )
        return store

    async def _record(self, store: WorkflowStore) -> WorkflowRecord:
        record = await store.get(self.id)
        if record is None:
            raise ResultExpired(self._unknown(), job_id=self.id)
        return record

    async def _last(self, store: WorkflowStore, record: WorkflowRecord) -> NodeState | None:
        """The node whose end is that of the workflow."""
        if record.state == "recording":
            return None
        plan: Plan = unpack(Plan, record.plan)
        return (await store.read(self.id, [plan.result]))[0]

    async def _value(self, store: WorkflowStore, node: NodeState) -> Any:
        outcome = outcome_of(node)
        if status_of(outcome) is Status.SUCCEEDED:
            return await Gathering(self._host, store, self.id).of(node)
        raise await error_of(store, self.id, node.index, outcome)

    async def _member(self, node: NodeState, spec: Spec, standing: Standing, *, live: bool) -> Member:
        outcome = outcome_of(node)
        status = outcome.status
        its_id = job_id(self.id, node.index, node.run)
        if not status:
            status = Status.QUEUED.value if await standing.begun(node) else "waiting"
            if node.run and status != "waiting":
                its_id = await self._put_back(node) or its_id
            if live and status != "waiting":
                status = (await self._port.info(its_id)).status.value
        return Member(
            index=node.index,
            name=spec.name,
            task=spec.task,
            queue=spec.queue,
            id=its_id,
            status=status,
            cause=outcome.cause,
            run=node.run,
            attempts=outcome.attempts,
            started=_moment(outcome.started),
            finished=_moment(outcome.finished),
            worker=outcome.worker,
            error=outcome.error,
        )

    async def _put_back(self, node: NodeState) -> str | None:
        """The id of the job of a later run, which is an earlier one's where that was a dead letter; None: not there."""
        with contextlib.suppress(UnsupportedCapability):
            found = await find_job(self._host, self.id, node.index, node.run)
            return None if found is None else found.id
        return None

    def _unknown(self) -> str:
        return (
            f"nothing is known of workflow {self.id}: it never was, it was forgotten, or it ended longer ago than "
            "workflows are kept ([extensions.workflows] keep)"
        )

    def __repr__(self) -> str:
        return f"<WorkflowJob {self.id}: {self.task}>" if self.task else f"<WorkflowJob {self.id}>"


async def _all(store: WorkflowStore, workflow: str) -> AsyncIterator[NodeState]:
    after = -1
    while page := await store.nodes(workflow, after=after, limit=_PAGE):
        for node in page:
            yield node
        after = page[-1].index


def _moment(stamp: int) -> datetime | None:
    return datetime.fromtimestamp(stamp / 1000, UTC) if stamp else None
