"""The clock of a server, as far as it can be told from here."""

from __future__ import annotations

import threading
import time

from camora.clock import SYSTEM_CLOCK, Clock

__all__ = ["ServerClock"]

_DRIFT = 0.0002
"""Milliseconds by which two clocks part in each millisecond: cheap ones differ by less."""


def _local_ms() -> float:
    return time.clock_gettime(_CLOCK) * 1000


# The one that goes on while the machine sleeps.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class ServerClock:
    """Goes by this machine's steady clock, from what the server said last: who sets this machine's time is not heard.

    Another clock than the system's takes the server's place altogether: tests travel in it. Safe in any thread.
    """

    def __init__(self, clock: Clock) -> None:
        self._given = None if clock is SYSTEM_CLOCK else clock
        self._lock = threading.Lock()
        # Until the server was asked, which the making of each connection does.
        self._offset = time.time() * 1000 - _local_ms()
        self._error = float("inf")
        self._certain = self._offset
        self._at = 0.0

    def now_ms(self) -> int:
        """Milliseconds since the epoch, by the server's clock; rather too few than too many: nothing is early."""
        return self._given.now_ms() if self._given else int(_local_ms() + self._certain)

    def local_ms(self) -> float:
        """A moment for `learn`."""
        return _local_ms()

    def learn(self, server: float, sent: float, received: float) -> None:
        """The server said this moment, in milliseconds since the epoch, between these two moments of ours."""
        error = (received - sent) / 2
        offset = server - (sent + received) / 2
        with self._lock:
            doubt = self._error + (received - self._at) * _DRIFT
            # The surer one of the two; but what it cannot have drifted to, somebody has set it to.
            if error <= doubt or abs(offset - self._offset) > error + doubt:
                self._offset, self._error, self._at = offset, error, received
                # It said so before it was heard here.
                self._certain = offset - error
