"""The pool: where a task's function runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Self

import attrs
import msgspec

from camora.context import Context
from camora.failures import describe
from camora.settings import Duration

__all__ = ["Call", "Pool", "PoolSettings", "ProcessDied", "RemoteError", "TaskExit"]


@attrs.frozen(kw_only=True)
class PoolSettings:
    """Settings of one pool. `kind` is what the pool is offered as.

    `workers` bounds how many calls run at once (None: the worker's own concurrency). `timeout` (seconds, or a text such
    as "5m") is that of each task in this pool that has none of its own.
    """

    kind: str
    workers: int | None = None
    timeout: Duration | None = None
    max_calls: int | None = None
    """Replace a process after this many calls (process pools)."""


class Call(msgspec.Struct, gc=False, frozen=True, kw_only=True, eq=False):
    """One function call, bound. A struct, because one is made for every job."""

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}
    is_async: bool = False
    reference: str = ""
    """`module:qualname` of the task, for pools in other processes."""
    task: str = ""
    """The task's name, for errors."""
    timeout: float | None = None
    """Seconds; a pool that can kill does so itself, the others leave it to the timeout link around them."""
    injected: Mapping[str, Any] = {}
    """Parameter names and types that are still to be filled, by a pool whose calls run in another process."""
    context: Context | None = None
    """The attempt this call belongs to, where `injected` is not empty."""
    app: str = ""
    """`module:attribute` of the app, whose `injector` another process asks for what is `injected`."""


class RemoteError(Exception):
    """An exception as text, where the exception itself could not come along.

    `remote_type`, the text and `remote_traceback` are those of the original, bounded in size; `bases` are the qualified
    names of its class and that class's bases, for whoever would have used `isinstance`.
    """

    def __init__(self, remote_type: str, text: str, remote_traceback: str = "", bases: tuple[str, ...] = ()) -> None:
        super().__init__(text)
        self.remote_type = remote_type
        self.remote_traceback = remote_traceback
        self.bases = bases

    @classmethod
    def of(cls, error: BaseException) -> Self:
        """The text form of this exception; never raises."""
        seen = describe(error)
        bases = tuple(
            kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
            for kind in type(error).__mro__[:-1]
        )
        return cls(seen.type, seen.text, seen.traceback, bases)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.remote_type, str(self), self.remote_traceback, self.bases)


class TaskExit(RemoteError):
    """A function raised what is no `Exception`: `sys.exit`, `KeyboardInterrupt`, `GeneratorExit`, a stray cancellation.

    Such a thing would stop the event loop, so every pool raises this in its place; but for `Suspend`, which it raises
    as it is.
    """


class ProcessDied(Exception):
    """The process that ran the call is gone: killed, out of memory, or crashed in C.

    `exit_code` is negative for a signal, as in `subprocess`.
    """

    def __init__(self, message: str, *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Pool(ABC):
    """Runs functions for a worker. Belongs to the worker's event loop."""

    kind: str
    """`async`, `sync`, `thread`, `process`, or a plugin's own."""
    in_process: bool = True
    """False when calls run in another process: dependencies are then made over there."""
    limit: int | None = None
    """How many calls run at once; the worker waits for a slot itself, before an attempt's timeout starts."""
    kills: bool = False
    """True when a call can be stopped from outside, whatever it does."""

    @abstractmethod
    async def open(self) -> None:
        """Get ready. Threads and processes may start with the first call."""

    @abstractmethod
    async def call(self, call: Call) -> Any:
        """Run it, and return its value or raise its exception; waits for a free slot first.

        The caller's context variables are visible to the function. Cancelling the returned coroutine stops the
        function where that is possible; where it is not, the slot is replaced, the function goes on unheard, and
        `abandoned` counts it. Raises `TimeoutError` when `call.timeout` is over and the pool `kills`, and
        `ProcessDied` when the process died; other calls of the pool are not disturbed. Raises `TaskExit` where the
        function raised what is no `Exception`, so that nothing it does can stop the caller's loop.
        """

    @property
    def abandoned(self) -> int:
        """How many calls run on though nobody waits for them."""
        return 0

    @abstractmethod
    async def close(self, grace: float) -> None:
        """Stop: wait up to `grace` seconds for running calls, then kill what can be killed. May be repeated.

        Calls that are left are cancelled; later ones raise `RuntimeError`.
        """
