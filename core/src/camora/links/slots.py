"""How many may run at once: per pool, and per task."""

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
    """Waits for a slot of the task's `max_concurrency`, then of its pool: before the timeout starts to count."""

    phase = "resource"

    def __init__(self, pool_of: Callable[[AnyTask], Pool]) -> None:
        self._pool_of = pool_of
        self._slots: dict[object, asyncio.Semaphore] = {}

    def concerns(self, task: AnyTask) -> bool:
        """Only tasks with a limit, of their own or of their pool."""
        return task.config.max_concurrency is not None or self._pool_of(task).limit is not None

    async def execute(self, context: Context, call_next: Executed) -> Any:
        """Take the slots, first come first served, and give them back."""
        task = context.task
        pool = self._pool_of(task)
        async with self._slot(task, task.config.max_concurrency), self._slot(pool, pool.limit):
            return await call_next(context)

    def _slot(self, owner: object, limit: int | None) -> Any:
        if limit is None:
            return _FREE
        slots = self._slots.get(owner)
        if slots is None:
            slots = self._slots[owner] = asyncio.Semaphore(limit)
        return slots


class _Free:
    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *_: object) -> None: ...


_FREE = _Free()
