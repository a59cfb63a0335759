"""Looking into the queues, and stopping things in them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from camora.interfaces.broker import JobState
from camora.interfaces.queues import CancelResult, QueuedJob, Queues

from camora_sql import statements
from camora_sql.link import Link
from camora_sql.publishing import end_keys
from camora_sql.schema import State
from camora_sql.session import Session
from camora_sql.statements import Builder
from camora_sql.store import Store
from camora_sql.wakeup import Topic

__all__ = ["SqlQueues"]

_STEP = 1000
"""Messages that one transaction of a purge deletes: others want to write, too."""
_STATES = {State.READY: JobState.READY, State.SCHEDULED: JobState.SCHEDULED, State.LEASED: JobState.LEASED}


class SqlQueues(Queues):
    """Each method is one transaction, but for `purge`, which is many small ones."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._store = link.store

    async def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Reads the whole backlog: made for people who look, not for loops."""

        def count(session: Session) -> dict[str, dict[str, int]]:
            found: dict[str, dict[str, int]] = defaultdict(dict)
            for queue, state, number in session.rows(statements.count_jobs):
                found[queue][_STATES.get(state, JobState.READY).value] = number
            for queue, number in session.rows(statements.count_letters):
                found[queue][JobState.DEAD.value] = number
            return dict(found)

        return await self._link.read(count)

    async def find(self, job_id: str) -> QueuedJob | None:
        """By id."""

        def find(session: Session) -> QueuedJob | None:
            for row in session.rows(statements.find_job, (job_id,)):
                return _shown(row[:-1], row[-1])
            for _, queue, task, body, _, _, _, deliveries, died in session.rows(statements.read_letter, (job_id,)):
                dead = JobState.DEAD.value
                return QueuedJob(
                    id=job_id, task=task, queue=queue, state=dead, due=died, deliveries=deliveries, body=body
                )
            return None

        return await self._link.read(find)

    async def list(self, queue: str, *, limit: int = 100, after: str = "") -> Sequence[QueuedJob]:
        """A page."""
        values = (queue, after, limit)
        rows = await self._link.read(lambda session: session.rows(statements.list_jobs, values))
        return [_shown(row, b"") for row in rows]

    async def cancel(self, job_id: str) -> CancelResult:
        """A job whose lease is over waits, whoever had it."""
        return await self._link.write(lambda session: _cancel(session, self._store, job_id))

    async def reschedule(self, job_id: str, due: int) -> bool:
        """A job whose lease is over waits, whoever had it."""
        return await self._link.write(lambda session: _reschedule(session, self._store, job_id, due))

    async def pause(self, queue: str, *, paused: bool = True) -> None:
        """For all workers, from their next claim on."""

        def pause(session: Session) -> None:
            session.change(statements.set_paused, (queue, int(paused)))
            session.announce(Topic.JOBS)

        await self._link.write(pause)

    async def paused(self) -> Sequence[str]:
        """In order of name."""
        rows = await self._link.read(lambda session: session.rows(statements.paused_queues))
        return [row[0] for row in rows]

    async def purge(self, queue: str) -> int:
        """In steps: messages that are published meanwhile may go, too."""

        def step(build: Builder) -> Any:
            def delete(session: Session) -> int:
                rows = session.rows(build, (queue, _STEP))
                session.change_in(statements.delete_jobs, [row[0] for row in rows])
                keyed = [(key, job_id, ttl) for _, job_id, key, ttl in rows if key is not None]
                end_keys(session, keyed, self._store.now())
                return len(rows)

            return delete

        total = 0
        for build in (statements.some_ready, statements.some_scheduled):
            while True:
                deleted: int = await self._link.write(step(build))
                total += deleted
                if deleted < _STEP:
                    break
        return total


def _cancel(session: Session, store: Store, job_id: str) -> CancelResult:
    rows = session.rows(statements.read_for_cancel, (job_id,))
    if not rows:
        over = session.rows_in(statements.is_over, [job_id], times=3)
        return CancelResult.FINISHED if over else CancelResult.UNKNOWN
    [(seq, state, lease_until, key, key_ttl)] = rows
    if state == State.LEASED and lease_until > store.lease_now():
        session.change(statements.flag, (seq,))
        session.announce(Topic.JOBS)
        return CancelResult.SIGNALLED
    session.change(statements.delete_jobs, (seq,))
    now = store.now()
    session.insert(statements.remember, [(job_id, now + round(store.settings.dedup_window * 1000))])
    if key is not None:
        end_keys(session, [(key, job_id, key_ttl)], now)
    return CancelResult.REMOVED


def _reschedule(session: Session, store: Store, job_id: str, due: int) -> bool:
    now = store.now()
    for seq, state, lease_until, *_ in session.rows(statements.read_for_cancel, (job_id,)):
        if state == State.LEASED and lease_until > store.lease_now():
            return False
        later = due > now
        if state == State.READY and not later:
            return True  # and it keeps its place
        # One that has passed is now: so it comes after what waits already, and is not looked for among what was taken.
        values = (State.SCHEDULED if later else State.READY, due if later else now, seq)
        session.change(statements.reschedule, values)
        session.announce(Topic.JOBS)
        return True
    return False


def _shown(row: Sequence[Any], body: bytes) -> QueuedJob:
    job_id, task, queue, state, due, deliveries, worker = row
    return QueuedJob(
        id=job_id,
        task=task,
        queue=queue,
        state=_STATES.get(state, JobState.READY).value,
        due=due,
        deliveries=deliveries,
        worker=worker,
        body=body,
    )
