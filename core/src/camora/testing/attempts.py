"""The link around the functions of a `TestWorker`'s jobs."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any, ClassVar

from camora.context import Context
from camora.interfaces.middleware import Executed, Middleware
from camora.links.timeouts import timed_out
from camora.testing.broker import Theatre

__all__ = ["Attempts"]

_RUNNING: ContextVar[Context] = ContextVar("camora_testing_attempt")


class Attempts(Middleware):
    """Knows which attempt it is that sleeps, and lets workers crash around the function."""

    phase: ClassVar[str] = "inner"

    def __init__(self, theatre: Theatre) -> None:
        self._theatre = theatre

    async def execute(self, context: Context, call_next: Executed) -> Any:
        """Call it, unless its worker dies."""
        stage = self._theatre.stage
        stage.log.note("started", context.task.name, context.id, f"attempt {context.attempt}")
        await self._crash_if_planned("started", context)
        token = _RUNNING.set(context)
        if context.acknowledged:
            stage.begin_early(context.id, context.worker)
        try:
            value = await call_next(context)
        finally:
            _RUNNING.reset(token)
            if context.acknowledged and not self._theatre.keeps_records:
                stage.end_early(context.id)  # else when its end is stored
        await self._crash_if_planned("finished", context)
        return value

    async def _crash_if_planned(self, point: Any, context: Context) -> None:
        stage = self._theatre.stage
        if self._theatre.faults.strikes(point, context.task.name):
            stage.log.note("crashed", context.task.name, context.id, point)
            stage.kill(context.worker)
            await asyncio.Event().wait()  # until its worker is cleared away

    async def sleep(self, seconds: float) -> None:
        """Wait for virtual time. Inside a job, its timeout ends it at the virtual moment at which it would."""
        stage, context = self._theatre.stage, _RUNNING.get(None)
        if context is None:
            await stage.sleep(seconds)
            return
        with stage.asleep([context.id]):
            left = seconds
            if context.timeout is not None:
                left = context.timeout - (stage.clock.now_ms() - context.started) / 1000
            await stage.sleep(min(seconds, left))
        if left < seconds:
            raise timed_out(context)
