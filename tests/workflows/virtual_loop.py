"""An event loop whose time is virtual: where it would sleep, its clock moves on instead."""

from __future__ import annotations

import asyncio
import math
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from camora.testing.clock import VirtualClock

__all__ = ["VirtualLoop", "run_virtually"]

R = TypeVar("R")

_STEP = 5.0
"""Seconds by which time moves at most, so that leases can be kept on the way."""
_REAL = 0.05
"""Real seconds for which threads are waited for at a time."""


class _Selector(selectors.DefaultSelector):
    """Never sleeps while the clock can be moved."""

    passes: Callable[[float], bool]

    def select(self, timeout: float | None = None) -> list[Any]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        if timeout is None or not self.passes(timeout):
            return super().select(_REAL)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Goes by this clock. `before_step()` is called before time moves on. While threads work, time stands still."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.before_step: Callable[[], None] = lambda: None
        self._in_threads = 0
        selector = _Selector()
        selector.passes = self._pass
        super().__init__(selector)

    def time(self) -> float:
        return self.clock.monotonic()

    def _pass(self, seconds: float) -> bool:
        if self._in_threads:
            return False
        self.before_step()
        # Up to the next whole microsecond: the clock has no smaller ones, and a timer must not be short of one.
        self.clock.advance(min(_STEP, math.ceil(seconds * 1e6) / 1e6))
        return True

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        future = super().run_in_executor(executor, func, *args)
        self._in_threads += 1
        future.add_done_callback(self._thread_ended)
        return future

    def _thread_ended(self, _: Any) -> None:
        self._in_threads -= 1


def run_virtually(clock: VirtualClock, main: Callable[[VirtualLoop], Coroutine[Any, Any, R]]) -> R:
    """What `main(loop)` answers, in a loop of its own."""
    loop = VirtualLoop(clock)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(main(loop))
