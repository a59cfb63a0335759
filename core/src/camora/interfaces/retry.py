"""The retry policy: whether, and when, a failed job is tried again."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from camora.context import Context

__all__ = ["RetryPolicyLike"]


@runtime_checkable
class RetryPolicyLike(Protocol):
    """Decides over a failed attempt. A pure function: no I/O, no state, called in the worker's loop."""

    def __call__(self, job: Context, exception: BaseException, /) -> float | None:
        """Seconds to wait before the next attempt, or None to give up. `job.attempt` is the one that failed.

        If it raises, the job fails as if it had answered None, and both errors are recorded.
        """
