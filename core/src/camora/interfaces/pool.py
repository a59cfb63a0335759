"""The pool: where a task's function runs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import attrs

__all__ = ["Call", "Pool", "PoolSettings", "ProcessDied"]


@attrs.frozen(kw_only=True)
class PoolSettings:
    """Settings of one pool. `workers` bounds how many calls run at once (None: the worker's own concurrency)."""

    kind: str
    workers: int | None = None
    max_calls: int | None = None
    """Replace a process after this many calls (process pools)."""


@attrs.frozen(kw_only=True)
class Call:
    """One function call, bound. `reference` is `module:qualname` of the task, for pools in other processes."""

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = attrs.field(factory=dict)
    is_async: bool = False
    reference: str = ""
    task: str = ""
    timeout: float | None = None
    """Seconds; a pool that can kill does so itself, the others leave it to the timeout link around them."""


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
        `ProcessDied` when the process died; other calls of the pool are not disturbed.
        """

    @property
    def abandoned(self) -> int:
        """How many calls run on though nobody waits for them."""
        return 0

    @abstractmethod
    async def close(self, grace: float) -> None:
        """Stop: wait up to `grace` seconds for running calls, then kill what can be killed. May be repeated."""
