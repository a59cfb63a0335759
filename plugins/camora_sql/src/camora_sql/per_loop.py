"""One thing for each event loop, for as long as somebody there uses it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

__all__ = ["PerLoop"]

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Counts who uses it in each loop. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._things: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[T, int]] = WeakKeyDictionary()

    def enter(self, make: Callable[[], T]) -> T:
        """The one of the running loop, made if it is the first use; each call wants one of `leave`."""
        loop = asyncio.get_running_loop()
        with self._lock:
            thing, users = self._things.get(loop) or (make(), 0)
            self._things[loop] = (thing, users + 1)
            return thing

    def leave(self, loop: asyncio.AbstractEventLoop) -> bool:
        """One fewer uses it there; True when that was the last one, which closes it."""
        with self._lock:
            thing, users = self._things[loop]
            if users > 1:
                self._things[loop] = (thing, users - 1)
                return False
            del self._things[loop]
            return True
