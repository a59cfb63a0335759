"""Storing messages: once for each id, once for each key. Runs in a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from camora.message import Envelope

from camora_sql import statements
from camora_sql.runner import Runner
from camora_sql.schema import State
from camora_sql.store import Store
from camora_sql.wakeup import Topic

__all__ = ["end_keys", "job_row", "publish", "those_over"]


def publish(session: Runner, store: Store, envelopes: Sequence[Envelope]) -> list[str]:
    """Store a batch; the id that stands for each."""
    now = store.now()
    ids = [envelope.id for envelope in envelopes]
    known = those_over(session, ids)
    answers = ids
    rows: list[tuple[Any, ...]] = []
    for place, envelope in enumerate(envelopes):
        job_id = envelope.id
        if job_id in known:
            continue
        if envelope.key is not None:
            holder = _take_key(session, envelope, now)
            if holder != job_id:
                if answers is ids:
                    answers = list(ids)
                answers[place] = holder
                continue
        # Of an id that comes twice the first place counts, and with it that key, or none.
        known.add(job_id)
        rows.append(job_row(envelope, now))
    if rows:
        # An id that is in the table already is passed over by the statement itself.
        if store.dialect.tells_stored:
            _undo_ended(session, [row[0] for row in session.insert_and_tell(statements.insert_and_tell, rows)])
        else:
            session.insert(statements.insert_jobs, rows)
            if not store.dialect.blocking:
                _undo_ended(session, [row[0] for row in rows])
        session.announce(Topic.JOBS)
    return answers


def job_row(envelope: Envelope, now: int) -> tuple[Any, ...]:
    """The values of a new message, in the order of `JOB_COLUMNS`."""
    due = envelope.due
    return (
        envelope.id,
        envelope.queue,
        State.SCHEDULED if due > now else State.READY,
        envelope.priority,
        due or now,
        envelope.expires,
        envelope.key,
        envelope.key_ttl,
        envelope.task,
        envelope.body,
    )


def those_over(session: Runner, ids: Sequence[str]) -> set[str]:
    """Those that finished, or died. Unfinished ones are found by the insertion."""
    return {row[0] for row in session.rows_in(statements.is_over, ids, times=3)}


def _undo_ended(session: Runner, ids: Sequence[str]) -> None:
    """Some may have ended since it was asked: where others write at the same time, that is seen afterwards only.

    What was passed over does not end meanwhile: it is not among `ids`, or the insertion has locked it.
    """
    ended = those_over(session, ids)
    if ended:
        session.change_in(statements.delete_by_id, list(ended))


def _take_key(session: Runner, envelope: Envelope, now: int) -> str:
    """The job that holds the envelope's key; its own id when the key was free, or it is stored already."""
    if session.rows(statements.is_job, (envelope.id,)):
        return envelope.id
    session.change(statements.take_key, (envelope.key, envelope.id, now))
    [(holder,)] = session.rows(statements.holder_of_key, (envelope.key,))
    return str(holder)


def end_keys(session: Runner, ended: Sequence[tuple[str, str, float]], now: int) -> None:
    """Jobs have ended that had a key: (key, id, key_ttl) each."""
    for key, job_id, ttl in ended:
        if ttl > 0:
            session.change(statements.keep_key, (now + min(round(ttl * 1000), 2**53), key, job_id))
        else:
            session.change(statements.free_key, (key, job_id))
