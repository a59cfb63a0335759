"""Keeping deliveries alive: the feed's thread gives back what is not extended here."""

from __future__ import annotations

import time
from collections.abc import Sequence

from camora.interfaces.broker import Leases, LeaseVerdict
from camora.message import Delivery

from camora_amqp.lent import Ledger

__all__ = ["AmqpLeases"]


class AmqpLeases(Leases):
    """Extends in memory, without a connection and without waiting.

    Whether the server still takes this worker for alive is what the feed's heartbeats are about: when they end, so does
    the connection, and all of it is lost at once.
    """

    def __init__(self, ledger: Ledger, lease: float) -> None:
        self._ledger = ledger
        self._lease = lease

    def extend(self, deliveries: Sequence[Delivery]) -> Sequence[LeaseVerdict]:
        """One verdict for each."""
        held = self._ledger.extend((one.receipt for one in deliveries), time.monotonic() + self._lease)
        return [LeaseVerdict.HELD if one else LeaseVerdict.LOST for one in held]

    def cancelled(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """None: RabbitMQ cannot be asked to cancel a job."""
        del deliveries
        return ()

    def close(self) -> None:
        """There is nothing to let go of."""
