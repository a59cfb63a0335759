"""Keeping deliveries alive: the feed's thread renews the locks of what is extended here."""

from __future__ import annotations

import time
from collections.abc import Sequence

from camora.errors import BrokerUnavailable
from camora.interfaces.broker import Leases, LeaseVerdict
from camora.message import Delivery

from camora_servicebus.feed import Feed

__all__ = ["ServiceBusLeases"]


class ServiceBusLeases(Leases):
    """Extends in memory, without a connection and without waiting.

    A lease lasts here for as long as it is extended, and the feed renews the lock below it, a third of its length after
    it began. A lock that was lost, or could not be renewed in time, is a lost lease.
    """

    def __init__(self, feed: Feed, lease: float, who: str) -> None:
        self._feed = feed
        self._lease = lease
        self._who = who

    def extend(self, deliveries: Sequence[Delivery]) -> Sequence[LeaseVerdict]:
        """One verdict for each. Raises `BrokerUnavailable` when the service has not answered renewals for a while."""
        held = self._feed.ledger.extend((one.receipt for one in deliveries), time.monotonic() + self._lease)
        if all(held) and any(self._feed.late(one.receipt) for one in deliveries):
            # They are still ours, but for how long nobody knows: whoever asks must not take it for a whole lease.
            raise BrokerUnavailable(
                f"{self._who}: locks are not renewed: {self._feed.error or 'the service does not answer'}"
            )
        return [LeaseVerdict.HELD if one else LeaseVerdict.LOST for one in held]

    def cancelled(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """None: Service Bus cannot be asked to cancel a job."""
        del deliveries
        return ()

    def close(self) -> None:
        """There is nothing to let go of."""
