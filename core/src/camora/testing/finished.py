"""What has become of the jobs of a `TestWorker`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import overload

import attrs

from camora.clock import Clock
from camora.outcome import Action, ErrorInfo, JobRecord, Settlement, Status
from camora.testing.names import task_name

__all__ = ["Finished", "FinishedJob"]


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
        if record is not None:
            return self.add_record(record)
        status = Status.SUCCEEDED if letter is None else Status.FAILED
        error, attempts = (None, 1) if letter is None else (letter.error, letter.attempts)
        self._note(settlement.delivery.id, task, status, error, attempts)
        return str(status)

    def add_record(self, record: JobRecord) -> str:
        """Take note of an end; in a word, which."""
        self._note(record.id, record.task, record.status, record.error, record.attempts)
        return str(record.status)

    def _note(self, job_id: str, task: str, status: Status, error: ErrorInfo | None, attempts: int) -> None:
        self._jobs.append(
            FinishedJob(id=job_id, task=task, status=status, error=error, attempts=attempts, at=self._clock.now_ms())
        )

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
