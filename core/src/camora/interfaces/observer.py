"""Observers: they see what happens, and can change nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import msgspec

__all__ = [
    "Event",
    "JobCancelled",
    "JobDeadLettered",
    "JobDiscarded",
    "JobDispatched",
    "JobEvent",
    "JobExpired",
    "JobFailed",
    "JobReceived",
    "JobReleased",
    "JobRetried",
    "JobStarted",
    "JobSucceeded",
    "LeaseLost",
    "Observer",
    "QueuePaused",
    "QueueResumed",
    "ScheduleFired",
    "WorkerEvent",
    "WorkerStarted",
    "WorkerStopping",
]


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something that happened. `at` is milliseconds since the epoch."""

    kind: ClassVar[str] = ""
    """What happened, as one stable text: `job.succeeded`."""
    at: int


class JobEvent(Event, frozen=True, kw_only=True, gc=False):
    """Something that happened to a job. `worker` is empty where a dispatcher tells it.

    `sequence_number` is the message's own number in its broker, where that shows one to workers; else 0.
    """

    job_id: str
    task: str = ""
    queue: str = ""
    attempt: int = 0
    worker: str = ""
    sequence_number: int = 0


class JobDispatched(JobEvent, frozen=True, kw_only=True, gc=False):
    """The broker has it. `due` is 0 for now, else milliseconds since the epoch."""

    kind: ClassVar[str] = "job.dispatched"
    due: int = 0


class JobReceived(JobEvent, frozen=True, kw_only=True, gc=False):
    """A worker took it from the broker. `deliveries` counts how often it was taken, this time included."""

    kind: ClassVar[str] = "job.received"
    deliveries: int = 1


class JobStarted(JobEvent, frozen=True, kw_only=True, gc=False):
    """An attempt began. `waited` is seconds since the job was due."""

    kind: ClassVar[str] = "job.started"
    waited: float = 0.0


class JobSucceeded(JobEvent, frozen=True, kw_only=True, gc=False):
    """It ended well, and that is settled. `duration` is seconds of the last attempt."""

    kind: ClassVar[str] = "job.succeeded"
    duration: float = 0.0


class JobRetried(JobEvent, frozen=True, kw_only=True, gc=False):
    """An attempt failed, and another one follows after `delay` seconds."""

    kind: ClassVar[str] = "job.retried"
    duration: float = 0.0
    delay: float = 0.0
    error: str = ""
    """Type and first line of the exception."""


class JobFailed(JobEvent, frozen=True, kw_only=True, gc=False):
    """It failed for good."""

    kind: ClassVar[str] = "job.failed"
    duration: float = 0.0
    error: str = ""


class JobDeadLettered(JobEvent, frozen=True, kw_only=True, gc=False):
    """Its message went to the dead letters, for `reason`; comes after `JobFailed` where it had failed."""

    kind: ClassVar[str] = "job.dead_lettered"
    reason: str = ""
    error: str = ""


class JobExpired(JobEvent, frozen=True, kw_only=True, gc=False):
    """It was not started in time, and was dropped."""

    kind: ClassVar[str] = "job.expired"


class JobDiscarded(JobEvent, frozen=True, kw_only=True, gc=False):
    """The task said `Discard`."""

    kind: ClassVar[str] = "job.discarded"


class JobCancelled(JobEvent, frozen=True, kw_only=True, gc=False):
    """Somebody cancelled it while it was in a worker's hands."""

    kind: ClassVar[str] = "job.cancelled"


class JobReleased(JobEvent, frozen=True, kw_only=True, gc=False):
    """It was given back without an attempt, for `delay` seconds: a limit, a shutdown, an unknown task, a crash."""

    kind: ClassVar[str] = "job.released"
    delay: float = 0.0
    error: str = ""


class LeaseLost(JobEvent, frozen=True, kw_only=True, gc=False):
    """The worker could not keep the delivery: another one may have the job."""

    kind: ClassVar[str] = "job.lease_lost"


class WorkerEvent(Event, frozen=True, kw_only=True, gc=False):
    """Something that happened to a worker."""

    worker: str


class WorkerStarted(WorkerEvent, frozen=True, kw_only=True):
    """It takes jobs of these queues."""

    kind: ClassVar[str] = "worker.started"
    queues: tuple[str, ...] = ()


class WorkerStopping(WorkerEvent, frozen=True, kw_only=True, gc=False):
    """It takes nothing more; `busy` jobs still run."""

    kind: ClassVar[str] = "worker.stopping"
    busy: int = 0


class QueuePaused(Event, frozen=True, kw_only=True, gc=False):
    """This queue's jobs are not handed out any more."""

    kind: ClassVar[str] = "queue.paused"
    queue: str


class QueueResumed(Event, frozen=True, kw_only=True, gc=False):
    """This queue's jobs are handed out again."""

    kind: ClassVar[str] = "queue.resumed"
    queue: str


class ScheduleFired(Event, frozen=True, kw_only=True, gc=False):
    """A tick of a schedule (`tick`: milliseconds since the epoch) sent this job."""

    kind: ClassVar[str] = "schedule.fired"
    key: str
    tick: int
    job_id: str = ""


class Observer(ABC):
    """Sees events in batches, beside the work. What it raises is counted and logged, never passed on."""

    @property
    def name(self) -> str:
        """What it is called in lists and logs."""
        return type(self).__name__

    @abstractmethod
    async def observe(self, events: Sequence[Event]) -> None:
        """Take note. Ended after 5 seconds; events that arrive meanwhile wait in a bounded buffer."""

    async def close(self) -> None:  # noqa: B027 -- most have nothing to do
        """The app lets go of it; nothing comes after."""
