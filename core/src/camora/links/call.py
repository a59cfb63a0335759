"""The innermost link: it calls the function, in its pool."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from camora.clock import Clock
from camora.context import Context
from camora.errors import ConfigurationError, EncodeError
from camora.interfaces.middleware import Executed, Middleware
from camora.interfaces.pool import Call, Pool
from camora.links.timeouts import timed_out
from camora.parameters import Parameters
from camora.steering import Unstorable
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
            made = args[0] if task.function.makes_fields else function(*args, **kwargs)  # type: ignore[attr-defined]
            function, args, kwargs = made.execute, [], {}
        pool = self._pool_of(task)
        if context.injected:
            if not pool.in_process:
                return self._elsewhere(pool, context, function, args, kwargs)
            kwargs = {**kwargs, **context.injected}
        call = Call(
            function=function,
            args=tuple(args),
            kwargs=kwargs,
            is_async=task.is_async,
            reference=task.reference,
            task=task.name,
            timeout=context.timeout if pool.kills else None,
        )
        context.begin(self._clock.now_ms())
        return pool.call(call) if pool.in_process and call.timeout is None else _killed_in_time(pool, call, context)

    def _elsewhere(
        self, pool: Pool, context: Context, function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> Coroutine[Any, Any, Any]:
        """A call whose dependencies another process makes: what is injected are types, and the app to ask."""
        call = Call(
            function=function,
            args=tuple(args),
            kwargs=kwargs,
            is_async=context.task.is_async,
            reference=context.task.reference,
            task=context.task.name,
            timeout=context.timeout if pool.kills else None,
            injected=context.injected,
            context=context,
            app=self._app,
        )
        context.begin(self._clock.now_ms())
        return _killed_in_time(pool, call, context)


async def _killed_in_time(pool: Pool, call: Call, context: Context) -> Any:
    """Call it, and say what the pool's own errors mean for the attempt. `remote_traceback` marks the function's."""
    try:
        return await pool.call(call)
    except Exception as error:
        own = not hasattr(error, "remote_traceback")
        if isinstance(error, TimeoutError) and own and call.timeout is not None:
            raise timed_out(context) from error
        if isinstance(error, EncodeError) and (own or error.path == "result"):
            raise Unstorable(str(error)) from error
        if getattr(error, "refused", False) or (own and isinstance(error, ConfigurationError)):
            context.ran = False
        raise
