"""Waking a coroutine from any thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable
from typing import Generic, TypeVar

__all__ = ["Waiter", "wake_all"]

T = TypeVar("T")


class Waiter(Generic[T]):
    """One coroutine that waits in its loop. Made and awaited there; woken from anywhere, the first time counts."""

    __slots__ = ("_answer", "loop", "queues")

    def __init__(self, queues: frozenset[str] = frozenset()) -> None:
        self.loop = asyncio.get_running_loop()
        self.queues = queues
        self._answer: asyncio.Future[T | None] = self.loop.create_future()

    def wake(self, value: T | None = None) -> None:
        """Let it go on with this value. From any thread."""
        wake_all([(self, value)])

    def answer(self, value: T | None) -> None:
        """The same, from its own loop."""
        if not self._answer.done():
            self._answer.set_result(value)

    async def wait(self, timeout: float | None) -> T | None:
        """What it was woken with; None after `timeout` seconds."""
        if timeout is None:
            return await self._answer
        timer = self.loop.call_later(timeout, self.answer, None)
        try:
            return await self._answer
        finally:
            timer.cancel()


def _answer_all(pairs: Iterable[tuple[Waiter[T], T | None]]) -> None:
    for waiter, value in pairs:
        waiter.answer(value)


def wake_all(pairs: Iterable[tuple[Waiter[T], T | None]]) -> None:
    """Wake many, with one call into each foreign loop."""
    try:
        here = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    foreign: dict[asyncio.AbstractEventLoop, list[tuple[Waiter[T], T | None]]] = defaultdict(list)
    for waiter, value in pairs:
        if waiter.loop is here:
            waiter.answer(value)
        else:
            foreign[waiter.loop].append((waiter, value))
    for loop, of_loop in foreign.items():
        # A closed loop has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_answer_all, of_loop)
