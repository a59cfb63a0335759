"""How an attempt ended, what its settlement does, and what is remembered of the job."""

from __future__ import annotations

import enum

import msgspec

from camora.message import Delivery, Envelope

__all__ = [
    "Action",
    "CancelResult",
    "DeadLetter",
    "ErrorInfo",
    "JobRecord",
    "Outcome",
    "OutcomeKind",
    "Progress",
    "Settlement",
    "Status",
]


class Status(enum.StrEnum):
    """What `job.status()` answers."""

    QUEUED = "queued"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DISCARDED = "discarded"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    UNKNOWN = "unknown"

    @property
    def finished(self) -> bool:
        """True when the job will not change any more."""
        return self in _FINISHED


_FINISHED = frozenset({Status.SUCCEEDED, Status.FAILED, Status.DISCARDED, Status.EXPIRED, Status.CANCELLED})


class CancelResult(enum.StrEnum):
    """What `job.cancel()` achieved."""

    REMOVED = "removed"
    """It was waiting, and will never run."""
    SIGNALLED = "signalled"
    """It is running; its worker has been told to cancel it. Async functions are interrupted, others are not."""
    FINISHED = "finished"
    """Too late: it has ended already."""
    UNKNOWN = "unknown"
    """The broker has no such job."""


class ErrorInfo(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """An exception as text, bounded in size, so that it can be stored and shown anywhere."""

    type: str
    """Qualified name of the exception's class."""
    text: str = ""
    traceback: str = ""
    timeout: bool = False
    """True when the framework stopped the attempt for taking too long."""

    @property
    def line(self) -> str:
        """Type and first line of the text, for logs."""
        lines = self.text.splitlines()
        return f"{self.type}: {lines[0][:300]}" if lines else self.type


class Progress(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """What a running job last said of itself."""

    done: float = 0
    total: float | None = None
    text: str = ""


class JobRecord(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """What a result backend keeps of a job. Moments are milliseconds since the epoch, `ttl` is seconds."""

    id: str
    status: Status
    task: str = ""
    queue: str = ""
    value: bytes | None = None
    """The encoded result; None when there is none or it was not to be kept."""
    kept: bool = True
    """False when the task's results are switched off: only the status is remembered."""
    error: ErrorInfo | None = None
    attempts: int = 0
    created: int = 0
    started: int = 0
    finished: int = 0
    worker: str = ""
    progress: Progress | None = None
    ttl: float = 86400.0

    def __repr__(self) -> str:
        """Without the result, in which there may be secrets."""
        return f"<JobRecord {self.id} of {self.task or 'no known task'}: {self.status.value}>"


class DeadLetter(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """A message that will not run again by itself, kept whole. `died` is milliseconds since the epoch."""

    id: str
    queue: str
    task: str = ""
    body: bytes = b""
    """The message exactly as it came, undecodable bytes included."""
    reason: str = "failed"
    """`failed`, `undecodable`, `payload`, `poison`, `unknown_task`, `refused` or `too_large`; of signed messages also
    `unsigned`, `unknown_key`, `forged`, `mismatch` or `stale`."""
    error: ErrorInfo | None = None
    attempts: int = 0
    deliveries: int = 0
    died: int = 0

    def __repr__(self) -> str:
        """Without the message: whoever prints it does not know what in it is secret."""
        return f"<DeadLetter {self.id} of {self.task or 'no known task'} from {self.queue!r}: {self.reason}>"


class OutcomeKind(enum.Enum):
    """The ways an attempt can end. The first five end the job."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    DISCARDED = "discarded"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    RETRY = "retry"
    """To run again later, as a further attempt."""
    RELEASED = "released"
    """Given back unrun, for another worker or another time; not an attempt."""
    CRASHED = "crashed"
    """The process that ran the function died: given back, and counted as a delivery."""
    SUSPENDED = "suspended"
    """It has asked to be begun anew later, as the same attempt."""


class Outcome(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """How one attempt ended: a value, decided before anything is done about it.

    `delay` (seconds) is when to come back, for RETRY, RELEASED, CRASHED and SUSPENDED. `reason` names the dead letter's
    reason when FAILED leads there.
    """

    kind: OutcomeKind
    encoded: bytes | None = None
    error: ErrorInfo | None = None
    delay: float = 0.0
    reason: str = "failed"
    charged: bool = False
    """RELEASED only: count it as a miss of this message."""


class Action(enum.Enum):
    """What a settlement does to the message."""

    ACK = "ack"
    """Gone: the job is finished."""
    RETRY = "retry"
    """Replaced, in one step, by `Settlement.envelope`: same id, a later attempt, perhaps a later time."""
    REJECT = "reject"
    """Moved, in one step, to the dead letters as `Settlement.letter`."""
    RELEASE = "release"
    """Given back as it is after `delay` seconds. Uncharged: the delivery is taken off the count where it can be."""


class Settlement(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """The end of a delivery, as one step of the broker. See `Consumer.settle`."""

    delivery: Delivery
    action: Action
    record: JobRecord | None = None
    """To be stored in the same step, when the broker said `settles_into` the result backend; else None."""
    successors: tuple[Envelope, ...] = ()
    """To be published in the same step, before the message is gone."""
    others: tuple[JobRecord, ...] = ()
    """Where the result backend is `private`: records of other jobs, for whoever dispatched this one; else empty."""
    envelope: Envelope | None = None
    letter: DeadLetter | None = None
    delay: float = 0.0
    charged: bool = True
    before: bool = False
    """Settled before the run (`ack="before"`): once it is answered, the death of this process must not give it back."""
