"""Lending messages out: what has come due and what has lapsed is found on the way. Runs in the link's thread."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from camora.interfaces.broker import ConsumerSettings
from camora.message import Delivery

from camora_sql import statements
from camora_sql.dialects.base import Need
from camora_sql.errors import Garbled
from camora_sql.records import forget
from camora_sql.session import Session
from camora_sql.statements import records
from camora_sql.store import Store

__all__ = ["STEP", "Claimer", "Receipt", "StatementClaimer"]

STEP = 500
"""Rows that one claim promotes, or prunes, at most: bounded, so that nobody waits long for a transaction."""

Receipt = tuple[int, int, str | None, float]
"""Place of the row, token of the claim, and the key that its job holds, with the key's `key_ttl`."""


class Claimer(ABC):
    """Takes messages for one consumer."""

    def __init__(self, store: Store, settings: ConsumerSettings) -> None:
        self._store = store
        self._queues = tuple(dict.fromkeys(settings.queues))
        self._worker = settings.worker
        # One more, because the clock is cut to whole milliseconds: a lease is never shorter than promised.
        self.lease_ms = round(settings.lease * 1000) + 1
        # Each claim has a token of its own: random, so that no other consumer of any process has the same.
        self._token = int.from_bytes(os.urandom(7), "big")

    @abstractmethod
    def take(self, session: Session, limit: int) -> tuple[list[Delivery], float]:
        """Up to `limit` messages; when there are none, how many seconds until time alone brings one."""

    def _look(self, session: Session) -> tuple[bool, float, float]:
        """Whether anything is ready, and the seconds until something comes due, or lapses."""
        names = [name for name in self._queues for _ in range(2)]
        [(ready, next_due, next_lapse)] = session.rows(statements.outlook, names, len(self._queues))
        store = self._store
        return bool(ready), _until(next_due, store.now()), _until(next_lapse, store.lease_now())

    def _deliveries(self, rows: Sequence[Sequence[Any]]) -> list[Delivery]:
        token = self._token
        try:
            rows = sorted(rows, key=_urgency)
        except TypeError:
            rows = sorted(rows, key=_urgency_of_anything)
        return [
            Delivery(
                id=job_id if type(job_id) is str else _text(job_id),
                queue=queue if type(queue) is str else _text(queue),
                body=body if type(body) is bytes else _bytes(body),
                deliveries=deliveries if type(deliveries) is int else 1,
                receipt=(seq, token, key, key_ttl),
            )
            for seq, _, _, job_id, queue, body, deliveries, key, key_ttl in rows
        ]

    def prune(self, session: Session) -> bool:
        """Delete some of what nobody needs any more; True when there was more than one step takes."""
        now = self._store.now()
        prunes = (statements.prune_results, statements.prune_done, statements.prune_keys)
        counts = session.write(lambda session: [session.change(build, (now, STEP)) for build in prunes], Need.NONE)
        return max(*counts, self._prune_surplus(session, now)) >= STEP

    def _prune_surplus(self, session: Session, now: int) -> int:
        """Delete some records that are more than are to be kept, the oldest first; how many there were."""
        settings = self._store.settings
        if settings.max_records is None:
            return 0
        surplus = session.read(lambda session: session.rows(records.some_surplus, (STEP, settings.max_records)))
        if surplus:
            session.write(lambda session: forget(session, surplus, now, settings.dedup_window), Need.NONE)
        return len(surplus)


class StatementClaimer(Claimer):
    """All in one transaction, after a look that costs others nothing."""

    def take(self, session: Session, limit: int) -> tuple[list[Delivery], float]:
        """Up to `limit` messages; when there are none, how many seconds until time alone brings one."""
        ready, due_in, lapse_in = session.read(self._look)
        if not ready and due_in > 0 and lapse_in > 0:
            return [], min(due_in, lapse_in)

        def claim(session: Session) -> Sequence[Sequence[Any]]:
            return self._claim(session, limit, due=due_in <= 0, lapsed=lapse_in <= 0)

        try:
            rows = session.write(claim, Need.NONE)
        except Garbled:
            # A text in a row is no text. It is delivered all the same, and the worker buries it.
            rows = session.tolerating(lambda: session.write(claim, Need.NONE))
        # What was promoted may have been of other queues; then there is more to wait for.
        return self._deliveries(rows), 0.0 if due_in <= 0 or lapse_in <= 0 else float("inf")

    def _claim(self, session: Session, limit: int, *, due: bool, lapsed: bool) -> Sequence[Sequence[Any]]:
        store = self._store
        lease_now = store.lease_now()
        if due:
            session.change(statements.promote, (store.now(), STEP))
        if lapsed:
            session.change(statements.lapse, (lease_now, STEP))
        self._token += 1
        values: list[Any] = [lease_now + self.lease_ms, self._token, self._worker]
        for name in self._queues:
            values += (name, name, limit)
        if len(self._queues) > 1:
            values.append(limit)
        return session.rows(statements.claim, values, len(self._queues))


def _urgency(row: Sequence[Any]) -> tuple[int, int, int]:
    return -row[1], row[2], row[0]


def _urgency_of_anything(row: Sequence[Any]) -> tuple[float, float, int]:
    priority, due = (value if isinstance(value, (int, float)) else 0 for value in row[1:3])
    return -priority, due, row[0]


def _until(moment: Any, now: int) -> float:
    # Anything else than a number is a damaged row, for which no moment will ever come.
    return (moment - now) / 1000 if isinstance(moment, (int, float)) else float("inf")


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _bytes(value: Any) -> bytes:
    return b"" if value is None else str(value).encode(errors="replace")
