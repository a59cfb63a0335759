"""The thread pool: plain functions in threads.

`loop.run_in_executor` costs 40 µs a call, most of it in locks and wake-ups of the loop. Here a call is one put on a
`SimpleQueue`, and calls that end at the same moment come back with one wake-up together.
"""

from __future__ import annotations

import asyncio
import collections
import contextvars
import queue
import threading
import time
from typing import Any

from camora.interfaces.pool import Call, Pool, PoolSettings, TaskExit
from camora.signals import Suspend

__all__ = ["ThreadPool"]

DEFAULT_WORKERS = 40


class _Job:
    """One call on its way. `state`, changed under the pool's lock, decides who wins: the thread or the cancellation."""

    __slots__ = ("call", "context", "error", "future", "state", "thread", "value")

    def __init__(self, call: Call, future: asyncio.Future[Any]) -> None:
        self.call = call
        self.future = future
        self.context = contextvars.copy_context()
        self.state = "waiting"
        self.thread: threading.Thread | None = None
        self.value: Any = None
        self.error: BaseException | None = None


class ThreadPool(Pool):
    """Daemon threads, started as they are needed and kept; at most `workers` (default 40) calls at once.

    A call cannot be stopped from outside. One that is cancelled while it runs is abandoned: its thread serves nobody
    any more and ends with the function, and another takes its slot.
    """

    kind = "thread"

    def __init__(self, settings: PoolSettings) -> None:
        self.limit = self._most = settings.workers or DEFAULT_WORKERS
        self._work: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._serving: set[threading.Thread] = set()
        self._calls = 0
        """Calls taken on and not ended, abandoned ones excepted; guarded by the lock, as all below."""
        self._left: set[_Job] = set()
        self._done: collections.deque[_Job] = collections.deque()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self) -> None:
        """Threads start with the calls."""
        self._loop = asyncio.get_running_loop()

    async def call(self, call: Call) -> Any:
        """Run it in a thread, with a copy of the caller's context variables."""
        loop = self._loop = self._loop or asyncio.get_running_loop()
        job = _Job(call, loop.create_future())
        with self._lock:
            self._calls += 1
            self._start_missing()
        self._work.put(job)
        try:
            return await job.future
        except asyncio.CancelledError:
            self._cancel(job)
            raise

    def _start_missing(self) -> None:
        if len(self._serving) < min(self._calls, self._most):
            thread = threading.Thread(target=self._serve, name="camora-thread", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                # No more threads are to be had; those that serve will come to it.
                if not self._serving:
                    self._calls -= 1
                    raise
            else:
                self._serving.add(thread)

    def _cancel(self, job: _Job) -> None:
        with self._lock:
            if job.state == "running" and job.thread is not None:
                # Its thread is lost to us; its slot is not.
                job.state = "abandoned"
                self._left.add(job)
                self._serving.discard(job.thread)
                self._calls -= 1
                self._start_missing()
            elif job.state == "waiting":
                job.state = "cancelled"

    def _serve(self) -> None:
        me = threading.current_thread()
        while (job := self._work.get()) is not None:
            if not self._begin(job, me):
                continue
            self._run(job)
            if not self._end(job):
                return
            del job  # or the last call's arguments would live until the next call

    def _begin(self, job: _Job, me: threading.Thread) -> bool:
        with self._lock:
            if job.state == "cancelled":
                self._calls -= 1
                return False
            job.state, job.thread = "running", me
            return True

    def _end(self, job: _Job) -> bool:
        """False when this thread has been abandoned meanwhile, and is to end."""
        with self._lock:
            if job.state == "abandoned":
                self._left.discard(job)
                return False
            job.state = "done"
            self._calls -= 1
            self._done.append(job)
            first = len(self._done) == 1
        if first:
            self._wake()
        return True

    def _run(self, job: _Job) -> None:
        call = job.call
        try:
            if call.is_async:
                job.value = job.context.run(asyncio.run, call.function(*call.args, **call.kwargs))
            else:
                job.value = job.context.run(call.function, *call.args, **call.kwargs)
        except StopIteration as error:
            # A future cannot carry it, and a coroutine turns it into this.
            job.error = RuntimeError(f"the function raised StopIteration: {error}")
        except (Exception, Suspend) as error:  # noqa: BLE001 -- carried to the caller
            job.error = error
        except BaseException as error:  # noqa: BLE001 -- carried to the caller, as what cannot stop its loop
            job.error = TaskExit.of(error)

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None:
            try:
                loop.call_soon_threadsafe(self._hand_over)
            except RuntimeError:  # the loop is closed; nobody waits any more
                self._done.clear()

    def _hand_over(self) -> None:
        with self._lock:
            done, self._done = self._done, collections.deque()
        for job in done:
            if not job.future.done():
                if job.error is not None:
                    job.future.set_exception(job.error)
                else:
                    job.future.set_result(job.value)

    @property
    def abandoned(self) -> int:
        """Calls that run on though nobody waits for them."""
        return len(self._left)

    async def close(self, grace: float) -> None:
        """End idle threads; those that still run a function are daemons, and end with it or with the process."""
        with self._lock:
            threads, self._serving = self._serving, set()
        for _ in threads:
            self._work.put(None)
        deadline = time.monotonic() + grace
        for thread in threads:
            await asyncio.to_thread(thread.join, max(0.0, deadline - time.monotonic()))
