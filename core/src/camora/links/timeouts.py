"""The attempt's timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from camora.context import Context
from camora.interfaces.middleware import Executed, Middleware
from camora.interfaces.pool import Pool
from camora.steering import TimedOut
from camora.task import AnyTask

__all__ = ["GRACE", "Timeouts", "timed_out"]

GRACE = 5.0
"""Seconds a cancelled function may take to end before it is left to itself."""


class Timeouts(Middleware):
    """Cancels an attempt that takes too long. Pools that kill do it themselves; this names the error."""

    phase = "resource"

    def __init__(self, pool_of: Callable[[AnyTask], Pool]) -> None:
        self._pool_of = pool_of

    async def execute(self, context: Context, call_next: Executed) -> Any:
        """Watch the clock, if there is a timeout."""
        timeout = context.timeout
        if timeout is None:
            return await call_next(context)
        if self._pool_of(context.task).kills:
            return await call_next(context)
        # In a task of its own, because a function may ignore its cancellation, and then must not hold its slot.
        attempt = asyncio.ensure_future(call_next(context))
        try:
            await asyncio.wait([attempt], timeout=timeout)
        except asyncio.CancelledError:
            await _end(attempt)
            raise
        if attempt.done():
            return attempt.result()
        await _end(attempt)
        raise timed_out(context)


async def _end(attempt: asyncio.Future[Any]) -> None:
    """Cancel it, and wait for it to clean up; after `GRACE` it is left to itself."""
    attempt.cancel()
    await asyncio.wait([attempt], timeout=GRACE)
    attempt.add_done_callback(_forget)


def _forget(attempt: asyncio.Future[Any]) -> None:
    if not attempt.cancelled():
        attempt.exception()  # retrieved, so that asyncio does not complain of it


def timed_out(context: Context) -> TimedOut:
    """The error for an attempt that was stopped for its length."""
    return TimedOut(f"{context.task.name} ran longer than its timeout of {context.timeout:g} s and was stopped")
