"""Arguments: from the payload as annotated types, the rest from the injector."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from camora.context import Context
from camora.interfaces.injector import Injector
from camora.interfaces.middleware import Executed, Middleware
from camora.interfaces.pool import Pool
from camora.message import Message
from camora.parameters import Parameters
from camora.task import AnyTask

__all__ = ["Injection"]


class Injection(Middleware):
    """Structures the payload, and opens a scope of dependencies around the call where some are asked for."""

    phase = "inner"

    def __init__(
        self, parameters_of: Callable[[AnyTask], Parameters], pool_of: Callable[[AnyTask], Pool], injector: Injector
    ) -> None:
        self._parameters_of = parameters_of
        self._pool_of = pool_of
        self._injector = injector

    def execute(self, context: Context, call_next: Executed) -> Coroutine[Any, Any, Any]:
        """Bind the arguments; raises `PayloadError` where they do not fit."""
        parameters = self._parameters_of(context.task)
        if context.task.is_fallback:  # it takes the message itself, whatever its payload is
            args: list[Any] = []
            kwargs: dict[str, Any] = {}
        else:
            args, kwargs = parameters.into(context.message.args, context.message.kwargs)
        context.arguments = (args, kwargs)
        if not parameters.injected:
            return call_next(context)
        return self._inject(context, call_next, parameters)

    async def _inject(self, context: Context, call_next: Executed, parameters: Parameters) -> Any:
        wanted = [
            (name, kind)
            for name, kind in parameters.injected.items()
            if name not in context.arguments[1] and (name not in parameters.optional_injected or self._provides(kind))
        ]
        if not self._pool_of(context.task).in_process:
            context.injected = dict(wanted)  # the types: they are made where the function runs
            return await call_next(context)
        if parameters.markers:
            call_next = _marked(parameters, call_next)
        own = {Context: context, Message: context.message}
        if all(kind in own for _, kind in wanted):
            context.injected = {name: own[kind] for name, kind in wanted}
            return await call_next(context)
        async with self._injector.job_scope(context) as scope:
            context.injected = {name: own[kind] if kind in own else await scope.get(kind) for name, kind in wanted}
            return await call_next(context)

    def _provides(self, kind: Any) -> bool:
        return kind is Context or kind is Message or self._injector.provides(kind)


def _marked(parameters: Parameters, call_next: Executed) -> Executed:
    """The call, wrapped by what is marked; the first marker is the outermost."""

    async def call(context: Context) -> Any:
        async def run() -> Any:
            return await call_next(context)

        step = run
        for name, marker in reversed(parameters.markers.items()):
            step = partial(marker.around, context, context.injected[name], step)
        return await step()

    return call
