"""All that the stores know of a job and of what may keep it: looked up, not judged."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, TypeVar

import attrs

from camora.cli.belonging import workflow_of
from camora.cli.common import connection_of
from camora.cli.payload import decoded
from camora.errors import PayloadError, UnsupportedCapability
from camora.interfaces.broker import JobState
from camora.interfaces.limits import Limit, LimitUse
from camora.interfaces.queues import QueuedJob
from camora.interfaces.workers import WorkerInfo
from camora.jobs import unknown_job
from camora.message import Message
from camora.outcome import DeadLetter, JobRecord

if TYPE_CHECKING:
    from camora.app import Camora
    from camora.connections import Connection

__all__ = ["JobFacts", "gather"]

T = TypeVar("T")

_FAR = 10_000
"""Jobs that are looked at when those before this one are counted."""


@attrs.frozen(kw_only=True)
class JobFacts:
    """What is known of one job at one moment; None where the store cannot tell. `now` is ms since the epoch."""

    id: str
    now: int
    queued: QueuedJob | None = None
    message: Message | None = None
    """None too when it cannot be decoded."""
    record: JobRecord | None = None
    letter: DeadLetter | None = None
    keeps_results: bool = True
    unseen: str = ""
    """What it means that nothing is known of it, where the broker does not show its jobs."""
    workflow: str = ""
    """The workflow that the id is of, or is a part of, where no job of this id is known."""
    task_known: bool = True
    paused: bool | None = None
    workers: Sequence[WorkerInfo] | None = None
    """All that reported lately, of every queue."""
    limits: Sequence[tuple[Limit, LimitUse]] = ()
    ahead: int | None = None
    """Ready jobs of its queue that were dispatched before it; of at most 10,000 that were looked at."""


async def gather(app: Camora, job_id: str) -> JobFacts:
    """Look everything up, changing nothing. Raises `BrokerUnavailable`."""
    connection = await connection_of(app)
    broker, results = connection.broker, connection.results
    record = (await results.fetch([job_id]))[0] if results is not None else None
    queued = await _or_none(broker.queues.find(job_id))
    letter = await _or_none(broker.dead_letters.get(job_id))
    facts = JobFacts(
        id=job_id,
        now=app.clock.now_ms(),
        queued=queued,
        record=record,
        letter=letter,
        keeps_results=results is not None,
        unseen="" if broker.capabilities.inspect else unknown_job(connection, job_id),
        workflow="" if queued or record or letter else await workflow_of(connection, job_id),
    )
    if queued is None or queued.state == JobState.DEAD:
        return facts
    message = decoded(app, queued.body)
    paused = await _or_none(broker.queues.paused())
    directory = await connection.workers()
    return attrs.evolve(
        facts,
        message=message,
        task_known=app.tasks.for_message(queued.task, queued.queue) is not None,
        paused=None if paused is None else queued.queue in paused,
        workers=None if directory is None else await directory.list(),
        limits=await _limits(app, connection, message),
        ahead=await _ahead(connection, queued),
    )


async def _or_none(question: Awaitable[T]) -> T | None:
    try:
        return await question
    except UnsupportedCapability:
        return None


async def _limits(app: Camora, connection: Connection, message: Message | None) -> list[tuple[Limit, LimitUse]]:
    from camora.links.limits import limits_of

    task = app.tasks.for_message(message.task, message.queue) if message else None
    if message is None or task is None:
        return []
    try:
        wanted = limits_of(task, message, {queue.name: queue.rate_limit for queue in app.queues if queue.rate_limit})
    except PayloadError:
        return []
    store = await connection.limits() if wanted else None
    if store is None:
        return []
    return list(zip(wanted, await store.usage([limit.name for limit in wanted]), strict=True))


async def _ahead(connection: Connection, job: QueuedJob) -> int | None:
    """Ids grow with time, so those before it have smaller ones; priorities are not looked at."""
    if job.state != JobState.READY:
        return None
    count, after, seen = 0, "", 0
    while seen < _FAR:
        page = await _or_none(connection.broker.queues.list(job.queue, limit=500, after=after))
        if page is None:
            return None
        older = [other for other in page if other.id < job.id]
        count += sum(other.state == JobState.READY for other in older)
        if len(older) < len(page) or not page:
            break
        seen, after = seen + len(page), page[-1].id
    return count
