"""The path of a job by locks: what a step is about is locked by one statement, and changed with the commit.

So each step is two round trips, whatever it comes to: the changes are put off, and go together.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

from camora.interfaces.broker import ConsumerSettings
from camora.message import Delivery, Envelope
from camora.outcome import Action, Settlement

from camora_sql import statements
from camora_sql.claiming import STEP, Claimer
from camora_sql.dialects.base import Need
from camora_sql.procedures import Procedures
from camora_sql.publishing import job_row, publish, those_over
from camora_sql.session import Session
from camora_sql.settling import bury, finish, put_back
from camora_sql.statements import Builder, locking
from camora_sql.store import Store
from camora_sql.wakeup import Topic

__all__ = ["LockingProcedures"]

_UPKEEP = 0.1
"""Seconds after which a busy claimer looks for what has come due, or has lapsed, even though there is enough to do."""
_CLOCK = 5.0
"""Seconds between two questions for the server's time."""


_PATIENCE = (0.002, 0.01, 0.05)
"""Seconds between attempts to lock what somebody else has locked: Camora's own transactions are over by then."""
_Place = tuple[int, int]
"""Place of a row, and token of a claim."""


class LockingProcedures(Procedures):
    """Transactions of two round trips."""

    single = False

    def publish(self, session: Session, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """Store a batch; the id that stands for each."""
        keyless = all(envelope.key is None for envelope in envelopes)
        with session.deferring():
            return (_publish_keyless if keyless else publish)(session, self.store, envelopes)

    def settle(self, session: Session, settlements: Sequence[Settlement]) -> Sequence[bool | None]:
        """Apply a batch; False for each delivery that had ended before, None for those that somebody holds up."""
        now = self.store.now()
        wanted = {one.delivery.receipt[:2] for one in settlements}
        held, locked = self._lock(session, wanted)
        # Taken out, so that the same delivery is settled once.
        rows = [held.pop(one.delivery.receipt[:2], None) for one in settlements]
        applied = [one for one, row in zip(settlements, rows, strict=True) if row is not None]
        with session.deferring():
            for one, row in zip(settlements, rows, strict=True):
                if row is None:
                    continue
                if one.action is Action.ACK:
                    # One by one: for many at once the server may go through the table, and wait for any row of it.
                    session.change(statements.delete_jobs, one.delivery.receipt[:1])
                elif one.action is Action.REJECT and one.letter is not None:
                    bury(session, one.letter, one.delivery.receipt, row)
                else:
                    put_back(session, one, now)
            finish(session, self.store, applied, now)
        return [
            True if row is not None else None if one.delivery.receipt[:2] in locked else False
            for one, row in zip(settlements, rows, strict=True)
        ]

    def _lock(self, session: Session, wanted: set[_Place]) -> tuple[dict[_Place, Sequence[Any]], set[_Place]]:
        """What is still held, locked, with what a dead letter has to remember; and what others have locked for long."""
        held: dict[_Place, Sequence[Any]] = {}
        locked = wanted
        for pause in _PATIENCE:
            seqs = sorted(seq for seq, _ in locked)
            rows = {(row[0], row[1]): row[2:] for row in session.rows_in(locking.try_held, seqs)}
            held.update((place, row) for place, row in rows.items() if place in wanted)
            locked = locked - rows.keys()
            if locked:
                # Gone, or lent to somebody else, is one thing; in somebody's transaction is another.
                locked = set(self._look(session, locked))
            if not locked:
                break
            self.store.dialect.pause(pause)
        return held, locked

    def _look(self, session: Session, wanted: set[_Place]) -> dict[_Place, int]:
        """Those of them that are still held, and until when."""
        seqs = sorted(seq for seq, _ in wanted)
        rows = session.rows_in(locking.look_held, seqs)
        return {(seq, token): end for seq, token, end in rows if (seq, token) in wanted}

    def extend(self, session: Session, deliveries: Sequence[Delivery], lease_ms: int) -> dict[_Place, int]:
        """Make leases last this long from now; the place and token of those that are still held, and until when."""
        wanted: set[_Place] = {delivery.receipt[:2] for delivery in deliveries}
        seqs = sorted(seq for seq, _ in wanted)
        free = {(row[0], row[1]) for row in session.rows_in(locking.try_held, seqs)} & wanted
        until = self.store.lease_now() + lease_ms
        with session.deferring():
            session.change_in(locking.keep, sorted(seq for seq, _ in free), (until,))
        # One that somebody has locked keeps the lease that it has.
        return dict.fromkeys(free, until) | self._look(session, wanted - free)

    def claimer(self, settings: ConsumerSettings) -> Claimer:
        """What takes messages for one consumer."""
        return _LockingClaimer(self.store, settings)


def _publish_keyless(session: Session, store: Store, envelopes: Sequence[Envelope]) -> list[str]:
    """Store first, look afterwards: one round trip less than to look before it, too."""
    now = store.now()
    ids = [envelope.id for envelope in envelopes]
    session.change(locking.note_newest)
    session.insert(statements.insert_jobs, [job_row(envelope, now) for envelope in envelopes])
    # Not what was there before: a job that has failed is unfinished again when its letter was requeued.
    session.change_in(locking.delete_newer, sorted(those_over(session, ids)))
    session.announce(Topic.JOBS)
    return ids


class _LockingClaimer(Claimer):
    """Claims at once while it finds something, and looks before it locks while it does not."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._busy = False
        self._look_at = 0.0
        self._ask_at = 0.0

    def take(self, session: Session, limit: int) -> tuple[list[Delivery], float]:
        """Up to `limit` messages; when there are none, how many seconds until time alone brings one."""
        if self._busy and time.monotonic() < self._look_at and (found := self._try(session, limit)):
            return found, float("inf")
        ready, pause = self._keep_up(session)
        if not ready:
            self._busy = False
            self._again(moved=True)
            return [], pause
        if found := self._try(session, limit):
            self._again(moved=True)
            return found, pause
        # Others were faster, or are just now; or have locked it for as long as they like.
        return [], self._again(moved=False)

    def _try(self, session: Session, limit: int) -> list[Delivery]:
        rows, token = session.write(lambda session: self._claim(session, limit), Need.NONE)
        self._busy = bool(rows)
        if rows:
            cast("Any", self._store.dialect).pace.hurry()
        return self._deliveries(rows, token)

    def _claim(self, session: Session, limit: int) -> tuple[Sequence[Sequence[Any]], int]:
        values: list[Any] = []
        for name in self._queues:
            values += (name, name, limit)
        if len(self._queues) > 1:
            values.append(limit)
        rows = session.rows(locking.pick, values, len(self._queues))
        token = self._new_token()
        if rows:
            until = self._store.lease_now() + self.lease_ms
            with session.deferring():
                session.change_in(locking.lend, [row[0] for row in rows], (until, token, self._worker))
        return rows, token

    def _keep_up(self, session: Session) -> tuple[bool, float]:
        """Make ready what has come due or has lapsed. Whether anything may be ready, and when time will bring more."""
        now = time.monotonic()
        if now >= self._ask_at:
            session.ask_time()
            self._ask_at = now + _CLOCK
        ready, due_in, lapse_in = session.read(self._look)
        store = self._store
        moved = 0
        if due_in <= 0:
            moved += session.write(lambda session: _make_ready(session, locking.pick_due, store.now()), Need.NONE)
        if lapse_in <= 0:
            moved += session.write(
                lambda session: _make_ready(session, locking.pick_lapsed, store.lease_now()), Need.NONE
            )
        if moved:
            self._again(moved=True)
        self._look_at = time.monotonic() + _UPKEEP
        return ready or due_in <= 0 or lapse_in <= 0, max(0.0, min(due_in, lapse_in))


def _make_ready(session: Session, pick: Builder, moment: int) -> int:
    """By place: an update that looks by itself may go through all of a small table, and wait for any row of it."""
    seqs = [seq for (seq,) in session.rows(pick, (moment, STEP))]
    with session.deferring():
        session.change_in(locking.make_ready, seqs)
    return len(seqs)
