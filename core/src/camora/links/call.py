"""The innermost link: it calls the function, in its pool."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from camora.clock import Clock
from camora.context import Context
from camora.interfaces.middleware import Executed, Middleware
from camora.interfaces.pool import Call, Pool
from camora.links.timeouts import timed_out
from camora.parameters import Parameters
from camora.task import AnyTask

__all__ = ["CallFunction"]


class CallFunction(Middleware):
    """Hands the bound call to the task's pool."""

    phase = "inner"

    def __init__(
        self, parameters_of: Callable[[AnyTask], Parameters], pool_of: Callable[[AnyTask], Pool], clock: Clock, app: str
    ) -> None:
        self._parameters_of = parameters_of
        self._pool_of = pool_of
        self._clock = clock
        self._app = app

    def execute(self, context: Context, call_next: Executed) -> Coroutine[Any, Any, Any]:
        """Call it; nothing is further inside."""
        task = context.task
        args, kwargs = context.arguments
        function = task.function
        if task.is_class:
            function, args, kwargs = function(*args, **kwargs).execute, [], {}
        if context.injected:
            kwargs = {**kwargs, **context.injected}
        pool = self._pool_of(task)
        call = Call(
            function=function,
            args=tuple(args),
            kwargs=kwargs,
            is_async=task.is_async,
            reference=task.reference,
            task=task.name,
            timeout=context.timeout if pool.kills else None,
        )
        context.started = self._clock.now_ms()
        context.ran = True
        return pool.call(call) if call.timeout is None else _killed_in_time(pool, call, context)


async def _killed_in_time(pool: Pool, call: Call, context: Context) -> Any:
    try:
        return await pool.call(call)
    except TimeoutError as error:
        raise timed_out(context) from error
