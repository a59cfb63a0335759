"""How many may run at once in a pool."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from camora.context import Context
from camora.interfaces.middleware import Executed, Middleware
from camora.interfaces.pool import Pool
from camora.task import AnyTask

__all__ = ["Slots"]


class Slots(Middleware):
    """Waits for a slot of the task's pool, first come first served: before the timeout starts to count."""

    phase = "resource"

    def __init__(self, pool_of: Callable[[AnyTask], Pool]) -> None:
        self._pool_of = pool_of
        self._slots: dict[Pool, asyncio.Semaphore] = {}

    def concerns(self, task: AnyTask) -> bool:
        """Only tasks whose pool has a limit."""
        return self._pool_of(task).limit is not None

    async def execute(self, context: Context, call_next: Executed) -> Any:
        """Take the slot, and give it back."""
        pool = self._pool_of(context.task)
        assert pool.limit is not None
        slots = self._slots.get(pool)
        if slots is None:
            slots = self._slots[pool] = asyncio.Semaphore(pool.limit)
        async with slots:
            return await call_next(context)
