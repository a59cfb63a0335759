"""Django's connections are as fresh in a job as in a request: looked at around it, in the job's own thread."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any

from asgiref.sync import sync_to_async
from camora import Context, Middleware
from camora.interfaces.middleware import Executed
from django.db import close_old_connections

__all__ = ["FreshConnections", "is_importable", "with_fresh_connections"]

in_job: ContextVar[bool] = ContextVar("in_job", default=False)
"""True around a job's function, in whatever thread or process it is called."""


class FreshConnections(Middleware):
    """Marks what is called by a worker: the function alone knows in which thread it runs, and a worker calls it there.

    So a task that is simply called, from a view, leaves the request's connections alone.
    """

    phase = "resource"

    async def execute(self, context: Context, call_next: Executed) -> Any:
        """Mark the call."""
        token = in_job.set(True)
        try:
            return await call_next(context)
        finally:
            in_job.reset(token)


def with_fresh_connections(what: Any) -> Any:
    """The function, closing old connections around itself when a worker calls it; a class with such an `execute`.

    A connection is old when it is past its `CONN_MAX_AGE`, or broken; one inside a transaction is never closed.
    """
    if isinstance(what, type):
        execute = getattr(what, "execute", None)
        if execute is not None:
            what.execute = _around(execute)  # type: ignore[attr-defined]
        return what
    return _around(what) if inspect.isroutine(what) and not inspect.isbuiltin(what) else what


def is_importable(what: Any) -> bool:
    """Whether another process finds this very function under its name: not one that is just being decorated there."""
    module = sys.modules.get(getattr(what, "__module__", "") or "")
    return getattr(module, getattr(what, "__name__", ""), None) is what


def _around(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @wraps(function)
        async def call_async(*args: Any, **kwargs: Any) -> Any:
            if not in_job.get():
                return await function(*args, **kwargs)
            token = in_job.set(False)  # what it calls in turn is a part of it
            # The connections of coroutines are those of the one thread that asgiref runs Django's code in.
            await sync_to_async(close_old_connections)()
            try:
                return await function(*args, **kwargs)
            finally:
                in_job.reset(token)
                await sync_to_async(close_old_connections)()

        return call_async

    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if not in_job.get():
            return function(*args, **kwargs)
        token = in_job.set(False)
        close_old_connections()
        try:
            return function(*args, **kwargs)
        finally:
            in_job.reset(token)
            close_old_connections()

    return call
