"""Running a signature here and now: the whole chain, no broker."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import msgspec

from camora.context import Context
from camora.engine import Engine, EngineParts
from camora.job import Job
from camora.limits import Limit
from camora.message import Delivery, Message
from camora.outcome import Progress
from camora.signals import Suspend
from camora.steering import Again
from camora.task import AnyTask, DispatchPort

__all__ = ["run_now"]


class _Here:
    """The port of a job that has no worker: progress has nowhere to go, dispatch goes to the app."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def dispatch(self, what: Any, /, *args: Any, **kwargs: Any) -> Job[Any]:
        job: Job[Any] = await self._app.dispatch(what, *args, **kwargs)
        return job

    async def acknowledge(self, context: Context) -> bool:
        del context
        return True

    async def report(self, context: Context, progress: Progress) -> None:
        del context, progress

    def holding(self, context: Context, limits: Sequence[Limit]) -> AbstractAsyncContextManager[None]:
        del context, limits  # what is called here and now does not wait in a line with the workers' jobs
        return nullcontext()

    watched = False

    def began(self, context: Context) -> None: ...


async def run_now(parts: EngineParts, message: Message, task: AnyTask, app: DispatchPort) -> Any:
    """Attempt after attempt, until it succeeds or fails for good; raises what the last attempt raised.

    What is suspended is waited for, too.
    """
    engine = Engine(parts)
    await engine.open()
    try:
        while True:
            delivery = Delivery(id=message.id, queue=message.queue, body=b"")
            context = Context(message, task, delivery=delivery, worker="here", port=_Here(app))
            try:
                return await engine.run(context)
            except Again as again:
                await asyncio.sleep(again.delay)
                message = msgspec.structs.replace(message, attempt=message.attempt + 1)
            except Suspend as suspend:
                now = parts.clock.now_ms()
                await asyncio.sleep((suspend.due(now) - now) / 1000)
                message = msgspec.structs.replace(message, life=message.life + 1, expires=None)
    finally:
        await engine.close(grace=5.0)
