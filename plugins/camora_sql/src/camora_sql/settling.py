"""The end of deliveries: acknowledgements in bulk, the rest one by one, all in one transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from camora.outcome import Action, DeadLetter, Settlement

from camora_sql import statements
from camora_sql.claiming import Receipt
from camora_sql.publishing import end_keys, publish
from camora_sql.records import error_to, is_finished, put_records
from camora_sql.schema import State
from camora_sql.session import Session
from camora_sql.store import Store
from camora_sql.wakeup import Topic

__all__ = ["bury", "check", "finish", "is_forgotten", "put_back", "settle"]

_ACK, _RETRY, _REJECT, _RELEASE = Action.ACK, Action.RETRY, Action.REJECT, Action.RELEASE


def check(settlements: Sequence[Settlement]) -> None:
    """Raises `ValueError` for a settlement that lacks its envelope or letter, before anything is done."""
    for settlement in settlements:
        action, job_id = settlement.action, settlement.delivery.id
        if action is _RETRY and (settlement.envelope is None or settlement.envelope.id != job_id):
            raise ValueError(f"the retry of {job_id} needs an envelope with the same id")
        if action is _REJECT and (settlement.letter is None or settlement.letter.id != job_id):
            raise ValueError(f"the rejection of {job_id} needs a letter with the same id")


def settle(session: Session, store: Store, settlements: Sequence[Settlement]) -> list[bool]:
    """Apply a batch; False for each delivery that had ended before."""
    now = store.now()
    answers = [False] * len(settlements)
    seen: set[tuple[int, int]] = set()
    acks: dict[int, list[int]] = defaultdict(list)
    for place, settlement in enumerate(settlements):
        seq, token, _, _ = settlement.delivery.receipt
        if (seq, token) in seen:
            continue
        seen.add((seq, token))
        if settlement.action is _ACK:
            acks[token].append(place)
        else:
            answers[place] = _other(session, settlement, now)
    for token, places in acks.items():
        for place in _acknowledge(session, settlements, token, places):
            answers[place] = True
    finish(session, store, [one for one, applied in zip(settlements, answers, strict=True) if applied], now)
    return answers


def _acknowledge(session: Session, settlements: Sequence[Settlement], token: int, places: list[int]) -> list[int]:
    """Delete what one claim took; those places that it still held."""
    seqs = [settlements[place].delivery.receipt[0] for place in places]
    if session.savepoint(lambda: session.change_in(statements.delete_held, seqs, (token,)) == len(seqs)):
        return places
    held = {row[0] for row in session.rows_in(statements.still_held, seqs, (token,))}
    session.change_in(statements.delete_held, list(held), (token,))
    return [place for place, seq in zip(places, seqs, strict=True) if seq in held]


def _other(session: Session, settlement: Settlement, now: int) -> bool:
    if settlement.action is not _REJECT or settlement.letter is None:
        return put_back(session, settlement, now) == 1
    receipt: Receipt = settlement.delivery.receipt
    rows = session.rows(statements.read_held, receipt[:2])
    if rows:
        bury(session, settlement.letter, receipt, rows[0])
    return bool(rows)


def put_back(session: Session, settlement: Settlement, now: int) -> int:
    """A retry, or a message that is given back; how many were still held: 1 or none."""
    seq, token, _, _ = settlement.delivery.receipt
    if settlement.action is _RETRY and settlement.envelope is not None:
        again = settlement.envelope
        state = State.SCHEDULED if again.due > now else State.READY
        timing = (again.queue, state, again.priority, again.due or now, again.expires)
        values = (*timing, again.key, again.key_ttl, again.task, again.body, seq, token)
        return session.change(statements.retry_held, values)
    refund = 0 if settlement.charged else 1
    if settlement.delay > 0:
        due = now + round(settlement.delay * 1000)
        return session.change(statements.release_held, (State.SCHEDULED, due, refund, seq, token))
    return session.change(statements.release_now, (refund, seq, token))


def bury(session: Session, letter: DeadLetter, receipt: Receipt, held: Sequence[Any]) -> None:
    """Make a dead letter of a message that is still held: (priority, expires, task) is what is left of it."""
    seq, token, key, key_ttl = receipt
    priority, expires, task = held
    session.change(statements.delete_held, (token, seq))
    head = (letter.id, letter.queue, letter.task, letter.reason, letter.error and error_to(letter.error))
    counts = (letter.attempts, letter.deliveries, letter.died, priority, expires)
    session.change(statements.bury, (*head, *counts, key, key_ttl, task, letter.body))


def finish(session: Session, store: Store, applied: Sequence[Settlement], now: int) -> None:
    """What the settlements of a batch bring with them: records, successors, keys, tombstones."""
    records = [one.record for one in applied if one.record is not None]
    successors = [envelope for one in applied if one.successors for envelope in one.successors]
    ended = [one for one in applied if one.action is _ACK or one.action is _REJECT]
    forgotten = {one.delivery.id for one in ended if is_forgotten(one, store.settings.dedup_window)}
    keyed = [one.delivery for one in ended if one.delivery.receipt[2] is not None]
    if len(ended) < len(applied):
        session.announce(Topic.JOBS)
    if records and put_records(session, records, now):
        session.announce(Topic.RESULTS)
    if forgotten:
        until = now + round(store.settings.dedup_window * 1000)
        session.insert(statements.remember, [(job_id, until) for job_id in forgotten])
    end_keys(session, [(one.receipt[2], one.id, one.receipt[3]) for one in keyed], now)
    if successors:
        publish(session, store, successors)


def is_forgotten(settlement: Settlement, window: float) -> bool:
    """Whether neither a record nor a letter will remember that this job ran, for as long as that is promised."""
    record = settlement.record
    kept = record is not None and record.ttl >= window and is_finished(record)
    return not kept and settlement.action is _ACK and window > 0
