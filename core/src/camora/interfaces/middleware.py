"""Middleware: it wraps, and decides."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, ClassVar

from camora.context import Context
from camora.message import Message
from camora.task import AnyTask

__all__ = ["PHASES", "Dispatched", "Executed", "Middleware"]

Dispatched = Callable[[Message], Awaitable[Message]]
Executed = Callable[[Context], Coroutine[Any, Any, Any]]

PHASES = ("outer", "results", "trace", "guard", "policy", "resource", "inner")
"""Where a link may stand in the chain, outermost first. Users' middleware is `policy` unless it says otherwise."""


class Middleware:
    """Wraps dispatches on the caller's side and executions on the worker's. Override what is needed.

    One instance serves all jobs at once: state across a job is a local variable, or lies in `context.state`.
    First listed is outermost within its phase.
    """

    phase: ClassVar[str] = "policy"
    before: ClassVar[Sequence[str]] = ()
    """Names of links this one must stand outside of."""
    after: ClassVar[Sequence[str]] = ()
    """Names of links this one must stand inside of."""

    @property
    def name(self) -> str:
        """What it is called in lists and in `before` / `after`."""
        return type(self).__name__

    def concerns(self, task: AnyTask) -> bool:
        """False when `execute` has nothing to do around this task, ever: its jobs are then spared the step.

        Asked once for each task.
        """
        del task
        return True

    async def dispatch(self, message: Message, call_next: Dispatched) -> Message:
        """Around every dispatch. Returns the message that was handed on; raising refuses the dispatch."""
        return await call_next(message)

    async def execute(self, context: Context, call_next: Executed) -> Any:
        """Around every execution. `call_next` returns the task's value, or raises what the task raised.

        Raising before `call_next` refuses the attempt: the function does not run, and the message goes back, later
        to the dead letters, but is never acknowledged. `Retry` and `Discard` may be raised here as in a task.
        """
        return await call_next(context)
