"""The running job, as its function and the middleware around it see it."""

from __future__ import annotations

from typing import Any, Protocol

from camora.job import Job
from camora.message import Message
from camora.outcome import Progress
from camora.task import AnyTask

__all__ = ["Context", "JobPort"]


class JobPort(Protocol):
    """What a running job can reach of its worker."""

    async def dispatch(self, what: Any, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Dispatch another job."""

    async def report(self, context: Context, progress: Progress) -> None:
        """Store progress."""


class Context:
    """One attempt of one job; lives as long as the attempt, and is not to be changed.

    Ask for it by annotating a parameter with `Context`. `state` is middleware's own: a dict of this attempt, in this
    process only.
    """

    __slots__ = ("_port", "cancelled", "deliveries", "encoded", "lease_lost", "message", "started", "state", "task", "worker")

    def __init__(self, message: Message, task: AnyTask, *, worker: str, deliveries: int, port: JobPort) -> None:
        self.message = message
        self.task = task
        self.worker = worker
        self.deliveries = deliveries
        self.state: dict[Any, Any] = {}
        self.cancelled = False
        """True once somebody has asked to cancel the job; functions outside the event loop may look at it."""
        self.lease_lost = False
        """True once another worker may have the job: whatever this attempt returns will not count."""
        self.encoded: bytes | None = None
        self.started = 0
        self._port = port

    @property
    def id(self) -> str:
        """The job's id."""
        return self.message.id

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self.message.attempt

    @property
    def queue(self) -> str:
        """The queue it came from."""
        return self.message.queue

    @property
    def headers(self) -> dict[str, str]:
        """Texts that travelled with the message."""
        return self.message.headers

    @property
    def timeout(self) -> float | None:
        """Seconds this attempt may take; None is no limit."""
        return self.task.config.timeout if self.message.timeout is None else self.message.timeout

    async def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        """Say how far the job is; `job.info()` shows it. Raises `ResultsDisabled` where no results are kept."""
        await self._port.report(self, Progress(done=done, total=total, text=text))

    async def dispatch(self, what: Any, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Dispatch another job: as `app.dispatch`."""
        return await self._port.dispatch(what, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<Context of {self.task.name} {self.id}, attempt {self.attempt}>"
