"""The sync pool: plain functions in the worker's loop, one at a time, blocking it."""

from __future__ import annotations

from typing import Any

from camora.interfaces.pool import Call, Pool, PoolSettings, TaskExit

__all__ = ["InlinePool"]


class InlinePool(Pool):
    """Calls the function where it is: the fastest pool, for functions of microseconds. Nothing can interrupt it."""

    kind = "sync"

    def __init__(self, settings: PoolSettings) -> None:
        self.limit = settings.workers

    async def open(self) -> None:
        """Nothing to get ready."""

    async def call(self, call: Call) -> Any:
        """Call it; the loop stands still meanwhile."""
        try:
            made = call.function(*call.args, **call.kwargs)
            return await made if call.is_async else made
        except Exception:
            raise
        except BaseException as error:
            raise TaskExit.of(error) from error

    async def close(self, grace: float) -> None:
        """Nothing to stop."""
        del grace
