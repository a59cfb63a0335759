"""Entering what a factory yields, and leaving it again: in the way of a job, and in the way of an app."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
from typing import Any

from camora.interfaces.pool import TaskExit

__all__ = ["Keeper", "contained", "entered", "left", "manager_of"]


def manager_of(made: Any) -> Any:
    """What a factory returned, as a context manager: a generator that came out of a decorator becomes one."""
    if inspect.isgenerator(made):
        return contextlib.contextmanager(lambda: made)()
    if inspect.isasyncgen(made):
        return contextlib.asynccontextmanager(lambda: made)()
    return made


async def entered(manager: Any) -> Any:
    """Enter a context manager of either sort."""
    if hasattr(manager, "__aenter__"):
        return await manager.__aenter__()
    return manager.__enter__()


async def left(manager: Any, error: BaseException | None) -> None:
    """Leave it, telling it about the error. Raises what it raises; that it wants to hide the error is ignored."""
    seen = (None, None, None) if error is None else (type(error), error, error.__traceback__)
    if hasattr(manager, "__aexit__"):
        await manager.__aexit__(*seen)
    else:
        manager.__exit__(*seen)


def contained(error: BaseException) -> BaseException:
    """What may pass through the loop for something that is no `Exception`; a cancellation asked for stays one."""
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        return error
    return TaskExit.of(error)


class Keeper:
    """Enters and leaves a context manager in one and the same task, as cancel scopes and task groups need it."""

    def __init__(self, manager: Any, context: contextvars.Context) -> None:
        self._manager = manager
        self._context = context
        self._leaving = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def enter(self) -> Any:
        """What the manager gives. Raises what it raises; cancelled, it ends the entering, too."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[Any] = loop.create_future()
        self._task = loop.create_task(self._keep(ready), context=self._context)
        try:
            await asyncio.wait((ready, self._task), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            raise
        if not ready.done():
            await self._task  # raises why
        return ready.result()

    async def _keep(self, ready: asyncio.Future[Any]) -> None:
        try:
            ready.set_result(await entered(self._manager))
            try:
                await self._leaving.wait()
            except asyncio.CancelledError as error:  # the loop itself ends
                await left(self._manager, error)
                raise
            await left(self._manager, None)
        except (Exception, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 -- a teardown that calls sys.exit must not stop the loop
            raise contained(error) from None

    async def leave(self) -> None:
        """Leave it. Raises what the manager raises; that its task was cancelled by somebody else is no error."""
        self._leaving.set()
        if self._task is not None:
            await asyncio.wait((self._task,))
            if not self._task.cancelled():
                self._task.result()
