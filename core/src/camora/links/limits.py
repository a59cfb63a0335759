"""Limits that hold across all workers: `rate_limit`, `max_concurrency`, and the rates of queues."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from camora.context import Context
from camora.errors import PayloadError
from camora.interfaces.middleware import Executed, Middleware
from camora.limits import Limit
from camora.message import Message
from camora.options import TaskOptions
from camora.task import AnyTask
from camora.units import Rate

__all__ = ["Limits", "limited", "limits_of"]


def limits_of(task: AnyTask, message: Message, queue_rates: Mapping[str, Rate]) -> list[Limit]:
    """The limits that an attempt of this message is subject to, and under which names they count.

    `slots:TASK` and `rate:TASK`, with `:VALUE` behind them where `limit_by` makes one, and `queue:QUEUE`. Raises
    `PayloadError` when `limit_by` cannot be made from the arguments.
    """
    config: TaskOptions = task.config
    found: list[Limit] = []
    if message.queue in queue_rates:
        rate = queue_rates[message.queue]
        found.append(Limit(name=f"queue:{message.queue}", most=rate.most, per=rate.per))
    if config.max_concurrency is None and config.rate_limit is None:
        return found
    name = task.name if config.limit_by is None else f"{task.name}:{_value(config.limit_by, task, message)}"
    if config.rate_limit is not None:
        found.append(Limit(name=f"rate:{name}", most=config.rate_limit.most, per=config.rate_limit.per))
    if config.max_concurrency is not None:
        found.append(Limit(name=f"slots:{name}", most=config.max_concurrency))
    return found


def limited(tasks: Iterable[AnyTask], queue_rates: Mapping[str, Rate]) -> str:
    """What is limited across workers, in words for an error; empty when nothing is."""
    for queue, rate in queue_rates.items():
        return f"queue {queue} has rate_limit={str(rate)!r}"
    for task in tasks:
        if task.config.rate_limit is not None:
            return f"task {task.name} has rate_limit={str(task.config.rate_limit)!r}"
        if task.config.max_concurrency is not None:
            return f"task {task.name} has max_concurrency={task.config.max_concurrency}"
    return ""


def _value(limit_by: Any, task: AnyTask, message: Message) -> str:
    try:
        if isinstance(limit_by, str):
            return limit_by.format(*message.args, **message.kwargs)
        return str(limit_by(*message.args, **message.kwargs))
    except Exception as error:  # noqa: BLE001 -- the user's function, or format string
        raise PayloadError(
            f"{task.name}: limit_by cannot be made from the arguments: {error!r}", task=task.name
        ) from None


class Limits(Middleware):
    """Waits until every limit of the attempt has room, before the timeout starts to count."""

    phase = "resource"

    def __init__(self, queue_rates: Mapping[str, Rate]) -> None:
        self._queue_rates = queue_rates

    def concerns(self, task: AnyTask) -> bool:
        """Only tasks that are limited, themselves or by a queue."""
        config = task.config
        return bool(config.max_concurrency or config.rate_limit or self._queue_rates)

    async def execute(self, context: Context, call_next: Executed) -> Any:
        """Take them, and give the slots back."""
        limits: Sequence[Limit] = limits_of(context.task, context.message, self._queue_rates)
        if not limits:
            return await call_next(context)
        async with context.holding(limits):
            return await call_next(context)
