"""What has become of the jobs of a `TestWorker`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import attrs

from camora.clock import Clock
from camora.outcome import Action, ErrorInfo, Settlement, Status
from camora.testing.names import task_name

__all__ = ["Finished", "FinishedJob"]

_DEAD = Status.FAILED


@attrs.frozen(kw_only=True)
class FinishedJob:
    """One job that has ended. `at` is milliseconds since the epoch; `error` is None where nothing was raised."""

    id: str
    task: str
    status: Status
    error: ErrorInfo | None
    attempts: int
    at: int

    def __str__(self) -> str:
        why = f": {self.error.line}" if self.error else ""
        return f"{self.task} {self.id} {self.status} after {self.attempts} attempts{why}"


class Finished(Sequence[FinishedJob]):
    """The jobs that have ended, in that order."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._jobs: list[FinishedJob] = []

    def add(self, settlement: Settlement, task: str) -> str:
        """Take note of a settlement that was applied; in a word, what it was."""
        record, letter = settlement.record, settlement.letter
        if settlement.action is Action.RETRY:
            return "retried" if record is not None and record.error else "returned"
        status = record.status if record is not None else (_DEAD if letter is not None else Status.SUCCEEDED)
        error = record.error if record is not None else letter.error if letter is not None else None
        attempts = record.attempts if record is not None else letter.attempts if letter is not None else 1
        self._jobs.append(
            FinishedJob(
                id=settlement.delivery.id,
                task=task,
                status=status,
                error=error,
                attempts=attempts,
                at=self._clock.now_ms(),
            )
        )
        return str(status)

    def of(self, task: object) -> list[FinishedJob]:
        """Those of one task."""
        name = task_name(task)
        return [job for job in self._jobs if job.task == name]

    def with_status(self, status: Status | str) -> list[FinishedJob]:
        """Those that have ended in this way."""
        return [job for job in self._jobs if job.status == status]

    @overload
    def __getitem__(self, place: int) -> FinishedJob: ...
    @overload
    def __getitem__(self, place: slice) -> list[FinishedJob]: ...
    def __getitem__(self, place: int | slice) -> FinishedJob | list[FinishedJob]:
        return self._jobs[place]

    def __iter__(self) -> Iterator[FinishedJob]:
        return iter(list(self._jobs))

    def __len__(self) -> int:
        return len(self._jobs)

    def __repr__(self) -> str:
        return f"<{len(self)} finished jobs>"
