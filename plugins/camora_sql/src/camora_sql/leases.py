"""Keeping deliveries alive, from a thread and over a connection of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence

from camora.interfaces.broker import Leases, LeaseVerdict
from camora.message import Delivery

from camora_sql import statements
from camora_sql.blocking import BlockingSession
from camora_sql.dialects.base import Need
from camora_sql.procedures import Procedures
from camora_sql.session import Session

__all__ = ["SqlLeases"]


_SHORTEST = 0.5
"""Seconds that an answer may take at least: a new connection needs several trips."""
_PAUSE, _LONG_PAUSE = 0.005, 0.1
"""Seconds between two attempts to extend what somebody has locked: settlements are over soon."""


class SqlLeases(Leases):
    """Waits for other writers at most a quarter of a lease, for a silent server a third: there is time to try again."""

    def __init__(self, procedures: Procedures, lease_ms: int) -> None:
        self._procedures = procedures
        self._lease_ms = lease_ms
        # It is asked again after a third of a lease, and at the next tick of whoever asks.
        self._next_ms = lease_ms / 3 + min(1000, lease_ms / 6)
        self._store = store = procedures.store
        self._patience = min(store.settings.busy_timeout, lease_ms / 4000)
        self._session = BlockingSession(store, patience=self._patience, within=max(_SHORTEST, lease_ms / 3000))

    def extend(self, deliveries: Sequence[Delivery]) -> Sequence[LeaseVerdict]:
        """One transaction for all of them; and others for what somebody has locked, while that may help.

        What stays locked is held only if its lease lasts until the next question.
        """
        held: set[tuple[int, int]] = set()
        asked = list(deliveries)
        deadline, pause = time.monotonic() + self._patience, _PAUSE
        while asked:
            ends = self._extend(asked)
            enough = self._store.lease_now() + self._next_ms
            held.update(place for place, end in ends.items() if end >= enough)
            asked = [one for one in asked if one.receipt[:2] in ends and one.receipt[:2] not in held]
            if not asked or time.monotonic() >= deadline:
                break
            time.sleep(pause)
            pause = min(pause * 2, _LONG_PAUSE)
        return [LeaseVerdict.HELD if one.receipt[:2] in held else LeaseVerdict.LOST for one in deliveries]

    def _extend(self, deliveries: Sequence[Delivery]) -> dict[tuple[int, int], int]:
        procedures = self._procedures

        def extend(session: Session) -> dict[tuple[int, int], int]:
            return procedures.extend(session, deliveries, self._lease_ms)

        def work(session: Session) -> dict[tuple[int, int], int]:
            session.ask_time()
            return session.once(extend, Need.NONE) if procedures.single else session.write(extend, Need.NONE)

        return self._session.run(work)

    def cancelled(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Looks into an index that holds nothing but flagged jobs."""
        flagged = {tuple(row) for row in self._session.read(lambda session: session.rows(statements.cancelled))}
        return [delivery for delivery in deliveries if delivery.receipt[:2] in flagged] if flagged else ()

    def close(self) -> None:
        """Close the connection; a later call would make another one."""
        self._session.close()
