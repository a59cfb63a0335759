"""How long the locks of one queue last.

The service says until when a lock lasts, by its own clock; what a client needs is how long from now. The two clocks may
differ, and the lock duration of an entity can be read with Manage rights alone. So it is worked out from what each
message says: a lock cannot last longer than from the moment at which the message was enqueued.
"""

from __future__ import annotations

import time

__all__ = ["LONGEST", "LockTerm"]

LONGEST = 300.0
"""Seconds: the service gives no longer locks ("Message transfers, locks, and settlement")."""
_UNKNOWN = 15.0
"""Seconds that are assumed where nothing is known: the clocks differ, and no message has just been enqueued."""


class LockTerm:
    """Of one queue. Belongs to the feed's thread; `seconds` may be read in any."""

    def __init__(self) -> None:
        self._bound: float | None = None
        self.seconds = _UNKNOWN
        """How long a lock that was just taken lasts, as far as is known."""

    def of_message(self, until: float | None, enqueued: float | None) -> float:
        """Seconds that are left of a lock that was just taken; both moments are the service's, since the epoch."""
        if until is None:
            return self.seconds
        if enqueued is not None and until > enqueued:
            bound = until - enqueued
            if self._bound is None or bound < self._bound:
                self._bound = bound
        return self.of_renewal(until)

    def of_renewal(self, until: float) -> float:
        """Seconds that are left of a lock that was just renewed."""
        bound = min(LONGEST, self._bound or LONGEST)
        by_clock = until - time.time()
        if 0 < by_clock <= LONGEST:
            self.seconds = min(by_clock, bound)
        else:  # this machine's clock is wrong, or the service's
            self.seconds = min(_UNKNOWN, bound)
        return self.seconds
