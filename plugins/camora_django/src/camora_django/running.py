"""Running Django's tasks: the two tasks of Camora's that call them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import format_exception
from typing import Any

from camora import Camora, Context
from camora.signals import Discard, Retry, Suspend

from camora_django.interface import (
    TaskContext,
    TaskError,
    TaskResult,
    TaskResultStatus,
    normalize_json,
    task_finished,
    task_started,
)
from camora_django.order import Order, from_stamp

__all__ = ["ASYNC", "SYNC", "register"]

SYNC = "django:task"
"""The name of the task of Camora's that calls plain functions, in a thread."""
ASYNC = "django:async_task"
"""The one that calls coroutine functions, in the event loop."""


def register(app: Camora) -> None:
    """Let the app's workers run Django's tasks."""
    if app.tasks.get(SYNC) is None:
        app.register(run, name=SYNC)
        app.register(run_async, name=ASYNC)


def run(context: Context, **payload: Any) -> dict[str, Any]:
    """Call the task that was ordered; the order with what it returned, so that both are known as long as the result."""
    order = Order.from_payload(payload)
    with _attempt(order, context) as (result, given):
        _succeed(result, result.task.func(*given, *order.args, **order.kwargs))
    return {**payload, "returned": result.return_value}


async def run_async(context: Context, **payload: Any) -> dict[str, Any]:
    """The same for a coroutine function."""
    order = Order.from_payload(payload)
    with _attempt(order, context) as (result, given):
        _succeed(result, await result.task.func(*given, *order.args, **order.kwargs))
    return {**payload, "returned": result.return_value}


@contextmanager
def _attempt(order: Order, context: Context) -> Iterator[tuple[TaskResult, list[TaskContext]]]:
    """The result as it stands, and what the function gets first; tells Django's signals how it goes."""
    task = order.task()
    now = from_stamp(_now())
    result = TaskResult(
        task=task,
        id=context.id,
        status=TaskResultStatus.RUNNING,
        enqueued_at=from_stamp(context.message.created),
        started_at=now,
        finished_at=None,
        last_attempted_at=now,
        args=order.args,
        kwargs=order.kwargs,
        backend=order.backend,
        errors=[],
        worker_ids=[context.worker] * context.attempt,
    )
    sender = type(task.get_backend())
    task_started.send(sender=sender, task_result=result)
    try:
        yield result, [TaskContext(task_result=result)] if task.takes_context else []
    except (Retry, Discard, Suspend, asyncio.CancelledError):
        raise  # it is for another time, or for nothing, and no failure
    except BaseException as error:
        _fail(result, error)
        task_finished.send(sender=sender, task_result=result)
        raise
    task_finished.send(sender=sender, task_result=result)


def _succeed(result: TaskResult, returned: Any) -> None:
    _set(result, _return_value=normalize_json(returned))
    _set(result, status=TaskResultStatus.SUCCESSFUL, finished_at=from_stamp(_now()))


def _fail(result: TaskResult, error: BaseException) -> None:
    kind = type(error)
    path = f"{kind.__module__}.{kind.__qualname__}"
    result.errors.append(TaskError(exception_class_path=path, traceback="".join(format_exception(error))))
    _set(result, status=TaskResultStatus.FAILED, finished_at=from_stamp(_now()))


def _set(result: TaskResult, **values: Any) -> None:
    for name, value in values.items():
        object.__setattr__(result, name, value)  # frozen for all but backends


def _now() -> int:
    return time.time_ns() // 1_000_000
