"""The async pool: coroutine functions, in the worker's loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from camora.builtin.pools.stepping import NONES, LetGo, Steps, carry_on, forward
from camora.interfaces.pool import Call, Pool, TaskExit

__all__ = ["AsyncPool"]

_logger = logging.getLogger("camora.pools")


class AsyncPool(Pool):
    """Awaits the function where it is called.

    A function that ignores its cancellation is abandoned when `let_go` says so: it goes on in a task of its own until
    the pool is closed.
    """

    kind = "async"

    def __init__(self, workers: int | None = None) -> None:
        self.limit = workers
        self._slots = None if workers is None else asyncio.Semaphore(workers)
        self._strays: set[asyncio.Task[None]] = set()
        self._running = 0
        self._idle: asyncio.Event | None = None
        self._closed = False

    async def open(self) -> None:
        """Nothing to do."""

    async def call(self, call: Call) -> Any:
        """Await the function."""
        slots = self._slots
        if slots is not None:
            await slots.acquire()
        self._running += 1
        try:
            if not call.is_async or self._closed:
                raise self._refused(call)
            coroutine = call.function(*call.args, **call.kwargs)
            try:
                return await Steps(coroutine.send, NONES)
            except Exception:
                raise
            except BaseException as error:  # noqa: BLE001 -- the loop must not see it
                return await self._interrupted(call, coroutine, error)
        finally:
            self._running -= 1
            if slots is not None:
                slots.release()
            if self._idle is not None and not self._running:
                self._idle.set()

    async def _interrupted(self, call: Call, coroutine: Coroutine[Any, Any, Any], error: BaseException) -> Any:
        """Something came that is no `Exception`: thrown at us by the loop, or raised by the function."""
        if getattr(coroutine, "cr_frame", None) is None:  # it has ended: with this
            raise own_exit(error) from None
        if isinstance(error, GeneratorExit):
            coroutine.close()
            raise error
        try:
            return await forward(coroutine, error)
        except LetGo:
            raise self._abandon(call, coroutine) from None
        except (Exception, GeneratorExit):
            raise
        except BaseException as later:  # noqa: BLE001 -- as in `call`
            raise own_exit(later) from None

    def _abandon(self, call: Call, coroutine: Coroutine[Any, Any, Any]) -> asyncio.CancelledError:
        error = asyncio.CancelledError()
        task = asyncio.get_running_loop().create_task(_stray(coroutine, error))
        self._strays.add(task)
        task.add_done_callback(self._stray_ended)
        current = asyncio.current_task()
        if current is not None:
            current.uncancel()  # the one that `let_go` added
        _logger.warning("%s ignores its cancellation and was abandoned; it still runs", call.task or call.function)
        return error

    def _stray_ended(self, task: asyncio.Task[None]) -> None:
        self._strays.discard(task)
        if not task.cancelled():
            task.exception()  # taken note of: nobody waits for it

    def _refused(self, call: Call) -> Exception:
        if self._closed:
            return RuntimeError(f"{call.task}: the async pool is closed")
        return TypeError(
            f"{call.task}: {getattr(call.function, '__qualname__', call.function)} is a plain function; an async pool "
            'needs an async one. Use execution="thread" (or "sync" where it cannot block)'
        )

    @property
    def abandoned(self) -> int:
        """Functions that ignored their cancellation, and still run."""
        return len(self._strays)

    async def close(self, grace: float) -> None:
        """Wait for running calls (their callers cancel them), and end what was abandoned."""
        self._closed = True
        if self._running:
            self._idle = asyncio.Event()
            await _within(grace, self._idle.wait())
        for task in self._strays:
            task.cancel()
        if self._strays:
            await asyncio.wait(self._strays, timeout=1.0)


def own_exit(error: BaseException) -> BaseException:
    """What a function's own exit becomes; a cancellation that somebody asked for stays one."""
    if isinstance(error, asyncio.CancelledError):
        try:
            task = asyncio.current_task()
        except RuntimeError:
            task = None
        if task is not None and task.cancelling():
            return error
    return TaskExit.of(error)


async def _stray(coroutine: Coroutine[Any, Any, Any], error: BaseException) -> None:
    await carry_on(coroutine, error)


async def _within(seconds: float, waiting: Coroutine[Any, Any, Any]) -> None:
    try:
        await asyncio.wait_for(waiting, seconds)
    except TimeoutError:
        return
