"""Whether the job of the tick before is still under way."""

from __future__ import annotations

from camora.connections import Connection
from camora.interfaces.broker import JobState

__all__ = ["unfinished"]


async def unfinished(connection: Connection, job_id: str) -> bool:
    """True for a job that waits, runs, or is to be tried again. Raises `BrokerUnavailable`."""
    if not job_id:
        return False
    if connection.results is not None:
        [record] = await connection.results.fetch([job_id])
        if record is not None and record.status.finished:
            return False
    queued = await connection.broker.queues.find(job_id)
    return queued is not None and JobState(queued.state) is not JobState.DEAD
