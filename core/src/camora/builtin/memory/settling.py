"""Settlements: the end of a delivery, as one step."""

from __future__ import annotations

from collections.abc import Sequence

from camora.builtin.memory.entries import Entry
from camora.builtin.memory.records import Wakes
from camora.builtin.memory.store import MemoryStore
from camora.builtin.memory.waiting import wake_all
from camora.interfaces.broker import JobState
from camora.message import Envelope
from camora.outcome import Action, DeadLetter, Settlement

__all__ = ["settle"]

_ACK, _RETRY, _REJECT, _RELEASE = Action.ACK, Action.RETRY, Action.REJECT, Action.RELEASE


def settle(store: MemoryStore, settlements: Sequence[Settlement]) -> list[bool]:
    """Apply a batch; False for each delivery that had ended before.

    Raises `ValueError` for a settlement that lacks its envelope or letter; then none of the batch is applied.
    """
    _check(settlements)
    answers = []
    touched: set[str] = set()
    wakes: Wakes = []
    released: list[Entry] = []
    with store.lock:
        entries, stakes, records, now = store.entries, store.stakes, store.records, store.clock.monotonic()
        for settlement in settlements:
            delivery = settlement.delivery
            entry = entries.get(delivery.id)
            if entry is None or not entry.stake or entry.receipt != delivery.receipt:
                answers.append(False)
                continue
            if settlement.action is _ACK:
                del stakes[entry.stake].held[delivery.id]
                store.locked_finish(entry)
            else:
                _apply(store, entry, settlement, touched, released)
            if settlement.successors:
                store.locked_publish(settlement.successors, touched)
            if settlement.record is not None:
                records.put(settlement.record, now, wakes)
            answers.append(True)
        if released:
            store.ready.put_back(released)
    if touched:
        store.wake(touched)
    if wakes:
        wake_all(wakes)
    return answers


def _check(settlements: Sequence[Settlement]) -> None:
    for settlement in settlements:
        if settlement.action is _ACK:
            continue
        job_id = settlement.delivery.id
        if settlement.action is _RETRY and (settlement.envelope is None or settlement.envelope.id != job_id):
            raise ValueError(f"the retry of {job_id} needs an envelope with the same id")
        if settlement.action is _REJECT and (settlement.letter is None or settlement.letter.id != job_id):
            raise ValueError(f"the rejection of {job_id} needs a letter with the same id")


def _apply(store: MemoryStore, entry: Entry, settlement: Settlement, touched: set[str], released: list[Entry]) -> None:
    store.locked_unlend(entry)
    if settlement.action is _RETRY and settlement.envelope is not None:
        # A new life under the old id: its deliveries are counted anew.
        entry.envelope, entry.deliveries = settlement.envelope, 0
        entry.order = store.locked_next_order()
        store.locked_enqueue(entry, touched)
    elif settlement.action is _REJECT and settlement.letter is not None:
        _bury(store, entry, settlement.letter)
    else:
        _release(store, entry, settlement, touched, released)


def _bury(store: MemoryStore, entry: Entry, letter: DeadLetter) -> None:
    entry.state = JobState.DEAD
    store.letters[letter.id] = letter
    store.locked_free_key(entry)
    store.flagged.discard(letter.id)


def _release(
    store: MemoryStore, entry: Entry, settlement: Settlement, touched: set[str], released: list[Entry]
) -> None:
    if not settlement.charged:
        entry.deliveries -= 1
    if settlement.delay > 0:
        due = store.clock.now_ms() + round(settlement.delay * 1000)
        entry.envelope = _due_at(entry.envelope, due)
        store.locked_enqueue(entry, touched)
    else:
        released.append(entry)
        touched.add(entry.envelope.queue)


def _due_at(envelope: Envelope, due: int) -> Envelope:
    return Envelope(
        id=envelope.id,
        task=envelope.task,
        queue=envelope.queue,
        body=envelope.body,
        due=due,
        expires=envelope.expires,
        priority=envelope.priority,
        key=envelope.key,
        key_ttl=envelope.key_ttl,
    )
