"""The path of a job by functions in the database: each step is one statement, whatever it comes to."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
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
    "publish_one_1": "boolean bigint text text int bigint bigint float8 text bytea",
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
        self._publish_one = _call(store, "publish_one_1", table=False)
        self.claim = _call(store, "claim_1", table=True)
        self.claim_from = _call(store, "claim_from_1", table=True)
        self._extend = _call(store, "extend_1", table=True)
        self._settle = _call(store, "settle_1", table=False)

    def publish(self, session: Session, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """Store a batch; the id that stands for each."""
        head = [session.flushes(Need.KEPT), self.store.now()]
        if len(envelopes) == 1 and envelopes[0].key is None:
            [e] = envelopes
            row = [e.id, e.queue, e.priority, e.due, e.expires, float(e.key_ttl), e.task, e.body]
            session.call(self._publish_one, head + row)
            session.announce(Topic.JOBS)
            return [e.id]
        columns = _message_columns(envelopes)
        ids = columns[0]
        clashes = session.call(self._publish, [*head, *_shortened(columns)])
        session.announce(Topic.JOBS)
        for place, holder in clashes:
            ids[place - 1] = holder
        return ids

    def extend(self, session: Session, deliveries: Sequence[Delivery], lease_ms: int) -> dict[tuple[int, int], int]:
        """Make leases last this long from now; the place and token of those that are still held, and until when."""
        seqs = [delivery.receipt[0] for delivery in deliveries]
        tokens = [delivery.receipt[1] for delivery in deliveries]
        until = self.store.lease_now() + lease_ms
        rows = session.call(self._extend, [session.flushes(Need.NONE), seqs, tokens, until])
        return {(seq, token): end for seq, token, end in rows}

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


def _shortened(columns: Columns) -> Columns:
    """As `publish_1` takes them: what is the same for all of them once, what is None for all not at all."""
    ids, queues, priorities, dues, expires, keys, key_ttls, tasks, bodies = columns
    queues, priorities, dues, key_ttls, tasks = map(_once, (queues, priorities, dues, key_ttls, tasks))
    expires, keys = ([] if column.count(None) == len(column) else column for column in (expires, keys))
    return [ids, queues, priorities, dues, expires, keys, key_ttls, tasks, bodies]


def _once(column: list[Any]) -> list[Any]:
    return column[:1] if column.count(column[0]) == len(column) else column


class _FunctionClaimer(Claimer):
    """Claims first, and looks only when that brings nothing; or now and then, while it always brings something."""

    def __init__(self, procedures: FunctionProcedures, settings: ConsumerSettings) -> None:
        super().__init__(procedures.store, settings)
        self._claim = procedures.claim
        self._claim_from = procedures.claim_from
        self._cursors = Cursors(self._queues, procedures.store.now)
        self._look_at = 0.0
        self._took = 0.0
        self._unanswered = 0

    def take(self, session: Session, limit: int) -> tuple[list[Delivery], float]:
        """Up to `limit` messages; when there are none, how many seconds until time alone brings one."""
        if time.monotonic() >= self._look_at + _UPKEEP:
            # Nobody has, beside the claims: what has come due may be more urgent than what is ready.
            self._keep_up(session)
        found = self._take_from(session, limit) if self._cursors.usable else []
        # Where the cursors find too little, there may be more behind them.
        found = found or self._take_any(session, limit)
        if found:
            return found, float("inf")
        over, pause = self._keep_up(session)
        return self._take_any(session, limit) if over else [], pause

    @property
    def is_behind(self) -> bool:
        """Whether it has been a while since it looked for what has come due."""
        return time.monotonic() >= self._look_at

    def catch_up(self, session: Session) -> None:
        """Look for it, although there is enough to do without it."""
        self._keep_up(session)

    def _take_from(self, session: Session, limit: int) -> list[Delivery]:
        """From where the last claim ended."""
        return self._lend(session, self._claim_from, lambda terms: [limit, *terms, *self._cursors.columns()])

    def _take_any(self, session: Session, limit: int) -> list[Delivery]:
        """From the beginning."""
        begin = time.monotonic()
        found = self._lend(session, self._claim, lambda terms: [list(self._queues), limit, *terms])
        self._cursors.looked_at_everything(time.monotonic() - begin)
        return found

    def _lend(self, session: Session, text: str, values: Callable[[list[Any]], list[Any]]) -> list[Delivery]:
        def claim(session: Session) -> tuple[Sequence[Sequence[Any]], int]:
            self._take_back(session)
            token = self._unanswered = self._new_token()
            terms = [self._store.lease_now() + self.lease_ms, token, self._worker]
            rows = session.call(text, [session.flushes(Need.NONE), *values(terms)])
            self._unanswered = 0
            return rows, token

        rows, token = session.once(claim, Need.NONE)
        self._cursors.advance(rows)
        return self._deliveries(rows, token)

    def _take_back(self, session: Session) -> None:
        """The last claim may have lent out what nobody got the answer of: not to wait for its leases to lapse."""
        if self._unanswered:
            session.change(statements.take_back, (self._unanswered,))
            self._unanswered = 0
            self._cursors.forget()

    def _keep_up(self, session: Session) -> tuple[bool, float]:
        """Make ready what has come due or has lapsed. Whether anything has, and the seconds until another look."""
        begin = time.monotonic()
        _, due_in, lapse_in = session.read(self._look)
        store = self._store
        moved = 0
        if due_in <= 0:
            moved += session.once(lambda session: session.change(statements.promote, (store.now(), STEP)), Need.NONE)
        if lapse_in <= 0:
            moved += session.once(
                lambda session: session.change(statements.lapse, (store.lease_now(), STEP)), Need.NONE
            )
        # The less often the longer it takes: what ended long ago may lie in its way, too. Once is chance.
        now = time.monotonic()
        took, self._took = self._took, now - begin
        self._look_at = now + max(_UPKEEP, min(took, now - begin) * _SHARE)
        pause = min(due_in, lapse_in)
        if pause > 0:
            self._again(moved=True)
            return False, pause
        return True, self._again(moved=moved > 0)
