"""What a `Job` handle asks: results, status, cancelling."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from camora.binding import Binding
from camora.clock import Clock
from camora.connections import Connection, Connections, Portal
from camora.errors import (
    DecodeError,
    JobCancelled,
    JobDiscarded,
    JobExpired,
    JobFailed,
    JobTimeout,
    ResultExpired,
    ResultsDisabled,
    ResultTimeout,
    UnsupportedCapability,
)
from camora.extensions import Extensions
from camora.interfaces.broker import JobState
from camora.interfaces.codec import Codec
from camora.interfaces.extension import Ending
from camora.interfaces.queues import QueuedJob
from camora.interfaces.results import ResultBackend
from camora.job import JobInfo
from camora.message import Envelope
from camora.outbox import unpacked
from camora.outcome import CancelResult, JobRecord, Status
from camora.registry import TaskRegistry

__all__ = ["Jobs", "unknown_job"]

_LOOK_AGAIN = 60.0
"""Seconds after which somebody who waits without a limit looks whether the job is still known."""

_MOMENT, _TRIES = 0.05, 40
"""Seconds between two looks at a job that a relay is carrying, and how many looks."""

R = TypeVar("R")


class Jobs:
    """Looks jobs up in the result backend and the broker of the caller's loop."""

    def __init__(
        self,
        *,
        connections: Connections,
        portal: Portal,
        codec: Codec,
        result_codec: Codec,
        binding: Binding,
        tasks: TaskRegistry,
        clock: Clock,
        ttl: float,
        extensions: Extensions,
        publish: Callable[[Sequence[Envelope]], Awaitable[object]],
    ) -> None:
        self._connections = connections
        self._portal = portal
        self._codec = codec
        self._result_codec = result_codec
        self._binding = binding
        self._tasks = tasks
        self._clock = clock
        self._ttl = ttl
        self._extensions = extensions
        self._publish = publish

    def run_sync(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Run a coroutine of this app from code without an event loop; blocks."""
        return self._portal.run(coroutine)

    async def result(self, job_id: str, timeout: float | None) -> Any:
        """Wait for the value; see `Job.result`."""
        results = await self._results(job_id)
        record = await (self._wait(results, job_id) if timeout is None else results.wait(job_id, timeout))
        if record is None:
            raise await self._nothing_came(results, job_id, timeout)
        return self._value(record)

    async def _nothing_came(self, results: ResultBackend, job_id: str, timeout: float | None) -> Exception:
        connection = self._connections.opened()
        if connection is None or connection.results is not results:
            # Looking once more would open what has just been closed, and nobody would close it again.
            return ResultTimeout(f"waiting for job {job_id} was ended by closing the app", job_id=job_id)
        unknown = (await self.info(job_id)).status is Status.UNKNOWN
        if unknown and connection.broker.capabilities.inspect:
            return ResultExpired(unknown_job(connection, job_id), job_id=job_id)
        if timeout is None:
            return ResultTimeout(f"waiting for job {job_id} was ended by the result backend", job_id=job_id)
        if unknown:
            text = f"no result within {timeout:g} s: {unknown_job(connection, job_id)}"
        else:
            text = f"job {job_id} is not finished after {timeout:g} s; it goes on. Wait longer, or look at job.info()"
        return ResultTimeout(text, job_id=job_id)

    async def forget_finished(self, older_than: float, *, only_successful: bool) -> int:
        """Delete records in steps; see `Camora.forget_finished`."""
        results = await self._results("")
        before, total = self._clock.now_ms() - round(older_than * 1000), 0
        while some := await results.prune(before, only_successful=only_successful):
            total += some
        return total

    async def _wait(self, results: ResultBackend, job_id: str) -> JobRecord | None:
        """Without a limit, but not for ever for a job that nobody knows any more; None, too, when the app is closed."""
        loop = asyncio.get_running_loop()
        while True:
            since = loop.time()
            record = await results.wait(job_id, _LOOK_AGAIN)
            closed = loop.time() - since < 0.9 * _LOOK_AGAIN
            if record is not None or closed or await self._lost(job_id):
                return record

    async def _lost(self, job_id: str) -> bool:
        """Whether nobody knows the job; a broker that does not show its jobs may have it for all we know."""
        connection = self._connections.opened()
        if connection is None:
            return True
        return bool(connection.broker.capabilities.inspect) and (await self.info(job_id)).status is Status.UNKNOWN

    def _value(self, record: JobRecord) -> Any:
        task, job_id = record.task, record.id
        match record.status:
            case Status.SUCCEEDED if record.value is not None:
                return self._binding.result_into(self._tasks.get(task), self._result_codec.decode_value(record.value))
            case Status.SUCCEEDED:
                raise ResultsDisabled(
                    f"{task} {job_id} succeeded, and keeps no result (keep_result=False)", job_id=job_id
                )
            case Status.DISCARDED:
                why = f": {record.error.text}" if record.error and record.error.text else ""
                raise JobDiscarded(f"{task} {job_id} was discarded{why}", job_id=job_id)
            case Status.EXPIRED:
                raise JobExpired(f"{task} {job_id} expired before it could start", job_id=job_id)
            case Status.CANCELLED:
                raise JobCancelled(f"{task} {job_id} was cancelled", job_id=job_id)
            case _:
                raise _failure(record)

    async def _results(self, job_id: str) -> ResultBackend:
        connection = self._connections.ready() or await self._connections.get()
        if connection.results is None:
            raise ResultsDisabled(
                "this app keeps no results; say where: Camora(results=…), or url in [results] of camora.toml",
                job_id=job_id,
            )
        return connection.results

    async def info(self, job_id: str) -> JobInfo:
        """What is known of a job, of both stores; see `Job.info`."""
        connection = self._connections.ready() or await self._connections.get()
        record = await _record_of(connection, job_id)
        if record is not None and record.status.finished:
            return _from_record(record, record.status)
        queued = None
        with contextlib.suppress(UnsupportedCapability):
            queued = await connection.broker.queues.find(job_id)
        if queued is not None:
            return self._from_queue(queued, record)
        waiting = await _in_outbox(connection, job_id)
        if waiting is not None:
            return waiting
        # It may have ended between the looks.
        record = await _record_of(connection, job_id)
        return JobInfo(id=job_id, status=Status.UNKNOWN) if record is None else _from_record(record, record.status)

    def _from_queue(self, queued: QueuedJob, record: JobRecord | None) -> JobInfo:
        attempt, created = 1, 0
        with contextlib.suppress(DecodeError):  # an undecodable message still has a place in a queue
            message = self._codec.decode(queued.body)
            attempt, created = message.attempt, message.created
        suspended = record is not None and record.status is Status.SCHEDULED
        status = {
            JobState.LEASED: Status.RUNNING,
            JobState.SCHEDULED: Status.RETRYING if attempt > 1 and not suspended else Status.SCHEDULED,
            JobState.DEAD: Status.FAILED,
        }.get(JobState(queued.state), Status.RETRYING if attempt > 1 else Status.QUEUED)
        return JobInfo(
            id=queued.id,
            status=status,
            task=queued.task,
            queue=queued.queue,
            attempts=attempt if status is Status.RUNNING else attempt - 1,
            deliveries=queued.deliveries,
            created=_moment(created),
            due=_moment(queued.due),
            started=_moment(record.started) if record else None,
            worker=queued.worker,
            error=record.error if record else None,
            progress=record.progress if record else None,
        )

    async def cancel(self, job_id: str) -> CancelResult:
        """Remove or interrupt; see `Job.cancel`."""
        connection = self._connections.ready() or await self._connections.get()
        queued = None
        with contextlib.suppress(UnsupportedCapability):  # what cannot be looked for cannot be cancelled: see there
            queued = await connection.broker.queues.find(job_id)
        record = JobRecord(
            id=job_id,
            status=Status.CANCELLED,
            task=queued.task if queued else "",
            queue=queued.queue if queued else "",
            finished=self._clock.now_ms(),
            ttl=self._ttl,
        )
        if queued is not None and queued.state in (JobState.READY, JobState.SCHEDULED):
            record = await self._ended_waiting(connection, queued, record)
        try:
            answer = await _cancel(connection, job_id)
        except UnsupportedCapability:
            # Who cannot cancel it cannot say that it is over, either; its result can.
            known = await _record_of(connection, job_id)
            if known is None or not known.status.finished:
                raise
            return CancelResult.FINISHED
        if answer is CancelResult.REMOVED and connection.results is not None:
            await connection.results.store([record])
        if answer is CancelResult.UNKNOWN and connection.results is not None:
            known = await _record_of(connection, job_id)
            if known is not None and known.status.finished:
                return CancelResult.FINISHED
        return answer

    async def _ended_waiting(self, connection: Connection, queued: QueuedJob, record: JobRecord) -> JobRecord:
        """See to what follows a job that is about to be removed; returns what is to be stored for it.

        Before that, so that whoever dies in between leaves a job that can be cancelled again, or runs and is known to
        have been cancelled, and not one that is gone and that others wait for.
        """
        try:
            message = self._codec.decode(queued.body)
        except DecodeError:
            return record
        if not self._extensions.concern(message):
            return record
        [follow] = await self._extensions.ended([Ending(message=message, record=record)])
        if follow.records and connection.results is not None:
            await connection.results.store(follow.records)
        if follow.successors:
            await self._publish(follow.successors)
        return follow.instead or record


def unknown_job(connection: Connection, job_id: str) -> str:
    """What it means, in words, that nothing is known of a job."""
    reasons = ["it never was"]
    if not connection.broker.capabilities.inspect:
        reasons.append("it waits or runs, which this broker does not show")
    if connection.results is not None and connection.results.private:
        reasons.append("it was dispatched by another process, which alone is told what becomes of it")
    reasons.append("it ended longer ago than its result is kept")
    return f"nothing is known of job {job_id}: {', '.join(reasons[:-1])}, or {reasons[-1]}"


def _failure(record: JobRecord) -> Exception:
    error = record.error
    if error is None:
        return ResultExpired(f"job {record.id} ended as {record.status}, and nothing more is known", job_id=record.id)
    kind = JobTimeout if error.timeout else JobFailed
    text = f"{record.task or 'job'} {record.id} failed after {record.attempts} attempt{'s' * (record.attempts != 1)}: "
    text += f"{error.type}: {error.text}" if error.text else error.type
    failure = kind(text, job_id=record.id, error_type=error.type, error_text=error.text, traceback=error.traceback)
    if error.traceback:
        failure.add_note(f"In the worker {record.worker}:\n{error.traceback.rstrip()}")
    return failure


def _moment(stamp: int) -> datetime | None:
    return datetime.fromtimestamp(stamp / 1000, UTC) if stamp else None


async def _cancel(connection: Connection, job_id: str) -> CancelResult:
    try:
        answer = await connection.broker.queues.cancel(job_id)
    except UnsupportedCapability:
        waiting_room = await connection.outbox()
        if waiting_room is None or await waiting_room.queues.cancel(job_id) is not CancelResult.REMOVED:
            raise
        return CancelResult.REMOVED
    outbox = await connection.outbox() if answer is CancelResult.UNKNOWN else None
    for _ in range(0 if outbox is None else _TRIES):
        assert outbox is not None
        if (waiting := await outbox.queues.cancel(job_id)) in (CancelResult.REMOVED, CancelResult.UNKNOWN):
            return waiting
        # It is on its way, and will be there in a moment.
        await asyncio.sleep(_MOMENT)
        answer = await connection.broker.queues.cancel(job_id)
        if answer is not CancelResult.UNKNOWN:
            break
    return answer


async def _in_outbox(connection: Connection, job_id: str) -> JobInfo | None:
    """What is known of a job that has not reached its broker yet."""
    outbox = await connection.outbox()
    found = None if outbox is None else await outbox.queues.find(job_id)
    if found is None:
        return None
    status = Status.FAILED if found.state == JobState.DEAD else Status.QUEUED
    queue, due = "", 0
    with contextlib.suppress(DecodeError):
        envelope = unpacked(found.body)
        queue, due = envelope.queue, envelope.due
    if due and status is Status.QUEUED:
        status = Status.SCHEDULED
    return JobInfo(id=job_id, status=status, task=found.task, queue=queue, due=_moment(due))


async def _record_of(connection: Connection, job_id: str) -> JobRecord | None:
    return (await connection.results.fetch([job_id]))[0] if connection.results is not None else None


def _from_record(record: JobRecord, status: Status) -> JobInfo:
    return JobInfo(
        id=record.id,
        status=status,
        task=record.task,
        queue=record.queue,
        attempts=record.attempts,
        created=_moment(record.created),
        started=_moment(record.started),
        finished=_moment(record.finished),
        worker=record.worker,
        error=record.error,
        progress=record.progress,
    )
