"""The ledger: what every worker says it began and ended, joined with what was dispatched.

Tests that kill workers cannot trust anything a worker remembers, nor the broker under test. So each process appends a
line to a file of its own when it starts a job and when it finishes it; a line is one `write`, which a kill leaves whole
or cut off, never mixed. Afterwards `audit` joins all files:

```python
ledger = Ledger(tmp_path)                     # in the task, in every worker process
with ledger.run(ctx.id, ctx.attempt): ...
audit(tmp_path, dispatched=ids, dead=letters, faults=17).summary()
# 'dispatched 1750, faults 17, lost 0, duplicated 3, …'
```
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import attrs

__all__ = ["Audit", "Entry", "Ledger", "audit", "read"]

_STARTED, _FINISHED = "started", "finished"
_SUFFIX = ".ledger"
_FIELDS = 4


@attrs.frozen
class Entry:
    """One line. `at` is nanoseconds since the epoch; `worker` is the name of the file it stands in."""

    kind: str
    job_id: str
    attempt: int
    at: int
    worker: str


class Ledger:
    """Appends the lines of this process. Use one for each process; it is safe in several threads."""

    def __init__(self, folder: str | Path) -> None:
        self._path = Path(folder) / f"{os.getpid()}-{time.time_ns():x}{_SUFFIX}"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def started(self, job_id: str, attempt: int) -> None:
        """Say that an attempt begins."""
        self._write(_STARTED, job_id, attempt)

    def finished(self, job_id: str, attempt: int) -> None:
        """Say that it has done its work."""
        self._write(_FINISHED, job_id, attempt)

    @contextlib.contextmanager
    def run(self, job_id: str, attempt: int) -> Iterator[None]:
        """Both, around the work; an attempt that raises has not finished."""
        self.started(job_id, attempt)
        yield
        self.finished(job_id, attempt)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)

    def _write(self, kind: str, job_id: str, attempt: int) -> None:
        # A leading newline as well: a line cut off by a kill cannot swallow the next one.
        os.write(self._file, f"\n{kind}\t{job_id}\t{attempt}\t{time.time_ns()}\n".encode())


def read(folder: str | Path) -> list[Entry]:
    """All whole lines of all files, in the order of time."""
    entries = []
    for path in sorted(Path(folder).glob(f"*{_SUFFIX}")):
        for line in path.read_text(errors="replace").split("\n"):
            fields = line.split("\t")
            if len(fields) == _FIELDS and fields[2].isdigit() and fields[3].isdigit():
                entries.append(Entry(fields[0], fields[1], int(fields[2]), int(fields[3]), path.name))
    return sorted(entries, key=lambda entry: entry.at)


@attrs.frozen(kw_only=True)
class Audit:
    """What became of everything that was dispatched. All but the numbers are ids, in order."""

    dispatched: int
    faults: int
    finished: int
    dead: int
    lost: tuple[str, ...]
    """Acknowledged to its dispatcher, never finished, and no dead letter."""
    duplicated: tuple[str, ...]
    """Finished more than once."""
    beside_itself: tuple[str, ...]
    """Ran in two workers at the same time."""
    early: tuple[str, ...]
    """Started before it was due."""
    strangers: tuple[str, ...]
    """Ran, and was never dispatched."""
    interrupted: int
    """Attempts that began and did not finish, because their worker was killed or the task raised."""
    longest_recovery: float
    """Seconds from the start of an interrupted attempt to the next start of its job, at most."""

    def summary(self) -> str:
        """One line, for the end of a test and for a report."""
        return (
            f"dispatched {self.dispatched}, faults {self.faults}, finished {self.finished}, dead {self.dead}, "
            f"lost {len(self.lost)}, duplicated {len(self.duplicated)}, beside itself {len(self.beside_itself)}, "
            f"early {len(self.early)}, strangers {len(self.strangers)}, interrupted {self.interrupted}, "
            f"longest recovery {self.longest_recovery:.1f} s"
        )

    def check(self, *, duplicates: int = 0) -> None:
        """Raise `AssertionError` if anything was lost, early, a stranger, or more than `duplicates` ran twice."""
        wrong = [
            f"{name}: {', '.join(ids[:5])}{' …' if len(ids) > 5 else ''}"
            for name, ids in (("lost", self.lost), ("early", self.early), ("never dispatched", self.strangers))
            if ids
        ]
        if len(self.duplicated) > duplicates:
            wrong.append(f"finished more than once, and {duplicates} may: {', '.join(self.duplicated[:5])}")
        if wrong:
            raise AssertionError(f"{self.summary()}\n" + "\n".join(wrong))


def audit(
    folder: str | Path,
    *,
    dispatched: Collection[str],
    dead: Collection[str] = (),
    due: Mapping[str, int] | None = None,
    faults: int = 0,
) -> Audit:
    """Join the ledgers in a folder with the ids that were acknowledged to their dispatcher.

    `dead` are the ids among the dead letters, `due` the milliseconds since the epoch before which a job must not start.
    """
    runs = _runs_of(read(folder))
    known, buried = set(dispatched), set(dead)
    times_finished = {job_id: sum(run.end is not None for run in of_job) for job_id, of_job in runs.items()}
    done = {job_id for job_id, times in times_finished.items() if times}
    due = due or {}
    return Audit(
        dispatched=len(known),
        faults=faults,
        finished=len(done & known),
        dead=len(buried & known),
        lost=tuple(sorted(known - done - buried)),
        duplicated=tuple(sorted(job_id for job_id, times in times_finished.items() if times > 1)),
        beside_itself=tuple(sorted(job_id for job_id, of_job in runs.items() if _overlap(of_job))),
        early=tuple(sorted(job_id for job_id in runs if runs[job_id][0].start < due.get(job_id, 0) * 1_000_000)),
        strangers=tuple(sorted(set(runs) - known)),
        interrupted=sum(run.end is None for of_job in runs.values() for run in of_job),
        longest_recovery=max(map(_recovery, runs.values()), default=0.0),
    )


@attrs.define
class _Run:
    worker: str
    start: int
    end: int | None = None


def _runs_of(entries: list[Entry]) -> dict[str, list[_Run]]:
    runs: dict[str, list[_Run]] = defaultdict(list)
    for entry in entries:
        if entry.kind == _STARTED:
            runs[entry.job_id].append(_Run(entry.worker, entry.at))
        elif entry.kind == _FINISHED:
            mine = [run for run in runs[entry.job_id] if run.worker == entry.worker and run.end is None]
            if mine:
                mine[-1].end = entry.at
            else:  # its start was cut off
                runs[entry.job_id].append(_Run(entry.worker, entry.at, entry.at))
    return runs


def _overlap(runs: list[_Run]) -> bool:
    """Only finished runs are sure to have lasted until then; one that was killed may have ended right away."""
    spans = sorted((run.start, run.end) for run in runs if run.end is not None)
    return any(later[0] < earlier[1] for earlier, later in itertools.pairwise(spans))


def _recovery(runs: list[_Run]) -> float:
    gaps = [(later.start - earlier.start) / 1e9 for earlier, later in itertools.pairwise(runs) if earlier.end is None]
    return max(gaps, default=0.0)
