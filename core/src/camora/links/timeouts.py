"""The attempt's timeout."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
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

    def concerns(self, task: AnyTask) -> bool:
        """Not tasks whose pool kills."""
        return not self._pool_of(task).kills

    def execute(self, context: Context, call_next: Executed) -> Coroutine[Any, Any, Any]:
        """Watch the clock, if there is a timeout."""
        timeout = context.timeout
        return call_next(context) if timeout is None else _watched(context, call_next, timeout)


async def _watched(context: Context, call_next: Executed, timeout: float) -> Any:
    # In a task of its own, because a function may ignore its cancellation, and then must not hold its slot.
    label = f"{context.task.name} {context.id}"
    attempt = asyncio.get_running_loop().create_task(call_next(context), name=label)
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
