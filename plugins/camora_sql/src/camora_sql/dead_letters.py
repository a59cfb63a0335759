"""The dead letters: rows of their own, out of every worker's way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from camora.interfaces.dead_letters import DeadLetters
from camora.outcome import DeadLetter

from camora_sql import statements
from camora_sql.link import Link
from camora_sql.records import error_from
from camora_sql.runner import Runner
from camora_sql.session import Session
from camora_sql.store import Store
from camora_sql.wakeup import Topic

__all__ = ["SqlDeadLetters", "requeue"]

_STEP = 1000
"""Letters that one transaction of a purge deletes."""


def requeue(session: Runner, store: Store, job_id: str, body: bytes | None = None) -> bool:
    """Make a message of a letter again, of these bytes or its own; False when there is no such letter.

    Runs in a transaction.
    """
    now = store.now()
    keys = session.rows(statements.key_of_letter, (job_id,))
    if not keys:
        return False
    [(key,)] = keys
    session.change(statements.requeue_letter, (now, body, job_id))
    if key is not None:
        session.change(statements.retake_key, (key, job_id, now, job_id))
    session.change(statements.delete_letters, (job_id,))
    # The failed record stands for good otherwise, and would hide what the new run comes to.
    session.change_in(statements.delete_records, [job_id], (now,))
    session.announce(Topic.JOBS)
    return True


class SqlDeadLetters(DeadLetters):
    """Letters are kept until somebody requeues or purges them: they are not bounded."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._store = link.store

    async def list(self, *, queue: str | None = None, limit: int = 100, after: str = "") -> Sequence[DeadLetter]:
        """A page."""

        def read(session: Session) -> Sequence[Any]:
            if queue is None:
                return session.rows(statements.list_letters, (after, limit))
            return session.rows(statements.list_letters_of, (queue, after, limit))

        return [_letter(row) for row in await self._link.read(read)]

    async def get(self, job_id: str) -> DeadLetter | None:
        """One."""
        rows = await self._link.read(lambda session: session.rows(statements.read_letter, (job_id,)))
        return _letter(rows[0]) if rows else None

    async def requeue(self, job_id: str, *, body: bytes | None = None) -> bool:
        """One transaction: the message is never in both, and never in neither."""
        return await self._link.write(lambda session: requeue(session, self._store, job_id, body))

    async def purge(self, *, queue: str | None = None, ids: Sequence[str] | None = None) -> int:
        """In steps; each letter is there or gone."""
        if ids is not None:
            return await self._link.write(lambda session: self._purge_ids(session, queue, ids))
        total = 0
        while True:
            deleted = await self._link.write(lambda session: self._purge_some(session, queue))
            total += deleted
            if deleted < _STEP:
                return total

    def _purge_ids(self, session: Session, queue: str | None, ids: Sequence[str]) -> int:
        found = {row for row in session.rows_in(statements.letters_among, ids) if queue in (None, row[1])}
        return self._delete(session, [row[0] for row in found])

    def _purge_some(self, session: Session, queue: str | None) -> int:
        if queue is None:
            rows = session.rows(statements.some_letters, (_STEP,))
        else:
            rows = session.rows(statements.some_letters_of, (queue, _STEP))
        return self._delete(session, [row[0] for row in rows])

    def _delete(self, session: Session, ids: Sequence[str]) -> int:
        session.change_in(statements.delete_letters, ids)
        # Publishing one of them again now would still be a repetition.
        until = self._store.now() + round(self._store.settings.dedup_window * 1000)
        session.insert(statements.remember, [(job_id, until) for job_id in ids])
        return len(ids)


def _letter(row: Sequence[Any]) -> DeadLetter:
    job_id, queue, task, body, reason, error, attempts, deliveries, died = row
    return DeadLetter(
        id=job_id,
        queue=queue,
        task=task,
        body=body if isinstance(body, bytes) else str(body).encode(errors="replace"),
        reason=reason,
        error=error_from(error),
        attempts=attempts,
        deliveries=deliveries,
        died=died,
    )
