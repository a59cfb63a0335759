"""Jobs of `task.chunks`: the function is called for one item after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from camora.context import Context
from camora.errors import BrokerUnavailable, PayloadError, ResultsDisabled
from camora.interfaces import Host, Middleware
from camora.interfaces.middleware import Executed
from camora.signals import Failure, Recorded

from camora_workflows.plan import CHUNK

__all__ = ["Chunks"]

_REPORTS = 1000
"""Milliseconds between two reports of progress."""


class Chunks(Middleware):
    """Inside everything but the call and its arguments: one attempt, one timeout, one result for the whole chunk.

    What an item raises or refuses ends the attempt: the chunk is tried again from its first item.
    """

    phase = "inner"
    before = ("Injection",)

    def __init__(self, host: Callable[[], Host]) -> None:
        self._host = host

    def execute(self, context: Context, call_next: Executed) -> Coroutine[Any, Any, Any]:
        """Costs a look into the headers for other jobs."""
        return self._each(context, call_next) if CHUNK in context.message.headers else call_next(context)

    async def _each(self, context: Context, call_next: Executed) -> Any:
        whole = context.message
        items = whole.args[0] if whole.args else None
        if not isinstance(items, list):
            raise PayloadError(f"{whole.task}: a chunk's first argument is a list of items", task=whole.task)
        host, encoded, told = self._host(), list[bytes | None](), 0
        for done, item in enumerate(items):
            context.message = msgspec.structs.replace(whole, args=[item, *whole.args[1:]])
            value = await call_next(context)
            if isinstance(value, Failure):
                return value
            encoded.append(context.encode_result(value))
            if (now := host.clock.now_ms()) - told >= _REPORTS:
                told = now
                await _report(context, done + 1, len(items))
        context.message = whole
        if None in encoded:
            return Recorded()
        codec = host.result_codec
        # Item by item by the task's return type, which the list as a whole does not have.
        return Recorded(codec.encode_value([codec.decode_value(one) for one in encoded if one is not None]))


async def _report(context: Context, done: int, total: int) -> None:
    # A report that does not get through is no reason for the chunk to fail.
    with contextlib.suppress(ResultsDisabled, BrokerUnavailable):
        await context.progress(done, total)
