"""The running job, as its function and the middleware around it see it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from camora.job import Job
from camora.limits import Limit
from camora.message import Delivery, Message
from camora.outcome import Progress
from camora.task import AnyTask

__all__ = ["Context", "JobPort"]


_NOTHING: dict[str, Any] = {}


class JobPort(Protocol):
    """What a running job can reach of its worker."""

    async def dispatch(self, what: Any, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Dispatch another job."""

    async def acknowledge(self, context: Context) -> bool:
        """Settle the job before it runs; False when it is no longer this worker's."""

    async def report(self, context: Context, progress: Progress) -> None:
        """Store progress."""

    def holding(self, context: Context, limits: Sequence[Limit]) -> AbstractAsyncContextManager[None]:
        """Inside the block, these limits are kept."""

    @property
    def watched(self) -> bool:
        """True when somebody wants to know that the function is called."""

    def began(self, context: Context) -> None:
        """The function is called."""


class Context:
    """One attempt of one job; lives as long as the attempt, and is not to be changed.

    Ask for it by annotating a parameter with `Context`.
    """

    __slots__ = (
        "_port",
        "_state",
        "acknowledged",
        "arguments",
        "cancelled",
        "delivery",
        "encoded",
        "encoder",
        "injected",
        "lease_lost",
        "message",
        "ran",
        "started",
        "task",
        "worker",
    )

    def __init__(self, message: Message, task: AnyTask, *, delivery: Delivery, worker: str, port: JobPort) -> None:
        self.message = message
        self.task = task
        self.worker = worker
        self.delivery = delivery
        self._state: dict[Any, Any] | None = None
        self.cancelled = False
        """True once somebody has asked to cancel the job; functions outside the event loop may look at it."""
        self.acknowledged = False
        """True once the message was settled before the end: then the attempt is the last one, whatever comes."""
        self.lease_lost = False
        """True once another worker may have the job: whatever this attempt returns will not count."""
        self.encoded: bytes | None = None
        """The encoded result, once there is one."""
        self.encoder: Callable[[Context, Any], bytes | None] | None = None
        """Encodes a result; set by the link that does so at the end."""
        self.started = 0
        """When the function was called, in milliseconds since the epoch; 0 before."""
        self.ran = False
        """True from the moment the function is called: an error before that is no attempt."""
        self.arguments: tuple[list[Any], dict[str, Any]] = ([], {})
        """The payload as the function gets it, once it is bound."""
        self.injected: dict[str, Any] = _NOTHING
        self._port = port

    @property
    def state(self) -> dict[Any, Any]:
        """Middleware's own, for the length of this attempt."""
        if self._state is None:
            self._state = {}
        return self._state

    @property
    def id(self) -> str:
        """The job's id."""
        return self.message.id

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self.message.attempt

    @property
    def deliveries(self) -> int:
        """How often the message was taken without being settled, this time included."""
        return self.delivery.deliveries

    @property
    def queue(self) -> str:
        """The queue it came from."""
        return self.delivery.queue

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

    async def acknowledge(self) -> bool:
        """Settle the message now, before the end; False when it belongs to another worker by now."""
        return await self._port.acknowledge(self)

    def holding(self, limits: Sequence[Limit]) -> AbstractAsyncContextManager[None]:
        """Inside the block, these limits are kept over all workers. Raises `NotYet` rather than wait for long."""
        return self._port.holding(self, limits)

    def encode_result(self, value: Any) -> bytes | None:
        """The result as it will be stored; None where none is kept. Raises for one that cannot be stored."""
        return None if self.encoder is None else self.encoder(self, value)

    def begin(self, now: int) -> None:
        """The function is called at this moment, in milliseconds since the epoch; only the first time counts."""
        if self.ran:
            return
        self.started = now
        self.ran = True
        if self._port.watched:
            self._port.began(self)

    async def dispatch(self, what: Any, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Dispatch another job: as `app.dispatch`."""
        return await self._port.dispatch(what, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<Context of {self.task.name} {self.id}, attempt {self.attempt}>"
