"""How a job sets itself aside."""

from __future__ import annotations

from camora.retry import RetryPolicy
from camora.signals import Retry

__all__ = ["FAR", "Defer"]

FAR = 100 * 366 * 86400.0
"""Seconds. A retry that is as far away never comes by itself: it is deferred instead."""
_ALWAYS = RetryPolicy(max_tries=2**31, delay=0)


class Defer(Retry):
    """Raise it in a task to set the job aside until somebody calls for it: `broker.deferred.resume(queue, number)`.

    The number is `ctx.delivery.sequence_number`, and stands in log lines. It is no attempt, so it may be raised as
    often as needed. On a broker that does not know it the job waits for a hundred years.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(message, delay=2 * FAR, policy=_ALWAYS)
