"""What a lane tells observers of its jobs. Nothing is made while nobody observes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from camora.clock import Clock
from camora.context import Context
from camora.events import EventBus
from camora.executor import Run
from camora.interfaces.observer import (
    JobCancelled,
    JobDeadLettered,
    JobDiscarded,
    JobDispatched,
    JobExpired,
    JobFailed,
    JobReceived,
    JobReleased,
    JobRetried,
    JobStarted,
    JobSucceeded,
    LeaseLost,
)
from camora.message import Delivery, Envelope
from camora.outcome import Action, Outcome, OutcomeKind, Settlement

__all__ = ["Reports"]


class Reports:
    """Makes events of one worker's jobs."""

    def __init__(self, events: EventBus, clock: Clock, worker: str) -> None:
        self._events = events
        self._clock = clock
        self._worker = worker
        self.wanted = events.active

    def received(self, deliveries: Sequence[Delivery]) -> None:
        """They were taken; what they are of is known when they are decoded."""
        now = self._clock.now_ms()
        for delivery in deliveries:
            self._events.emit(
                JobReceived(
                    at=now,
                    job_id=delivery.id,
                    queue=delivery.queue,
                    worker=self._worker,
                    deliveries=delivery.deliveries,
                    sequence_number=delivery.sequence_number,
                )
            )

    def began(self, context: Context) -> None:
        """The function is called."""
        message = context.message
        waited = max(0, context.started - max(message.due, message.created)) / 1000
        self._events.emit(JobStarted(at=context.started, **_of_context(context), worker=self._worker, waited=waited))

    def lease_lost(self, run: Run) -> None:
        """Another worker may have it."""
        self._events.emit(LeaseLost(at=self._clock.now_ms(), **self._of(run)))

    def settled(self, run: Run, outcome: Outcome, settlement: Settlement) -> None:
        """It has ended, or goes on later, and the broker knows."""
        now = self._clock.now_ms()
        started = run.context.started if run.context is not None else 0
        duration = max(0, now - started) / 1000 if started else 0.0
        about = {"at": now, **self._of(run)}
        error = outcome.error.line if outcome.error is not None else ""
        emit = self._events.emit
        match outcome.kind:
            case OutcomeKind.SUCCEEDED:
                emit(JobSucceeded(**about, duration=duration))
            case OutcomeKind.RETRY:
                emit(JobRetried(**about, duration=duration, delay=outcome.delay, error=error))
            case OutcomeKind.FAILED if settlement.action is Action.RETRY:
                due = settlement.envelope.due if settlement.envelope is not None else 0
                emit(JobRetried(**about, duration=duration, delay=max(0, due - now) / 1000, error=error))
            case OutcomeKind.FAILED:
                emit(JobFailed(**about, duration=duration, error=error))
            case OutcomeKind.DISCARDED:
                emit(JobDiscarded(**about))
            case OutcomeKind.EXPIRED:
                emit(JobExpired(**about))
            case OutcomeKind.CANCELLED:
                emit(JobCancelled(**about))
            case _:
                emit(JobReleased(**about, delay=outcome.delay, error=error))
        if settlement.action is Action.REJECT and settlement.letter is not None:
            emit(JobDeadLettered(**about, reason=settlement.letter.reason, error=error))

    def dispatched(self, successors: Sequence[Envelope]) -> None:
        """What follows it has been published with its end."""
        now = self._clock.now_ms()
        for one in successors:
            self._events.emit(
                JobDispatched(at=now, job_id=one.id, task=one.task, queue=one.queue, attempt=1, due=one.due)
            )

    def _of(self, run: Run) -> dict[str, Any]:
        message, delivery = run.message, run.delivery
        return {
            "job_id": delivery.id,
            "task": message.task if message else "",
            "queue": delivery.queue,
            "attempt": message.attempt if message else 0,
            "worker": self._worker,
            "sequence_number": delivery.sequence_number,
        }


def _of_context(context: Context) -> dict[str, Any]:
    return {
        "job_id": context.id,
        "task": context.task.name,
        "queue": context.delivery.queue,
        "attempt": context.attempt,
        "sequence_number": context.delivery.sequence_number,
    }
