"""One process of the process pool: a pebble pool of one, so that no call can disturb another.

pebble starts the process and carries calls and results. What it does by looking ten times a second (is a process dead,
is a call late) is done here by being told: the system reports a process's end, and time is the event loop's, which does
not jump with the wall clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pebble
from pebble.pool.process import PoolManager

from camora.builtin.pools import child
from camora.builtin.pools.main_module import left_out, main_of_parent
from camora.interfaces.pool import ProcessDied

__all__ = ["Slot"]

_POLL = 2.0
"""Seconds after which pebble's reader of results looks whether its pool was stopped."""


class _Manager(PoolManager):
    """pebble's manager of processes, without its polling."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.over = threading.Event()

    def update_status(self) -> None:
        """Called in a loop by pebble: there is nothing to look for until the pool stops."""
        self.over.wait()

    def process_next_message(self, timeout: float) -> None:
        """Called in a loop by pebble."""
        del timeout
        super().process_next_message(_POLL)


class _PoolOfOne(pebble.ProcessPool):
    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        super().__init__(
            max_workers=1, context=context, initializer=child.start, initargs=(os.getpid(), main_of_parent())
        )
        self._pool_manager = self._manager = _Manager(self._context, context)

    def start(self, *references: str) -> tuple[Any, Future[None]]:
        """Start the process; returns it, and a future for when it is ready."""
        with _without_interrupts(), left_out():
            ready = self.schedule(child.prepare, args=references)
        workers = self._manager.worker_manager
        # The process has its own ends of the pipes. Without ours, both notice at once when the other is gone.
        channel = workers.workers_channel
        assert channel is not None
        channel.reader.close()
        channel.writer.close()
        return next(iter(workers.workers.values())), ready

    def end(self) -> None:
        """Stop pebble's threads; without its pipes a living process ends by itself. Blocks for a moment."""
        self._manager.worker_manager.workers.clear()  # the process is ours to end
        self.stop()  # type: ignore[no-untyped-call]
        self._manager.over.set()
        self.join()


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Start a process that does not hear what is sent to the whole group before it can ignore it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, child.DEAF_TO)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Slot:
    """A process, and the call that it runs. Belongs to the loop that made it."""

    def __init__(self, *references: str) -> None:
        """Start the process, and let it import the modules of these references."""
        self._loop = asyncio.get_running_loop()
        self._pool = _PoolOfOne()
        self._process, ready = self._pool.start(*references)
        self._watched: int | None = _watch(self._process)
        self.calls = 0
        """Calls that it ran."""
        self.dead = False
        """True once the process is gone, or has been told to go."""
        self.gone = asyncio.Event()
        """Set when the process has ended."""
        self._exit_code: int | None = None
        self._pool_ended = False
        self._waiting: set[asyncio.Future[Any]] = set()
        self._loop.add_reader(self._watched, self._on_end)
        self._ready = self._local(ready)

    async def ready(self, task: str) -> None:
        """Wait until it can take a call of this task. Raises `ProcessDied` where it ended instead."""
        try:
            await asyncio.shield(self._ready)
        except ProcessDied:
            raise self._died(f"the process for {task}", " before it could take the call") from None

    async def run(self, data: bytes, timeout: float | None, task: str) -> bytes:
        """Run one call. Raises `TimeoutError` or `ProcessDied`; being cancelled, or late, kills the process."""
        self.calls += 1
        outcome = self._local(self._pool.schedule(child.run, args=(data,)))
        try:
            async with asyncio.timeout(timeout):
                result: bytes = await outcome
        except TimeoutError:
            self.kill()
            raise TimeoutError(f"{task} ran longer than {timeout:g} s; its process was killed") from None
        except asyncio.CancelledError:
            self.kill()
            raise
        except ProcessDied:
            raise self._died(f"the process that ran {task}") from None
        return result

    def _died(self, which: str, when: str = "") -> ProcessDied:
        return ProcessDied(f"{which} {_ended(self._exit_code)}{when}", exit_code=self._exit_code)

    def _local(self, remote: Future[Any]) -> asyncio.Future[Any]:
        """A pebble future as one of this loop; it fails when the process ends."""
        local = self._loop.create_future()
        self._waiting.add(local)
        local.add_done_callback(self._waiting.discard)

        def take(done: Future[Any]) -> None:
            if local.done():
                return
            if done.exception() is None:
                local.set_result(done.result())
            else:  # what runs over there never raises, so it is the way to there that is broken
                self.kill()

        def on_done(done: Future[Any]) -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                self._loop.call_soon_threadsafe(take, done)

        remote.add_done_callback(on_done)
        return local

    def _on_end(self) -> None:
        assert self._watched is not None
        self._loop.remove_reader(self._watched)
        os.close(self._watched)
        self._watched = None
        self.dead = True
        self._ending = self._loop.create_task(self._bury())

    async def _bury(self) -> None:
        if self._waiting:
            # What it sent before its end is still on its way.
            await asyncio.wait(set(self._waiting), timeout=0.1)
        self._process.join()  # at once: it has ended
        self._exit_code = self._process.exitcode
        self._process.close()
        for local in list(self._waiting):
            if not local.done():
                local.set_exception(self._died("a process"))
                local.exception()  # taken note of: nobody may be waiting any more
        self.gone.set()
        self._end_pool()

    def _end_pool(self) -> None:
        if self._pool_ended:
            return
        self._pool_ended = True
        # pebble's threads end in their own time; nobody has to wait for that.
        threading.Thread(target=self._pool.end, name="camora-pebble-end", daemon=True).start()

    def kill(self) -> None:
        """End the process now, whatever it does."""
        self.dead = True
        if self._watched is not None:
            self._process.kill()

    async def finish(self, grace: float) -> None:
        """Let it tear down what it made, within `grace` seconds, and end it."""
        if not self.dead:
            self.dead = True
            done = self._local(self._pool.schedule(child.finish))
            await asyncio.wait([done], timeout=grace)
            if not done.done() or done.exception() is not None:
                self.kill()
            else:
                self._end_pool()
        try:
            async with asyncio.timeout(1.0):
                await self.gone.wait()
        except TimeoutError:
            self.kill()
            await self.gone.wait()


def _watch(process: Any) -> int:
    """A descriptor that becomes readable when the process has ended."""
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):
            return os.pidfd_open(process.pid)
    # A pipe that the process holds; if it forked, its children hold it, too.
    return os.dup(process.sentinel)


def _ended(code: int | None) -> str:
    if code is None:
        return "ended"
    if code >= 0:
        return f"ended by itself, with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-code).name}"
    return f"was killed by signal {-code}"
