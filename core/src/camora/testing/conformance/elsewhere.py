"""Doing something in another thread, which has an event loop of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

__all__ = ["all_at_once", "elsewhere"]

R = TypeVar("R")


async def elsewhere(work: Callable[[], Coroutine[Any, Any, R]]) -> R:
    """What `work()` answers in a new event loop in a new thread."""
    return await asyncio.to_thread(lambda: asyncio.run(work()))


async def all_at_once(*works: Callable[[], Coroutine[Any, Any, R]]) -> list[R]:
    """The same for many, each in a loop and thread of its own, let go at the same moment."""
    start = threading.Barrier(len(works))
    answers: dict[int, R] = {}
    errors: list[BaseException] = []

    def run(place: int, work: Callable[[], Coroutine[Any, Any, R]]) -> None:
        try:
            start.wait(timeout=30)
            answers[place] = asyncio.run(work())
        except BaseException as error:  # noqa: BLE001 -- handed on below
            errors.append(error)

    # Threads of their own: a shared pool may be smaller than the barrier.
    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    if errors:
        raise errors[0]
    return [answers[place] for place in range(len(works))]
