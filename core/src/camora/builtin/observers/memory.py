"""An observer that keeps what it sees, for tests and consoles."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from camora.interfaces.observer import Event, Observer

__all__ = ["MemoryObserver"]

E = TypeVar("E", bound=Event)


class MemoryObserver(Observer):
    """Keeps events in the order in which they were emitted, the last `most` of them. Safe to read from any thread.

    `await app.events.flush()` before reading waits for what was emitted so far.
    """

    def __init__(self, most: int = 100_000) -> None:
        self._most = most
        self._events: list[Event] = []
        self._changed = threading.Condition()

    @property
    def events(self) -> tuple[Event, ...]:
        """What it has seen."""
        with self._changed:
            return tuple(self._events)

    @property
    def kinds(self) -> list[str]:
        """The kinds of what it has seen: `["job.dispatched", "job.received", …]`."""
        return [event.kind for event in self.events]

    def of(self, kind: type[E]) -> list[E]:
        """The events of one class, subclasses included."""
        return [event for event in self.events if isinstance(event, kind)]

    def clear(self) -> None:
        """Forget them."""
        with self._changed:
            self._events.clear()

    async def observe(self, events: Sequence[Event]) -> None:
        """Keep them."""
        with self._changed:
            self._events.extend(events)
            del self._events[: -self._most]
            self._changed.notify_all()

    def wait_for(self, what: Callable[[tuple[Event, ...]], object], timeout: float = 10.0) -> tuple[Event, ...]:
        """Block until `what` is true of the events seen so far, and return them. Raises `TimeoutError`.

        Not for the thread of a running event loop: there, `await asyncio.to_thread(observer.wait_for, …)`.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: what(tuple(self._events)), timeout):
                raise TimeoutError(f"not seen within {timeout:g} s; seen were {[one.kind for one in self._events]}")
            return tuple(self._events)
