"""Which workers there are, and telling them something."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal, Self

import msgspec

__all__ = ["Order", "RunningJob", "WorkerDirectory", "WorkerInfo"]

Order = Literal["quiet", "resume", "stop"]
"""`quiet`: take nothing more, go on running; `resume`: take again; `stop`: drain, then end."""


class RunningJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job in a worker's hands. `since` is milliseconds since the epoch."""

    id: str
    task: str
    queue: str
    since: int


class WorkerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker last said of itself. Moments are milliseconds since the epoch, `cpu` is a share of one core."""

    name: str
    kind: str = "worker"
    """`worker` or `scheduler`."""
    host: str = ""
    pid: int = 0
    app: str = ""
    version: str = ""
    queues: tuple[str, ...] = ()
    concurrency: int = 0
    state: str = "running"
    """`running`, `quiet` or `stopping`."""
    running: tuple[RunningJob, ...] = ()
    """At most 20 of them, the longest first."""
    busy: int = 0
    settled: int = 0
    cpu: float = 0.0
    memory: int = 0
    """Resident bytes of its process."""
    started: int = 0
    polled: int = 0
    """When the broker last answered it."""
    seen: int = 0
    """When it last reported."""


class WorkerDirectory(ABC):
    """Where workers report, and find orders. Belongs to the event loop in which it was opened.

    It is small and written often: a report is one quick step, and wakes nobody who waits for work. Time is the store's,
    where it has one. Every method raises `BrokerUnavailable` when the store is away.
    """

    @abstractmethod
    async def open(self) -> None:
        """Connect, and create what is missing."""

    @abstractmethod
    async def report(self, info: WorkerInfo, *, ttl: float) -> Sequence[Order]:
        """Note that this worker lives, for `ttl` seconds from now; replaces what it said before, `info` kept whole.

        Returns the orders given to it since it last asked, oldest first; each is handed out once.
        """

    @abstractmethod
    async def list(self) -> Sequence[WorkerInfo]:
        """All that have reported within their time, in order of name. The others are forgotten, with their orders."""

    @abstractmethod
    async def order(self, name: str, order: Order) -> bool:
        """Leave an order for a worker, which finds it with its next report; False when there is no such worker."""

    @abstractmethod
    async def remove(self, name: str) -> None:
        """Forget a worker and its orders: it has ended. May be repeated, and for one that never was."""

    @abstractmethod
    def twin(self) -> Self:
        """An unopened one on the same data, for another event loop or thread."""

    def abandon(self) -> None:  # noqa: B027 -- most have nothing to do
        """As `Broker.abandon`."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections. May be repeated."""
