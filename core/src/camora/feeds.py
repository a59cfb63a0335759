"""One observer's feed: its buffer, and the thread in which it is shown what is in there.

Every observer has a thread with an event loop of its own, started by the first event. So events may come from any
thread and any loop, a loop may end while events of it still wait, what an observer opens is always used in one and
the same loop, and one that blocks stands in nobody's way: not in the jobs', nor in another observer's.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future

import attrs

from camora.clock import Clock
from camora.interfaces.observer import Event, Observer

__all__ = ["Feed", "FeedSettings", "ObserverStats"]


@attrs.frozen(kw_only=True)
class FeedSettings:
    """How events reach an observer. Durations are seconds.

    Events are gathered for `pause`, and shown at most `batch` at a time. An observer may take `patience` for a batch,
    and as long to close. At most `buffer` events wait for it: the oldest go first. What goes wrong with it is logged
    at most once in `quiet`.
    """

    pause: float = 0.05
    batch: int = 1_000
    buffer: int = 10_000
    patience: float = 5.0
    quiet: float = 60.0


@attrs.frozen(kw_only=True)
class ObserverStats:
    """What became of the events for one observer, so far."""

    name: str
    shown: int
    """Events it has taken note of."""
    failures: int
    """How often it raised or took too long."""
    dropped: int
    """Events that are lost to it: those of its failures, and those that found no room."""
    waiting: int
    """Events that wait for it now."""


class _Home:
    """A thread with an event loop: where an observer lives from its first event until it is closed."""

    def __init__(self, name: str, live: Callable[[_Home], None]) -> None:
        self.loop = asyncio.new_event_loop()
        self.nudge = asyncio.Event()
        self.thread = threading.Thread(target=live, args=[self], name=name, daemon=True)
        try:
            self.thread.start()
        except BaseException:
            self.loop.close()
            raise

    def wake(self) -> None:
        self.loop.call_soon_threadsafe(self.nudge.set)


class Feed:
    """Takes events from anywhere, and shows them to one observer, which loses only its own when it is slow or fails."""

    def __init__(self, observer: Observer, logger: logging.Logger, clock: Clock, settings: FeedSettings) -> None:
        self.observer = observer
        self._settings = settings
        self._log = _Sparingly(logger, clock, settings.quiet)
        self._shown = self._failures = self._dropped = 0
        self._used = True
        self._begin()

    def _begin(self) -> None:
        # Reentrant, because a signal handler may emit in the middle of an emit of the same thread.
        self._lock = threading.RLock()
        self._pid = os.getpid()
        self._waiting: collections.deque[Event] = collections.deque()
        self._given = 0
        self._gone = 0
        """Of those given, how many neither wait nor are being shown."""
        self._busy = False
        self._home: _Home | None = None
        self._flushes: list[tuple[int, Future[None]]] = []
        self._closing: Future[None] | None = None

    # From any thread

    @property
    def name(self) -> str:
        """What the observer is called."""
        try:
            return str(self.observer.name)
        except Exception:  # noqa: BLE001 -- a stranger's property may do anything
            return type(self.observer).__name__

    def put(self, event: Event) -> None:
        """Take note of an event; the oldest one goes when there is no room."""
        if self._pid != os.getpid():
            self._begin()  # a forked child has its parent's objects, but not its threads, and its events are not its
        overflow = wake = False
        with self._lock:
            self._used = True
            self._given += 1
            self._waiting.append(event)
            if len(self._waiting) > self._settings.buffer:
                self._waiting.popleft()
                self._dropped += 1
                self._gone += 1
                overflow = True
            if not self._busy:
                self._busy = wake = True
        if wake:
            self._wake()
        if overflow:
            self._log.warn("observer %s does not keep up; %d events are lost to it so far", self.name, self._dropped)

    def flush(self) -> Future[None]:
        """Done when all that was put before has been shown or is lost."""
        if self._pid != os.getpid():
            self._begin()
        done = _future()
        with self._lock:
            if self._gone == self._given:
                done.set_result(None)
                return done
            self._flushes.append((self._given, done))
        self._wake()
        return done

    def close(self) -> Future[None]:
        """Done when the observer is closed and its thread has ended; at once when nothing came since the last time."""
        if self._pid != os.getpid():
            self._begin()
        done = _future()
        with self._lock:
            if self._closing is not None:
                return self._closing
            if not self._used:
                done.set_result(None)
                return done
            self._closing = done
        self._wake()
        return done

    def give_up(self) -> None:
        """Say that closing takes too long; it goes on by itself."""
        self._log.warn("observer %s could not be closed in time; it is left to itself", self.name)

    @property
    def alive(self) -> bool:
        """True while it has a thread, and the caller is not that thread."""
        home = self._home
        return home is not None and self._pid == os.getpid() and home.thread is not threading.current_thread()

    def stats(self) -> ObserverStats:
        """The counts."""
        name = self.name
        with self._lock:
            return ObserverStats(
                name=name,
                shown=self._shown,
                failures=self._failures,
                dropped=self._dropped,
                waiting=len(self._waiting),
            )

    def _wake(self) -> None:
        try:
            with self._lock:
                if self._home is None:
                    self._home = _Home(f"camora-{self.name}", self._live)
                self._home.wake()
        except Exception as error:  # noqa: BLE001 -- no more threads or files to be had: that is no job's fault
            with self._lock:
                self._busy = False  # the next event tries again
                ends = [future for _, future in self._flushes]
                if self._closing is not None:
                    ends.append(self._closing)
                self._flushes, self._closing = [], None
            self._log.warn("observer %s cannot be shown anything: %s", self.name, error)
            for end in ends:
                end.set_result(None)

    # In the observer's own thread

    def _live(self, home: _Home) -> None:
        asyncio.set_event_loop(home.loop)
        closing = self._until_closed(home)
        with contextlib.suppress(BaseException):  # what the observer has left behind may do anything
            home.loop.run_until_complete(_cancel_rest(home.loop))
            home.loop.run_until_complete(home.loop.shutdown_asyncgens())
        asyncio.set_event_loop(None)
        home.loop.close()
        closing.set_result(None)

    def _until_closed(self, home: _Home) -> Future[None]:
        """Whatever an observer does to its loop (it stops it, cancels all tasks, exits): this goes on."""
        showing: asyncio.Task[Future[None]] | None = None
        while True:
            if showing is None or showing.done():
                if showing is not None:
                    home.nudge.set()  # whatever woke the one before may be forgotten
                showing = home.loop.create_task(self._show_until_closed(home))
            try:
                return home.loop.run_until_complete(showing)
            except BaseException as error:  # noqa: BLE001
                self._log.warn("observer %s has stopped its event loop; it goes on: %r", self.name, error)
                time.sleep(0.01)

    async def _show_until_closed(self, home: _Home) -> Future[None]:
        while True:
            await home.nudge.wait()
            home.nudge.clear()
            if not self._flushes and self._closing is None:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(home.nudge.wait(), self._settings.pause)
            while batch := self._take():
                await self._show(batch)
            if self._closing is not None:
                await self._in_time(self.observer.close, "close")
                if (closing := self._leave()) is not None:
                    return closing
                home.nudge.set()

    def _take(self) -> tuple[Event, ...]:
        """The next events to show; who waits for those before is told."""
        with self._lock:
            # No list: the observer must not change what is counted here afterwards.
            batch = tuple(self._waiting.popleft() for _ in range(min(len(self._waiting), self._settings.batch)))
            self._busy = bool(batch)
            flushed = [future for number, future in self._flushes if number <= self._gone]
            self._flushes = [one for one in self._flushes if one[0] > self._gone]
        for future in flushed:
            future.set_result(None)
        return batch

    async def _show(self, batch: tuple[Event, ...]) -> None:
        taken = False
        try:
            taken = await self._in_time(lambda: self.observer.observe(batch), "observe")
        finally:
            with self._lock:
                self._gone += len(batch)
                if taken:
                    self._shown += len(batch)
                else:
                    self._dropped += len(batch)

    async def _in_time(self, call: Callable[[], Awaitable[None]], what: str) -> bool:
        """Call the observer; False when it raised or was not done in time. It is never called beside itself."""
        calling = asyncio.ensure_future(_answer(call))
        await _done(calling, self._settings.patience)
        error: BaseException | None
        if calling.cancelled():  # before its first step, by somebody who cancels all that there is
            error = asyncio.CancelledError()
        elif calling.done():
            error = calling.result()
        else:
            calling.cancel()
            error = TimeoutError(f"it took longer than {self._settings.patience:g} s")
            self._failed(what, error)
            await _done(calling, None)  # one that ignores it is not called again before it is done
            return False
        if error is not None:
            self._failed(what, error)
        return error is None

    def _failed(self, what: str, error: BaseException) -> None:
        with self._lock:
            self._failures += 1
        self._log.warn(
            "observer %s failed in %s, which changes no job; what it was shown is lost to it: %r",
            self.name,
            what,
            error,
            error=error,
        )

    def _leave(self) -> Future[None] | None:
        """The end of this thread; None when something has come meanwhile: that is shown, and it is closed again."""
        with self._lock:
            if self._waiting:
                return None
            self._home, self._busy, self._used = None, False, False
            closing, self._closing = self._closing, None
            flushes, self._flushes = self._flushes, []
        for _, future in flushes:
            future.set_result(None)
        return closing


async def _answer(call: Callable[[], Awaitable[None]]) -> BaseException | None:
    """What it raised: nothing that an observer raises, exits and cancellations included, may end its thread."""
    try:
        await call()
    except BaseException as error:  # noqa: BLE001
        return error
    return None


async def _done(task: asyncio.Task[BaseException | None], timeout: float | None) -> None:
    """Wait for it, but not longer; also when an observer cancels every task it can find, this one included."""
    loop = asyncio.get_running_loop()
    deadline = None if timeout is None else loop.time() + timeout
    while not task.done() and (deadline is None or loop.time() < deadline):
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task], timeout=None if deadline is None else deadline - loop.time())


async def _cancel_rest(loop: asyncio.AbstractEventLoop) -> None:
    """What the observer has left running; waited for no longer than a moment."""
    rest = asyncio.all_tasks(loop) - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    if rest:
        await asyncio.wait(rest, timeout=1.0)


def _future() -> Future[None]:
    """A future that nobody who waits for it can cancel."""
    future: Future[None] = Future()
    future.set_running_or_notify_cancel()
    return future


class _Sparingly:
    """Logs at most once in so many seconds, and says how often it held its tongue."""

    def __init__(self, logger: logging.Logger, clock: Clock, quiet: float) -> None:
        self._logger = logger
        self._clock = clock
        self._quiet = quiet
        self._last: float | None = None
        self._held = 0

    def warn(self, text: str, *values: object, error: BaseException | None = None) -> None:
        now = self._clock.monotonic()
        if self._last is not None and 0 <= now - self._last < self._quiet:
            self._held += 1
            return
        held, self._held, self._last = self._held, 0, now
        if held:
            text = f"{text} (and {held} more such lines were held back)"
        with contextlib.suppress(Exception):
            self._logger.warning(text, *values, exc_info=error)
