"""Making what the suites publish and settle with."""

from __future__ import annotations

from typing import Any

from camora.ids import IdSource
from camora.message import Delivery, Envelope
from camora.outcome import Action, DeadLetter, ErrorInfo, JobRecord, Settlement, Status

__all__ = ["ack", "envelope", "fresh_id", "job_record", "letter_of", "reject", "release", "retry"]

fresh_id = IdSource()


def envelope(queue: str = "work", body: bytes = b"{}", **changes: Any) -> Envelope:
    """A message; with an id of its own unless it gets one."""
    changes.setdefault("id", fresh_id())
    changes.setdefault("task", "a.task")
    return Envelope(queue=queue, body=body, **changes)


def job_record(job_id: str, status: Status = Status.SUCCEEDED, **changes: Any) -> JobRecord:
    """A record; with a value if it succeeded."""
    if status is Status.SUCCEEDED:
        changes.setdefault("value", b"42")
    return JobRecord(id=job_id, status=status, task="a.task", queue="work", **changes)


def letter_of(delivery: Delivery, **changes: Any) -> DeadLetter:
    """The dead letter for this delivery."""
    changes.setdefault("error", ErrorInfo(type="builtins.ValueError", text="no"))
    return DeadLetter(
        id=delivery.id,
        queue=delivery.queue,
        task="a.task",
        body=delivery.body,
        deliveries=delivery.deliveries,
        died=1_700_000_000_000,
        **changes,
    )


def ack(delivery: Delivery, **more: Any) -> Settlement:
    """It is finished."""
    return Settlement(delivery=delivery, action=Action.ACK, **more)


def retry(delivery: Delivery, body: bytes = b"again", *, due: int = 0, **more: Any) -> Settlement:
    """Another attempt, with another body."""
    again = envelope(delivery.queue, body, id=delivery.id, due=due, **more.pop("changes", {}))
    return Settlement(delivery=delivery, action=Action.RETRY, envelope=again, **more)


def reject(delivery: Delivery, *, letter: DeadLetter | None = None, **more: Any) -> Settlement:
    """To the dead letters."""
    return Settlement(delivery=delivery, action=Action.REJECT, letter=letter or letter_of(delivery), **more)


def release(delivery: Delivery, *, delay: float = 0.0, charged: bool = True, **more: Any) -> Settlement:
    """Given back."""
    return Settlement(delivery=delivery, action=Action.RELEASE, delay=delay, charged=charged, **more)
