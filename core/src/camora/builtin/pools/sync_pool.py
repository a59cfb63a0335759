"""The sync pool: plain functions, right in the worker's loop."""

from __future__ import annotations

import asyncio
from typing import Any

from camora.interfaces.pool import Call, Pool, TaskExit

__all__ = ["SyncPool"]


class SyncPool(Pool):
    """Calls the function on the spot: the cheapest way, for functions that take microseconds.

    It blocks the loop, and with it every other job of the worker, for as long as the function takes; it cannot be
    interrupted, so a timeout is noticed only afterwards.
    """

    kind = "sync"

    def __init__(self, workers: int | None = None) -> None:
        self.limit = workers
        self._closed = False

    async def open(self) -> None:
        """Nothing to do."""

    async def call(self, call: Call) -> Any:
        """Call the function; no other call runs meanwhile, so `workers` needs no counting."""
        if self._closed:
            raise RuntimeError(f"{call.task}: the sync pool is closed")
        if call.is_async:
            raise TypeError(f'{call.task}: a sync pool runs plain functions; use execution="async" for this one')
        try:
            return call.function(*call.args, **call.kwargs)
        except (StopIteration, asyncio.CancelledError) as error:  # would mean something else in a coroutine
            raise TaskExit.of(error) from None
        except Exception:
            raise
        except BaseException as error:  # noqa: BLE001 -- the loop must not see it
            raise TaskExit.of(error) from None

    async def close(self, grace: float) -> None:
        """Nothing runs between calls."""
        del grace
        self._closed = True
