"""The path of a job by functions in the database: each step is one statement, whatever it comes to."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from camora.interfaces.broker import ConsumerSettings
from camora.message import Delivery, Envelope
from camora.outcome import Action, Settlement

from camora_sql import statements
from camora_sql.claiming import STEP, Claimer
from camora_sql.cursors import Cursors
from camora_sql.dialects.base import Need
from camora_sql.functions import function_names
from camora_sql.procedures import Procedures
from camora_sql.records import error_to, is_finished, plain, row_of
from camora_sql.schema import RECORD_COLUMNS
from camora_sql.session import Session
from camora_sql.settling import is_forgotten
from camora_sql.store import Store
from camora_sql.wakeup import Topic

__all__ = ["FunctionProcedures"]

_ACK, _RETRY, _REJECT, _RELEASE = Action.ACK, Action.RETRY, Action.REJECT, Action.RELEASE
_UPKEEP = 0.1
"""Seconds after which a busy claimer looks for what has come due, or has lapsed, even though there is enough to do."""

_SHARE = 50
"""Of the time, one part in so many goes there at most."""

Columns = list[list[Any]]


_MESSAGE = "text[] text[] int[] bigint[] bigint[] text[] float8[] text[] bytea[]"
_RECORD = (
    "text[] text[] int[] text[] text[] int[] int[] bigint[] bigint[] bigint[] text[] float8[] bigint[] text[] text[] "
    "bytea[]"
)
# Spelt out, because not every driver asks the server what a function takes.
_TYPES = {
    "publish_1": f"boolean bigint {_MESSAGE}",
    "claim_1": "boolean text[] int bigint bigint text",
    "claim_from_1": "boolean int bigint bigint text text[] int[] bigint[] bigint[] text[] int[] int[]",
    "extend_1": "boolean bigint[] bigint[] bigint",
    "settle_1": " ".join(
        [
            "boolean bigint bigint[] bigint[] int[] int[] text[] bigint",
            "int[] text[] int[] bigint[] bigint[] text[] float8[] text[] bytea[]",
            "int[] bigint[] int[]",
            "int[] text[] text[] text[] text[] int[] int[] bigint[] bytea[]",
            f"int[] {_RECORD}",
            f"int[] {_MESSAGE}",
        ]
    ),
}


def _call(store: Store, function: str, *, table: bool) -> str:
    name = function_names(store.dialect.tables)[function]
    values = ", ".join(f"${place}::{kind}" for place, kind in enumerate(_TYPES[function].split(), 1))
    return f"SELECT * FROM {name}({values})" if table else f"SELECT {name}({values})"  # noqa: S608 -- a plain name


class FunctionProcedures(Procedures):
    """Arrays go in, one for each column: a batch of any size is the same statement."""

    single = True

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._publish = _call(store, "publish_1", table=True)
        self.claim = _call(store, "claim_1", table=True)
        self.claim_from = _call(store, "claim_from_1", table=True)
        self._extend = _call(store, "extend_1", table=True)
        self._settle = _call(store, "settle_1", table=False)

    def publish(self, session: Session, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """Store a batch; the id that stands for each."""
        columns = _message_columns(envelopes)
        clashes = session.call(self._publish, [session.flushes(Need.KEPT), self.store.now(), *columns])
        session.announce(Topic.JOBS)
        ids = columns[0]
        for place, holder in clashes:
            ids[place - 1] = holder
        return ids

    def extend(self, session: Session, deliveries: Sequence[Delivery], lease_ms: int) -> set[tuple[int, int]]:
        """Make leases last this long from now; the place and token of those that were still held."""
        seqs = [delivery.receipt[0] for delivery in deliveries]
        tokens = [delivery.receipt[1] for delivery in deliveries]
        until = self.store.lease_now() + lease_ms
        rows = session.call(self._extend, [session.flushes(Need.NONE), seqs, tokens, until])
        return {(seq, token) for seq, token in rows}

    def claimer(self, settings: ConsumerSettings) -> Claimer:
        """What takes messages for one consumer."""
        return _FunctionClaimer(self, settings)

    def settle(self, session: Session, settlements: Sequence[Settlement]) -> Sequence[bool]:
        """Apply a batch; False for each delivery that had ended before."""
        answers = [False] * len(settlements)
        for places in _rounds(settlements):
            found = self._settle_once(session, [settlements[place] for place in places])
            for place in found:
                answers[places[place - 1]] = True
        return answers

    def _settle_once(self, session: Session, settlements: Sequence[Settlement]) -> Sequence[int]:
        now, window = self.store.now(), self.store.settings.dedup_window
        acks: list[int] = []
        forgotten: Columns = [[], []]
        again: Columns = [[] for _ in range(9)]
        back: Columns = [[] for _ in range(3)]
        dead: Columns = [[] for _ in range(9)]
        records: Columns = [[] for _ in range(1 + len(RECORD_COLUMNS))]
        following: list[tuple[int, Envelope]] = []
        finished = False
        for place, one in enumerate(settlements, 1):
            action = one.action
            if action is _ACK:
                acks.append(place)
                if is_forgotten(one, window):
                    _add(forgotten, (place, one.delivery.id))
            elif action is _RETRY and one.envelope is not None:
                e = one.envelope
                _add(again, (place, e.queue, e.priority, e.due, e.expires, e.key, float(e.key_ttl), e.task, e.body))
            elif action is _REJECT and one.letter is not None:
                letter = one.letter
                error = letter.error and error_to(letter.error)
                head = (place, letter.queue, plain(letter.task), letter.reason, error)
                _add(dead, (*head, letter.attempts, letter.deliveries, letter.died, letter.body))
            else:
                due = now + round(one.delay * 1000) if one.delay > 0 else 0
                _add(back, (place, due, 0 if one.charged else 1))
            if one.record is not None:
                _add(records, (place, *row_of(one.record, now)))
                finished = finished or is_finished(one.record)
            following += [(place, envelope) for envelope in one.successors]
        seqs = [one.delivery.receipt[0] for one in settlements]
        tokens = [one.delivery.receipt[1] for one in settlements]
        flush = session.flushes(Need.SETTLED)
        values = [
            flush,
            now,
            seqs,
            tokens,
            acks,
            *forgotten,
            now + round(window * 1000),
            *again,
            *back,
            *dead,
            *records,
        ]
        values += [[place for place, _ in following], *_message_columns([envelope for _, envelope in following])]
        [(settled,)] = session.call(self._settle, values)
        if again[0] or back[0] or following:
            session.announce(Topic.JOBS)
        if finished:
            session.announce(Topic.RESULTS)
        return settled  # type: ignore[no-any-return]


def _rounds(settlements: Sequence[Settlement]) -> list[list[int]]:
    """Places that can go together: each delivery, and each record, but once.

    Almost always all of them. Where they are several rounds, each is a transaction by itself, and one that is repeated
    after an error answers False for what was applied.
    """
    rounds: list[list[int]] = [[]]
    seen: set[Any] = set()
    records: set[str] = set()
    for place, one in enumerate(settlements):
        if one.delivery.receipt[:2] in seen:
            continue
        seen.add(one.delivery.receipt[:2])
        if one.record is not None:
            if one.record.id in records:
                rounds.append([])
                records = set()
            records.add(one.record.id)
        rounds[-1].append(place)
    return rounds


def _add(columns: Columns, row: Sequence[Any]) -> None:
    for column, value in zip(columns, row, strict=True):
        column.append(value)


def _message_columns(envelopes: Sequence[Envelope]) -> Columns:
    return [
        [e.id for e in envelopes],
        [e.queue for e in envelopes],
        [e.priority for e in envelopes],
        [e.due for e in envelopes],
        [e.expires for e in envelopes],
        [e.key for e in envelopes],
        [float(e.key_ttl) for e in envelopes],
        [e.task for e in envelopes],
        [e.body for e in envelopes],
    ]


class _FunctionClaimer(Claimer):
    """Claims first, and looks only when that brings nothing; or now and then, while it always brings something."""

    def __init__(self, procedures: FunctionProcedures, settings: ConsumerSettings) -> None:
        super().__init__(procedures.store, settings)
        self._claim = procedures.claim
        self._claim_from = procedures.claim_from
        self._cursors = Cursors(self._queues, procedures.store.now)
        self._look_at = 0.0
        self._unanswered = False

    def take(self, session: Session, limit: int) -> tuple[list[Delivery], float]:
        """Up to `limit` messages; when there are none, how many seconds until time alone brings one."""
        if time.monotonic() >= self._look_at:
            self._keep_up(session)
        rows = self._take_from(session, limit) if self._cursors.usable else []
        # Where the cursors find too little, there may be more behind them.
        rows = rows or self._take_any(session, limit)
        if rows:
            return self._deliveries(rows), float("inf")
        pause = self._keep_up(session)
        if pause > 0:
            return [], pause
        return self._deliveries(self._take_any(session, limit)), 0.0

    def _take_from(self, session: Session, limit: int) -> Sequence[Sequence[Any]]:
        """From where the last claim ended."""

        def claim(session: Session) -> Sequence[Sequence[Any]]:
            return self._call(session, self._claim_from, [limit, *self._terms(session), *self._cursors.columns()])

        rows = session.once(claim, Need.NONE)
        self._cursors.advance(rows)
        return rows

    def _take_any(self, session: Session, limit: int) -> Sequence[Sequence[Any]]:
        """From the beginning."""
        begin = time.monotonic()

        def claim(session: Session) -> Sequence[Sequence[Any]]:
            return self._call(session, self._claim, [list(self._queues), limit, *self._terms(session)])

        rows = session.once(claim, Need.NONE)
        self._cursors.looked_at_everything(time.monotonic() - begin)
        self._cursors.advance(rows)
        return rows

    def _call(self, session: Session, text: str, values: Sequence[Any]) -> Sequence[Sequence[Any]]:
        self._unanswered = True
        rows = session.call(text, [session.flushes(Need.NONE), *values])
        self._unanswered = False
        return rows

    def _terms(self, session: Session) -> list[Any]:
        if self._unanswered:
            # The last claim may have lent something out whose answer nobody got: not to wait for its leases to lapse.
            session.change(statements.take_back, (self._token,))
            self._unanswered = False
            self._cursors.forget()
        self._token += 1
        return [self._store.lease_now() + self.lease_ms, self._token, self._worker]

    def _keep_up(self, session: Session) -> float:
        """Make ready what has come due or has lapsed; the seconds until there is more of that, 0 for now."""
        begin = time.monotonic()
        _, due_in, lapse_in = session.read(self._look)
        store = self._store
        if due_in <= 0:
            session.once(lambda session: session.change(statements.promote, (store.now(), STEP)), Need.NONE)
        if lapse_in <= 0:
            session.once(lambda session: session.change(statements.lapse, (store.lease_now(), STEP)), Need.NONE)
        # The less often the longer it takes: what ended long ago may lie in its way, too.
        now = time.monotonic()
        self._look_at = now + max(_UPKEEP, (now - begin) * _SHARE)
        return max(0.0, min(due_in, lapse_in))
