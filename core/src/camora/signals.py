"""What a task raises or returns to steer its own job."""

from __future__ import annotations

import math
import types
from datetime import UTC, datetime, timedelta
from typing import Any, Union, get_args, get_origin

import attrs

from camora.clock import seconds

__all__ = ["Discard", "Failure", "Recorded", "Retry", "Suspend", "successes"]


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


class Suspend(BaseException):
    """Raise it to leave the worker, and to be begun anew later: in `delay` seconds or at `until`, an aware moment.

    Neither an attempt nor a failure: no retry policy has a say, and the job's next run is the same attempt, of its next
    life (`Message.life`). It need not be handled: `except Exception` does not catch it. Raises `ValueError` for a
    moment without a time zone, and where not exactly one of both is given.
    """

    def __init__(self, *, delay: float | timedelta | None = None, until: datetime | None = None) -> None:
        super().__init__()
        if (delay is None) == (until is None):
            raise ValueError("Suspend: give delay= or until=, one of them")
        self.delay = None if delay is None else seconds(delay)
        if self.delay is not None and not 0 <= self.delay < math.inf:
            raise ValueError(f"Suspend(delay={delay!r}): seconds from 0, and an end")
        if until is not None and until.tzinfo is None:
            raise ValueError(f"Suspend(until={until!r}): give a moment with a time zone, such as datetime.now(UTC)")
        self.until = until

    def due(self, now: int) -> int:
        """When it is to begin anew; both are milliseconds since the epoch."""
        if self.until is not None:
            return max(now, math.ceil(self.until.astimezone(UTC).timestamp() * 1000))
        assert self.delay is not None
        return now + math.ceil(self.delay * 1000)

    def __str__(self) -> str:
        return f"until {self.until.isoformat()}" if self.until is not None else f"for {self.delay:g} s"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the keywords, because signals cross process boundaries."""
        return _suspend, (self.delay, self.until)


def _suspend(delay: float | None, until: datetime | None) -> Suspend:
    return Suspend(delay=delay, until=until)


@attrs.frozen
class Failure:
    """Return it from a task to fail for good without an exception: not retried, kept in the dead letters."""

    reason: str = ""


def successes(returned: Any) -> Any:
    """What a task that is annotated like this comes to when it succeeds: without `Failure`, which is no result.

    `list[int]` for `list[int] | Failure`; `Any` where nothing is left.
    """
    if returned is Failure:
        return Any
    if get_origin(returned) not in (Union, types.UnionType):
        return returned
    kinds = get_args(returned)
    left = tuple(kind for kind in kinds if kind is not Failure)
    return returned if len(left) == len(kinds) else Union[left]  # noqa: UP007 -- of any number


@attrs.frozen
class Recorded:
    """Returned in place of a job that had done its work in an earlier run: what that came to, as it was encoded then.

    Made by whoever remembers such things, such as the inbox of camora-sql; never by a task.
    """

    encoded: bytes | None = None
