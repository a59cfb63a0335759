"""The thread pool: plain functions in threads, handed over in batches.

`run_in_executor` wakes the loop for every call that ends. Here threads put outcomes on one list, and only the first of
them wakes the loop, which then takes all that are there.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import logging
import threading
from collections import deque
from queue import SimpleQueue
from typing import Any

from camora.builtin.pools.async_pool import own_exit
from camora.interfaces.pool import Call, Pool, TaskExit

__all__ = ["ThreadPool"]

_logger = logging.getLogger("camora.pools")

DEFAULT_WORKERS = 32
"""Threads cost memory only when they are started, and that is on demand."""


class _State(enum.Enum):
    WAITING = enum.auto()
    RUNNING = enum.auto()
    DROPPED = enum.auto()
    """Cancelled: not to be started, or abandoned if it runs."""
    DONE = enum.auto()


class _Work:
    """A call on its way through a thread. `state` changes under the pool's lock."""

    __slots__ = ("call", "context", "error", "future", "state", "stop", "value")

    def __init__(self, call: Call, future: asyncio.Future[None]) -> None:
        self.call = call
        self.future = future
        self.context = contextvars.copy_context()
        self.state = _State.WAITING
        self.value: Any = None
        self.error: BaseException | None = None
        self.stop: tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]] | None = None
        """Loop and task of an async function while it runs: what its cancellation goes to."""


class ThreadPool(Pool):
    """Up to `workers` threads, started when calls wait and kept until the pool is closed.

    A call that is cancelled while its function runs leaves its thread to it: another thread takes its place, and the
    thread ends with the function. Async functions run in an event loop of their thread.
    """

    kind = "thread"

    def __init__(self, workers: int | None = None) -> None:
        self.limit = self._workers = workers or DEFAULT_WORKERS
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: SimpleQueue[_Work | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._ended: deque[_Work | None] = deque()
        """Outcomes that the loop has not seen; None says that a thread has ended."""
        self._waking = False
        self._open: set[_Work] = set()
        """Calls that somebody waits for."""
        self._threads = 0
        self._abandoned = 0
        self._started = 0
        self._closed = False
        self._ending = False
        """True once the threads have been told to end."""
        self._quiet: asyncio.Event | None = None

    async def open(self) -> None:
        """Take note of the loop; threads start with calls."""
        self._loop = asyncio.get_running_loop()

    async def call(self, call: Call) -> Any:
        """Hand it to a thread, and wait for it."""
        loop = self._loop or asyncio.get_running_loop()
        if self._closed:
            raise RuntimeError(f"{call.task}: the thread pool is closed")
        self._loop = loop
        work = _Work(call, loop.create_future())
        self._open.add(work)
        self._queue.put(work)
        if self._threads < self._workers and len(self._open) > self._threads:
            self._start_thread()
        try:
            await work.future
        except asyncio.CancelledError:
            self._drop(work)
            raise
        if work.error is not None:
            try:
                raise work.error
            finally:
                work.error = None  # or the exception would hold its own frame
        return work.value

    # On the loop's side

    def _start_thread(self) -> None:
        self._threads += 1
        self._started += 1
        threading.Thread(target=self._work, name=f"camora-pool-{self._started}", daemon=True).start()

    def _drop(self, work: _Work) -> None:
        self._open.discard(work)
        with self._lock:
            running = work.state is _State.RUNNING
            if work.state is not _State.DONE:
                work.state = _State.DROPPED
            stop = work.stop
        if running:
            # Its thread is lost to us until the function returns; another takes the slot.
            self._threads -= 1
            self._abandoned += 1
            if len(self._open) > self._threads and not self._closed:
                self._start_thread()
            if stop is not None:
                stop[0].call_soon_threadsafe(stop[1].cancel)
            else:
                _logger.warning("%s was stopped, but its thread cannot be: it was abandoned", work.call.task)
        self._look_quiet()

    def _take_ended(self) -> None:
        # Cleared first: whoever adds an outcome from now on wakes the loop again.
        self._waking = False
        while self._ended:
            work = self._ended.popleft()
            if work is None:
                self._threads -= 1
            elif work.state is _State.DROPPED:
                self._abandoned -= 1
            else:
                self._open.discard(work)
                if not work.future.done():
                    work.future.set_result(None)
        self._look_quiet()

    def _look_quiet(self) -> None:
        if self._quiet is not None and not self._open and not (self._ending and self._threads):
            self._quiet.set()

    # On the threads' side

    def _work(self) -> None:
        runner: asyncio.Runner | None = None
        try:
            while (work := self._queue.get()) is not None:
                with self._lock:
                    if work.state is not _State.WAITING:
                        continue
                    work.state = _State.RUNNING
                try:
                    if work.call.is_async:
                        runner = runner or asyncio.Runner()
                        work.value = runner.run(self._await(work), context=work.context)
                    else:
                        work.value = work.context.run(work.call.function, *work.call.args, **work.call.kwargs)
                except BaseException as error:  # noqa: BLE001 -- whatever it is, it is the caller's
                    work.error = _as_exception(error)
                with self._lock:
                    mine = work.state is _State.RUNNING
                    if mine:
                        work.state = _State.DONE
                self._tell(work)
                if not mine:
                    return
                del work
        finally:
            if runner is not None:
                runner.close()
        self._tell(None)

    async def _await(self, work: _Work) -> Any:
        task = asyncio.current_task()
        assert task is not None
        with self._lock:
            work.stop = (asyncio.get_running_loop(), task)
            if work.state is _State.DROPPED:
                task.cancel()
        try:
            return await work.call.function(*work.call.args, **work.call.kwargs)
        except Exception:
            raise
        except BaseException as error:  # noqa: BLE001 -- this thread's loop must not see it, either
            raise own_exit(error) from None
        finally:
            with self._lock:
                work.stop = None

    def _tell(self, work: _Work | None) -> None:
        self._ended.append(work)
        if not self._waking:
            self._waking = True
            assert self._loop is not None
            try:
                self._loop.call_soon_threadsafe(self._take_ended)
            except RuntimeError:  # the loop is closed: nobody is left to hear it
                return

    # Ending

    @property
    def abandoned(self) -> int:
        """Functions that still run though nobody waits for them."""
        return self._abandoned

    async def close(self, grace: float) -> None:
        """Wait for running calls, cancel the rest, and end the threads that are idle."""
        if self._closed:
            return
        self._closed = True
        await self._wait(grace)
        for work in list(self._open):
            work.future.cancel()
        # One turn of the loop, in which the cancelled calls give up their threads.
        await asyncio.sleep(0)
        self._ending = True
        for _ in range(self._threads):
            self._queue.put(None)
        await self._wait(1.0)

    async def _wait(self, seconds: float) -> None:
        self._quiet = asyncio.Event()
        self._look_quiet()
        try:
            await asyncio.wait_for(self._quiet.wait(), seconds)
        except TimeoutError:
            return


def _as_exception(error: BaseException) -> Exception:
    """Something that can be raised in a coroutine and means there what it meant in the function."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    return TaskExit.of(error)
