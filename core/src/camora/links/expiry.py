"""Expired jobs do not start."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from camora.clock import Clock
from camora.context import Context
from camora.interfaces.middleware import Executed, Middleware
from camora.steering import Expired

__all__ = ["Expiry"]


class Expiry(Middleware):
    """Ends a job as `expired` when its time has passed before it could start."""

    phase = "guard"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def execute(self, context: Context, call_next: Executed) -> Coroutine[Any, Any, Any]:
        """Look at the clock once, before the attempt."""
        expires = context.message.expires
        if expires is not None and self._clock.now_ms() >= expires:
            raise Expired
        return call_next(context)
