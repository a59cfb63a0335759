"""Lending messages out: what has come due and what has lapsed is found on the way. Runs in the link's thread."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from camora.interfaces.broker import ConsumerSettings
from camora.message import Delivery

from camora_sql import statements
from camora_sql.clearing import prune_workflows
from camora_sql.dialects.base import Need
from camora_sql.errors import Garbled
from camora_sql.journals import prune_journals
from camora_sql.records import forget
from camora_sql.session import Session
from camora_sql.statements import records
from camora_sql.store import Store

__all__ = ["STEP", "Claimer", "Receipt", "StatementClaimer"]

STEP = 500
"""Rows that one claim promotes, or prunes, at most: bounded, so that nobody waits long for a transaction."""
_SHORTEST, _LONGEST = 0.005, 0.25
"""Seconds until what others have locked is looked at again: soon at first, because mostly another worker is at it."""

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
        self._last_token = int.from_bytes(os.urandom(7), "big")
        self._again_in = _SHORTEST

    def _new_token(self) -> int:
        self._last_token += 1
        return self._last_token

    def _again(self, *, moved: bool) -> float:
        """Seconds until what there was to do is looked at again: 0 if some of it was done, else longer each time."""
        if moved:
            self._again_in = _SHORTEST
            return 0.0
        pause = self._again_in
        self._again_in = min(pause * 2, _LONGEST)
        return pause

    @abstractmethod
    def take(self, session: Session, limit: int) -> tuple[list[Delivery], float]:
        """Up to `limit` messages; when there are none, how many seconds until time alone brings one."""

    @property
    def is_behind(self) -> bool:
        """Whether `catch_up` has something to do."""
        return False

    def catch_up(self, session: Session) -> None:  # noqa: B027 -- most have nothing to catch up with
        """Do beside the claims what they leave out while there is enough to claim."""

    def _look(self, session: Session) -> tuple[bool, float, float]:
        """Whether anything is ready, and the seconds until something comes due, or lapses."""
        names = [name for name in self._queues for _ in range(2)]
        [(ready, next_due, next_lapse)] = session.rows(statements.outlook, names, len(self._queues))
        store = self._store
        return bool(ready), _until(next_due, store.now()), _until(next_lapse, store.lease_now())

    def _deliveries(self, rows: Sequence[Sequence[Any]], token: int) -> list[Delivery]:
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
        most = max(*counts, self._prune_surplus(session, now))
        more = [prune_workflows(session, self._store), prune_journals(session, self._store)]
        return most >= STEP or any(more)

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

        moved, token = 0, 0

        def claim(session: Session) -> Sequence[Sequence[Any]]:
            nonlocal moved, token
            # This may run more than once; what counts is the last time.
            moved = self._make_ready(session, due=due_in <= 0, lapsed=lapse_in <= 0)
            token = self._new_token()
            return self._claim(session, limit, token)

        try:
            rows = session.write(claim, Need.NONE)
        except Garbled:
            # A text in a row is no text. It is delivered all the same, and the worker buries it.
            rows = session.tolerating(lambda: session.write(claim, Need.NONE))
        deliveries = self._deliveries(rows, token)
        if due_in > 0 and lapse_in > 0:
            return deliveries, float("inf")
        # What was promoted may have been of other queues; then there is more to wait for.
        return deliveries, self._again(moved=moved > 0)

    def _make_ready(self, session: Session, *, due: bool, lapsed: bool) -> int:
        store = self._store
        moved = session.change(statements.promote, (store.now(), STEP)) if due else 0
        return moved + (session.change(statements.lapse, (store.lease_now(), STEP)) if lapsed else 0)

    def _claim(self, session: Session, limit: int, token: int) -> Sequence[Sequence[Any]]:
        values: list[Any] = [self._store.lease_now() + self.lease_ms, token, self._worker]
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
