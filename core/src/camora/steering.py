"""Signals between the framework's links and the executor; middleware outside the retries link may see them."""

from __future__ import annotations

__all__ = ["Again", "Expired", "NotOurs", "NotYet", "TimedOut", "Unstorable"]


class Again(Exception):
    """The attempt failed and will be tried again in `delay` seconds; the failure is its `__cause__`."""

    def __init__(self, delay: float) -> None:
        super().__init__(f"to be tried again in {delay:.1f} s")
        self.delay = delay


class Expired(Exception):
    """The job was not started before its `expires`."""


class NotOurs(Exception):
    """Another worker has the delivery by now; the function did not run here."""


class NotYet(Exception):
    """A limit leaves no room for the attempt: the message goes back, for `delay` seconds. No attempt, and no miss."""

    def __init__(self, delay: float) -> None:
        super().__init__(f"a limit leaves no room for {delay:.1f} s")
        self.delay = delay


class TimedOut(TimeoutError):
    """The attempt took longer than its timeout, and was stopped. A `TimeoutError`, so policies can name that."""


class Unstorable(Exception):
    """The result cannot be encoded, or the arguments cannot go where the function runs: running again is no help."""
