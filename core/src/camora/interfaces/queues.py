"""Looking into a broker's queues, and stopping things in them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import msgspec

from camora.errors import UnsupportedCapability
from camora.outcome import CancelResult

__all__ = ["CancelResult", "QueuedJob", "Queues"]


class QueuedJob(msgspec.Struct, frozen=True, kw_only=True):
    """A message as it lies in the broker. `state` is a `JobState`; moments are milliseconds since the epoch."""

    id: str
    task: str
    queue: str
    state: str
    due: int = 0
    deliveries: int = 0
    worker: str = ""
    body: bytes = b""

    def __repr__(self) -> str:
        """Without the message, in which there may be secrets."""
        return f"<QueuedJob {self.id} of {self.task or 'no known task'} in {self.queue!r}: {self.state}>"


class Queues(ABC):
    """Inspection and control. All methods do I/O, may be repeated, and raise `BrokerUnavailable`."""

    @abstractmethod
    async def counts(self) -> Mapping[str, Mapping[str, int]]:
        """For each queue that holds anything: how many messages are in which `JobState`.

        A broker that does not declare `inspect` counts what it can see, those that are ready at least, or raises
        `UnsupportedCapability`.
        """

    @abstractmethod
    async def find(self, job_id: str) -> QueuedJob | None:
        """Where the message lies; None when the broker does not hold it (it is finished, or never was)."""

    @abstractmethod
    async def list(self, queue: str, *, limit: int = 100, after: str = "") -> Sequence[QueuedJob]:
        """Unfinished messages of a queue with an id greater than `after`, in order of id, without bodies."""

    @abstractmethod
    async def cancel(self, job_id: str) -> CancelResult:
        """Remove a waiting message, or flag a leased one for its worker (see `Leases.cancelled`). One atomic step.

        A broker that declares `cancel_scheduled` alone removes what is not due yet, and raises `UnsupportedCapability`
        for any other id: it cannot know whether that job waits, runs, has ended or never was.
        """

    async def reschedule(self, job_id: str, due: int) -> bool:
        """Make a waiting message, whether it is ready or not due yet, due at `due` (milliseconds since the epoch).

        A moment that has passed means now. One atomic step; nothing else of the message changes. False where it does
        not wait: it runs, is dead or finished, or never was. Raises `UnsupportedCapability` where the broker does not
        declare `reschedule`.
        """
        raise UnsupportedCapability(
            f"job {job_id} stays due when it was to be: its broker cannot change that for messages it has stored. "
            f"SQL, Redis and memory brokers can (sqlite:///…, postgresql://…, redis://…, memory://)",
            capability="reschedule",
        )

    @abstractmethod
    async def pause(self, queue: str, *, paused: bool = True) -> None:
        """Stop (or let go on) handing out this queue's messages, for all workers, until resumed."""

    @abstractmethod
    async def paused(self) -> Sequence[str]:
        """The names of all paused queues."""

    @abstractmethod
    async def purge(self, queue: str) -> int:
        """Delete all waiting messages of a queue for good; returns how many. Leased ones stay.

        Those that are not due yet, too, where the broker declares `inspect`; else they may stay.
        """
