"""The async pool: coroutine functions in the worker's loop."""

from __future__ import annotations

import asyncio
from typing import Any

from camora.interfaces.pool import Call, Pool, PoolSettings, TaskExit
from camora.signals import Suspend

__all__ = ["CoroutinePool"]


class CoroutinePool(Pool):
    """Awaits the function; a plain one runs inline, as in the sync pool.

    A function that ignores its cancellation is left to itself by the worker, after a grace.
    """

    kind = "async"

    def __init__(self, settings: PoolSettings) -> None:
        self.limit = settings.workers

    async def open(self) -> None:
        """Nothing to get ready."""

    async def call(self, call: Call) -> Any:
        """Await it."""
        try:
            made = call.function(*call.args, **call.kwargs)
            return await made if call.is_async else made
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                # Nobody cancelled it: the function raised this by itself, and to the worker that is a failure.
                raise TaskExit.of(error) from error
            raise
        except (Exception, Suspend):
            raise
        except BaseException as error:
            raise TaskExit.of(error) from error

    async def close(self, grace: float) -> None:
        """Coroutines end with their jobs; nothing else to stop."""
        del grace
