"""The sync pool: plain functions in the worker's loop, one at a time, blocking it."""

from __future__ import annotations

from camora.builtin.pools.coroutine import CoroutinePool

__all__ = ["InlinePool"]


class InlinePool(CoroutinePool):
    """Calls the function where it is: the fastest pool, for functions of microseconds. Nothing can interrupt it.

    The async pool does the same with a plain function; this one is its name for tasks that ask for it.
    """

    kind = "sync"
