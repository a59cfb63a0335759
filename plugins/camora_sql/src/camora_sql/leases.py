"""Keeping deliveries alive, from a thread and over a connection of its own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from camora.interfaces.broker import Leases, LeaseVerdict
from camora.message import Delivery

from camora_sql import statements
from camora_sql.dialects.base import Need
from camora_sql.session import Session
from camora_sql.store import Store

__all__ = ["SqlLeases"]


class SqlLeases(Leases):
    """Waits for other writers at most a quarter of a lease, so that there is time to try again."""

    def __init__(self, store: Store, lease_ms: int) -> None:
        self._store = store
        self._lease_ms = lease_ms
        self._session = Session(store, patience=min(store.settings.busy_timeout, lease_ms / 4000))

    def extend(self, deliveries: Sequence[Delivery]) -> Sequence[LeaseVerdict]:
        """One transaction for all of them."""
        if not deliveries:
            return []
        held = self._session.write(lambda session: self._extend(session, deliveries), Need.NONE)
        return [LeaseVerdict.HELD if delivery.receipt[:2] in held else LeaseVerdict.LOST for delivery in deliveries]

    def _extend(self, session: Session, deliveries: Sequence[Delivery]) -> set[tuple[int, int]]:
        until = self._store.lease_now() + self._lease_ms
        by_token: dict[int, list[int]] = defaultdict(list)
        for delivery in deliveries:
            by_token[delivery.receipt[1]].append(delivery.receipt[0])
        held: set[tuple[int, int]] = set()
        for token, seqs in by_token.items():
            if session.change_in(statements.extend_held, seqs, (until, token)) < len(set(seqs)):
                seqs = [row[0] for row in session.rows_in(statements.still_held, seqs, (token,))]
            held.update((seq, token) for seq in seqs)
        return held

    def cancelled(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Looks into an index that holds nothing but flagged jobs."""
        flagged = {tuple(row) for row in self._session.read(lambda session: session.rows(statements.cancelled))}
        return [delivery for delivery in deliveries if delivery.receipt[:2] in flagged] if flagged else ()

    def close(self) -> None:
        """Close the connection; a later call would make another one."""
        self._session.close()
