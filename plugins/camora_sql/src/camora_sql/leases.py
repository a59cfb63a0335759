"""Keeping deliveries alive, from a thread and over a connection of its own."""

from __future__ import annotations

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


class SqlLeases(Leases):
    """Waits for other writers at most a quarter of a lease, for a silent server a third: there is time to try again."""

    def __init__(self, procedures: Procedures, lease_ms: int) -> None:
        self._procedures = procedures
        self._lease_ms = lease_ms
        store = procedures.store
        patience = min(store.settings.busy_timeout, lease_ms / 4000)
        self._session = BlockingSession(store, patience=patience, within=max(_SHORTEST, lease_ms / 3000))

    def extend(self, deliveries: Sequence[Delivery]) -> Sequence[LeaseVerdict]:
        """One transaction for all of them."""
        if not deliveries:
            return []
        held = self._session.run(lambda session: self._extend(session, deliveries))
        return [LeaseVerdict.HELD if delivery.receipt[:2] in held else LeaseVerdict.LOST for delivery in deliveries]

    def _extend(self, session: Session, deliveries: Sequence[Delivery]) -> set[tuple[int, int]]:
        procedures = self._procedures
        session.ask_time()

        def extend(session: Session) -> set[tuple[int, int]]:
            return procedures.extend(session, deliveries, self._lease_ms)

        return session.once(extend, Need.NONE) if procedures.single else session.write(extend, Need.NONE)

    def cancelled(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Looks into an index that holds nothing but flagged jobs."""
        flagged = {tuple(row) for row in self._session.read(lambda session: session.rows(statements.cancelled))}
        return [delivery for delivery in deliveries if delivery.receipt[:2] in flagged] if flagged else ()

    def close(self) -> None:
        """Close the connection; a later call would make another one."""
        self._session.close()
