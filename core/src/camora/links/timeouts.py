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

__all__ = ["Timeouts"]


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
        try:
            async with asyncio.timeout(timeout) as watch:
                return await call_next(context)
        except TimeoutError as error:
            if watch.expired():
                raise timed_out(context) from error
            raise


def timed_out(context: Context) -> TimedOut:
    """The error for an attempt that was stopped for its length."""
    return TimedOut(f"{context.task.name} ran longer than its timeout of {context.timeout:g} s and was stopped")
