"""Being told that something was committed: by a notification where the system has one, else by a cheap poll.

A wake-up is a hint: whoever gets one looks, and finds something or not. A lost one costs a moment, never a message,
because everybody who waits looks again by himself from time to time.
"""

from __future__ import annotations

import asyncio
import ctypes
import enum
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar

__all__ = ["InotifyWakeups", "PollingWakeups", "Topic", "Wakeups", "WatchFailed", "payload_of"]


class Topic(enum.Enum):
    """What news are about, where the system can tell."""

    JOBS = "jobs"
    RESULTS = "results"
    SCHEDULES = "schedules"


def payload_of(topics: Iterable[Topic]) -> str:
    """News as a text that travels."""
    return ",".join(sorted(topic.value for topic in topics))


class WatchFailed(Exception):
    """This way of watching does not work here."""


class Wakeups(ABC):
    """Calls subscribers in its event loop. Costs nothing while nobody is subscribed."""

    def __init__(self) -> None:
        self._subscribers: dict[object, tuple[Topic, Callable[[], None]]] = {}

    floor: ClassVar[float] = 1.0
    """Seconds after which whoever waits looks by himself, should a wake-up have been missed."""

    def subscribe(self, topic: Topic, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` at each announcement of this from now on, and perhaps of others, until the answer is called."""
        token = object()
        if not self._subscribers:
            self._start()
        self._subscribers[token] = (topic, wake)

        def end() -> None:
            if self._subscribers.pop(token, None) is not None and not self._subscribers:
                self._stop()

        return end

    def mark(self) -> object | None:
        """Something that changes with each announcement; None where those that nobody waited for were not heard."""
        return None

    def wake(self, topic: Topic | None = None) -> None:
        """Pass on an announcement, or wake everybody; in the loop only."""
        for wanted, wake in list(self._subscribers.values()):
            if topic is None or wanted is topic:
                wake()

    def close(self) -> None:
        """Let go of everything. May be repeated."""
        self._subscribers.clear()

    def abandon(self) -> None:
        """Let go without the loop, which is closed."""
        self._subscribers.clear()

    @abstractmethod
    def _start(self) -> None:
        """The first has subscribed."""

    @abstractmethod
    def _stop(self) -> None:
        """The last has gone."""


_IN_ATTRIB = 0x00000004
_IN_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC if hasattr(os, "O_CLOEXEC") else 0


class InotifyWakeups(Wakeups):
    """Linux: announcements are changes of the file's times (`os.utime`), made after a commit.

    Watching the file's contents instead would wake too early: they change before a commit can be seen.
    Raises `WatchFailed` where the system has no inotify, or no more of it.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        if sys.platform != "linux":
            raise WatchFailed("no inotify")
        self._loop = asyncio.get_running_loop()
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(_IN_FLAGS)
        if self._fd < 0:
            raise WatchFailed(os.strerror(ctypes.get_errno()))
        if libc.inotify_add_watch(self._fd, os.fsencode(path), _IN_ATTRIB) < 0:
            os.close(self._fd)
            raise WatchFailed(os.strerror(ctypes.get_errno()))

    def _start(self) -> None:
        # What happened before is of no interest: whoever subscribes looks afterwards.
        self._drain()
        try:
            self._loop.add_reader(self._fd, self._on_event)
        except NotImplementedError:
            self._loop.call_soon(self.wake)

    def _stop(self) -> None:
        self._loop.remove_reader(self._fd)

    def _drain(self) -> None:
        try:
            while os.read(self._fd, 65536):
                pass
        except BlockingIOError:
            pass

    def _on_event(self) -> None:
        self._drain()
        self.wake()

    def close(self) -> None:
        """Close the watch."""
        super().close()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
        self.abandon()

    def abandon(self) -> None:
        """Close the watch; a closed loop has no readers any more."""
        super().abandon()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class PollingWakeups(Wakeups):
    """Anywhere: asks for a number that changes with each commit, often at first, then less and less.

    `version` must be quick; `shortest` and `longest` are seconds between two questions.
    """

    def __init__(
        self,
        version: Callable[[], int],
        close: Callable[[], None],
        *,
        shortest: float = 0.002,
        longest: float = 0.2,
    ) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self._version = version
        self._close = close
        self._shortest = shortest
        self._longest = longest
        self._pause = shortest
        self._seen = version()
        self._timer: asyncio.TimerHandle | None = None

    def _start(self) -> None:
        self._pause = self._shortest
        self._timer = self._loop.call_later(self._pause, self._look)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        version = self._version()
        self._pause = self._shortest if version != self._seen else min(self._longest, self._pause * 1.25)
        self._timer = self._loop.call_later(self._pause, self._look)
        if version != self._seen:
            self._seen = version
            self.wake()

    def close(self) -> None:
        """Stop asking."""
        super().close()
        self._stop()
        self._close()
