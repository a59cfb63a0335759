"""The handle to a dispatched job."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Protocol, TypeVar

import attrs

from camora.outcome import CancelResult, ErrorInfo, Progress, Status

__all__ = ["Job", "JobInfo", "JobsPort"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


@attrs.frozen(kw_only=True)
class JobInfo:
    """What is known of a job; moments are aware and in UTC, None where not (yet) known."""

    id: str
    status: Status
    task: str = ""
    queue: str = ""
    attempts: int = 0
    deliveries: int = 0
    created: datetime | None = None
    due: datetime | None = None
    started: datetime | None = None
    finished: datetime | None = None
    worker: str = ""
    error: ErrorInfo | None = None
    progress: Progress | None = None


class JobsPort(Protocol):
    """Where a handle asks: the app."""

    async def result(self, job_id: str, timeout: float | None) -> Any:
        """Wait for a job's value."""

    async def info(self, job_id: str) -> JobInfo:
        """Look a job up."""

    async def cancel(self, job_id: str) -> CancelResult:
        """Stop a job."""

    def run_sync(self, coroutine: Any) -> Any:
        """Run one of the above from code without an event loop."""


class Job(Generic[R_co]):
    """A dispatched job: ask it how it goes, or wait for its value. Cheap, and valid in any process."""

    __slots__ = ("_port", "id", "task")

    def __init__(self, job_id: str, task: str, port: JobsPort) -> None:
        self.id = job_id
        self.task = task
        self._port = port

    async def result(self, timeout: float | None = None) -> R_co:
        """The value, as the task's annotated return type; waits up to `timeout` seconds (None: for ever).

        Raises `JobFailed`, `JobTimeout`, `JobDiscarded`, `JobExpired`, `JobCancelled`, `ResultTimeout`,
        `ResultExpired` or `ResultsDisabled`.
        """
        value: R_co = await self._port.result(self.id, timeout)
        return value

    async def status(self) -> Status:
        """Where the job stands now. Does I/O, does not wait."""
        return (await self._port.info(self.id)).status

    async def info(self) -> JobInfo:
        """Attempts, times, worker, error and progress. Does I/O, does not wait."""
        return await self._port.info(self.id)

    async def cancel(self) -> CancelResult:
        """Remove the job if it waits; interrupt it if it runs as a coroutine. Says which happened."""
        return await self._port.cancel(self.id)

    def result_sync(self, timeout: float | None = None) -> R_co:
        """`result` for code without an event loop; blocks."""
        value: R_co = self._port.run_sync(self._port.result(self.id, timeout))
        return value

    def __repr__(self) -> str:
        return f"<Job {self.id} of {self.task}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)
