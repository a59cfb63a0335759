"""At most once: the acknowledgement before the run."""

from __future__ import annotations

from typing import Any

from camora.context import Context
from camora.interfaces.middleware import Executed, Middleware
from camora.steering import NotOurs
from camora.task import AnyTask

__all__ = ["EarlyAck"]


class EarlyAck(Middleware):
    """Settles jobs of tasks with `ack="before"` just before the function is called: a crash loses them, by choice."""

    phase = "resource"

    def concerns(self, task: AnyTask) -> bool:
        """Only tasks with `ack="before"`."""
        return task.config.ack == "before"

    async def execute(self, context: Context, call_next: Executed) -> Any:
        """Acknowledge; not run where the delivery has gone to another worker meanwhile."""
        if not await context.acknowledge():
            raise NotOurs
        return await call_next(context)
