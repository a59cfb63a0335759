"""The path of a job through a database: publishing, taking, keeping, settling, as each database does it best."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from camora.interfaces.broker import ConsumerSettings
from camora.message import Delivery, Envelope
from camora.outcome import Settlement

from camora_sql.claiming import Claimer, StatementClaimer
from camora_sql.extending import extend
from camora_sql.publishing import publish
from camora_sql.session import Session
from camora_sql.settling import settle
from camora_sql.store import Store

__all__ = ["Procedures", "procedures_of"]


class Procedures(ABC):
    """What is done many thousand times a second. Each method runs in a transaction, or is one by itself if `single`."""

    single: bool
    """Each is one statement."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @abstractmethod
    def publish(self, session: Session, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """Store a batch; the id that stands for each."""

    @abstractmethod
    def settle(self, session: Session, settlements: Sequence[Settlement]) -> Sequence[bool | None]:
        """Apply a batch; False for each delivery that had ended before, None for what is to be tried again later."""

    @abstractmethod
    def extend(self, session: Session, deliveries: Sequence[Delivery], lease_ms: int) -> dict[tuple[int, int], int]:
        """Make leases last this long from now, but for those of rows that somebody has locked.

        The place and token of those that are still held, and until when, in milliseconds of the clock of leases.
        """

    @abstractmethod
    def claimer(self, settings: ConsumerSettings) -> Claimer:
        """What takes messages for one consumer."""


class _Statements(Procedures):
    """Transactions of several statements, which every database has."""

    single = False

    def publish(self, session: Session, envelopes: Sequence[Envelope]) -> Sequence[str]:
        return publish(session, self.store, envelopes)

    def settle(self, session: Session, settlements: Sequence[Settlement]) -> Sequence[bool]:
        return settle(session, self.store, settlements)

    def extend(self, session: Session, deliveries: Sequence[Delivery], lease_ms: int) -> dict[tuple[int, int], int]:
        return extend(session, deliveries, self.store.lease_now() + lease_ms)

    def claimer(self, settings: ConsumerSettings) -> Claimer:
        return StatementClaimer(self.store, settings)


def procedures_of(store: Store) -> Procedures:
    """Those of the store's database."""
    if store.dialect.name == "postgresql":
        # Imported where it is used.
        from camora_sql.calling import FunctionProcedures

        return FunctionProcedures(store)
    if store.dialect.name in ("mysql", "mariadb"):
        from camora_sql.dialects.mysql_procedures import LockingProcedures

        return LockingProcedures(store)
    return _Statements(store)
