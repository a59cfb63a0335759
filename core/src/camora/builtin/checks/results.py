"""Whether results are kept, and where others find them."""

from __future__ import annotations

from typing import Any

from camora.builtin.checks.looking import connection_of, failed, fine
from camora.builtin.memory.results import MemoryResultBackend
from camora.interfaces.operations import CheckResult
from camora.outcome import JobRecord, Status

__all__ = ["results_kept"]


async def results_kept(app: Any) -> CheckResult:
    """A record that is stored can be fetched."""
    connection = await connection_of(app)
    results = connection.results
    if results is None:
        return fine("kept nowhere: job.result() raises ResultsDisabled")
    job_id = f"camora.doctor.{app.clock.now_ms()}"
    record = JobRecord(id=job_id, status=Status.SUCCEEDED, finished=app.clock.now_ms(), ttl=60.0)
    await results.store([record])
    try:
        [found] = await results.fetch([job_id])
    finally:
        await results.forget([job_id])
    if found is None:
        return failed("a record that was stored was not there afterwards", "look at the result backend: does it evict?")
    if isinstance(results, MemoryResultBackend) and app.broker.capabilities.shared:
        return fine(
            "kept in the memory of the worker: other processes never see them",
            "name a store that processes share: Camora(results='sqlite:///camora.db'), or [results] url",
        )
    if results.private:
        return fine("sent to the process that dispatched the job, before the acknowledgement; no other one sees them")
    step = "in one step with the acknowledgement" if connection.atomic else "before the acknowledgement"
    return fine(f"stored and read back; written {step}")
