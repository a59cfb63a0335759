"""What a task raises or returns to steer its own job."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import attrs

from camora.clock import seconds

__all__ = ["Discard", "Failure", "Recorded", "Retry"]


class Retry(Exception):
    """Raise it in a task to be run again.

    `delay` (seconds or timedelta) replaces the policy's delay; `policy` replaces the policy in force. Where no policy
    is in force at all, `RetryPolicy()` is: a bare `raise Retry` does what it says.
    """

    def __init__(self, message: str = "", *, delay: float | timedelta | None = None, policy: Any = None) -> None:
        super().__init__(message)
        self.delay = None if delay is None else seconds(delay)
        if self.delay is not None and not 0 <= self.delay < math.inf:
            raise ValueError(f"Retry(delay={delay!r}): seconds from 0, and an end")
        self.policy = policy

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the keywords, because signals cross process boundaries."""
        return _retry, (str(self), self.delay, self.policy)


def _retry(message: str, delay: float | None, policy: Any) -> Retry:
    return Retry(message, delay=delay, policy=policy)


class Discard(Exception):
    """Raise it in a task to finish without a result, on purpose: not a failure, never retried."""


@attrs.frozen
class Failure:
    """Return it from a task to fail for good without an exception: not retried, kept in the dead letters."""

    reason: str = ""


@attrs.frozen
class Recorded:
    """Returned in place of a job that had done its work in an earlier run: what that came to, as it was encoded then.

    Made by whoever remembers such things, such as the inbox of camora-sql; never by a task.
    """

    encoded: bytes | None = None
