"""The bridge from an event loop to a thread that owns a session: asynchronous outside, plain and blocking inside.

All that is asked for while the thread is busy is done in one go: writes that wait together share one transaction, and
so one disk flush, and their answers come back to the loop in one call.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from camora.errors import BrokerUnavailable, CamoraError, ConfigurationError

from camora_sql.dialects.base import Need
from camora_sql.opening import prepare
from camora_sql.session import Session
from camora_sql.store import Store
from camora_sql.wakeup import Wakeups

__all__ = ["Link"]

R = TypeVar("R")

_MOST_TOGETHER = 64
"""Writes that share a transaction at most: others want to write, too."""


class _Job(Generic[R]):
    """Something for the thread to do, and the future that waits for it."""

    __slots__ = ("answer", "error", "future", "need", "work")

    def __init__(self, work: Callable[[Session], R], future: asyncio.Future[R], need: Need | None) -> None:
        self.work = work
        self.future = future
        self.need = need
        """None: it makes its transactions itself."""
        self.answer: R | None = None
        self.error: BaseException | None = None

    def resolve(self) -> None:
        """In the loop: tell who waits."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.answer)  # type: ignore[arg-type]


class Link:
    """One thread with one session, for one event loop. Made without I/O; opened once, closed once.

    A process that was forked from the one that opened it gets an error, never the parent's connection.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self._name = name
        self._session = Session(store, prepare=lambda session: prepare(session, store))
        self._queue: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._closed = False
        self._wakeups: Wakeups | None = None

    async def open(self) -> None:
        """Start the thread, connect, make or check the schema. May be repeated after an error."""
        if self._closed:
            raise BrokerUnavailable(f"{self._name} cannot be opened again; use its twin()")
        if self._thread is not None:
            self._check()
            return
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._serve, name=f"camora-{self._name}", daemon=True)
        self._thread.start()
        try:
            await self.read(lambda _: None)
            if self._wakeups is None:
                self._wakeups = self.store.dialect.wakeups()
        except BaseException:
            await self._end()
            raise

    @property
    def wakeups(self) -> Wakeups:
        """What tells of commits, of this process and others."""
        self._check()
        assert self._wakeups is not None
        return self._wakeups

    # In the loop

    def _check(self) -> None:
        if self._thread is None or self._closed:
            state = "closed" if self._closed else "not open"
            raise BrokerUnavailable(f"{self._name} is {state}; call open() first, or use twin() for one that is")
        if self._pid != os.getpid():
            raise ConfigurationError(
                f"{self._name} was opened before this process was forked (in process {self._pid}); "
                "use its twin() here, or start processes by spawning them"
            )

    def _submit(self, work: Callable[[Session], R], need: Need | None) -> asyncio.Future[R]:
        self._check()
        future: asyncio.Future[R] = self._loop.create_future()
        self._queue.put(_Job(work, future, need))
        return future

    def run(self, work: Callable[[Session], R]) -> asyncio.Future[R]:
        """Run it in the thread by itself; it calls `read` and `write` of the session as it needs them."""
        return self._submit(work, None)

    def read(self, work: Callable[[Session], R]) -> asyncio.Future[R]:
        """Run statements that only read."""
        return self._submit(lambda session: session.read(work), None)

    def write(self, work: Callable[[Session], R], need: Need = Need.KEPT) -> asyncio.Future[R]:
        """Run it as part of a transaction, perhaps with what others write at the same moment.

        `work` may run more than once, and must not have effects outside of the database.
        """
        return self._submit(work, need)

    async def close(self) -> None:
        """Finish what was asked for, end the thread, let go of the connection. May be repeated."""
        self._closed = True
        await self._end()

    def abandon(self) -> None:
        """End the thread of a loop that is closed; from any thread, without waiting."""
        self._closed = True
        if self._wakeups is not None:
            self._wakeups.abandon()
            self._wakeups = None
        thread, self._thread = self._thread, None
        if thread is not None and self._pid == os.getpid():
            self._queue.put(None)

    async def _end(self) -> None:
        if self._wakeups is not None:
            self._wakeups.close()
            self._wakeups = None
        thread, self._thread = self._thread, None
        if thread is None or self._pid != os.getpid():
            return
        self._queue.put(None)
        # A thread, because this loop may be asked to go on with other work meanwhile.
        await asyncio.get_running_loop().run_in_executor(None, thread.join)

    # In the thread

    def _serve(self) -> None:
        session = self._session
        try:
            while True:
                waiting = self._collect()
                ended = waiting[-1] is None
                jobs = [job for job in waiting if job is not None]
                for shared, group in itertools.groupby(jobs, key=lambda job: job.need is not None):
                    together = list(group)
                    if shared:
                        _write_together(session, together)
                    else:
                        for job in together:
                            _run(session, job)
                            # A claim is wanted at once, whatever else is still to be done.
                            if job is not jobs[-1]:
                                self._answer([job])
                self._answer(jobs)
                if ended:
                    return
        finally:
            session.close()

    def _collect(self) -> list[_Job[Any] | None]:
        waiting = [self._queue.get()]
        with contextlib.suppress(Empty):
            while waiting[-1] is not None and len(waiting) < _MOST_TOGETHER:
                waiting.append(self._queue.get_nowait())
        return waiting

    def _answer(self, jobs: Sequence[_Job[Any]]) -> None:
        # A closed loop has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(_resolve, list(jobs))


def _resolve(jobs: Sequence[_Job[Any]]) -> None:
    for job in jobs:
        job.resolve()


def _run(session: Session, job: _Job[Any]) -> None:
    try:
        job.answer = job.work(session)
    except BaseException as error:  # noqa: BLE001 -- it is the waiter's
        job.error = error


def _write_together(session: Session, jobs: Sequence[_Job[Any]]) -> None:
    def all_of_them(session: Session) -> None:
        for job in jobs:
            job.answer = job.work(session)

    try:
        session.write(all_of_them, max(job.need or Need.NONE for job in jobs))
    except CamoraError as error:
        # The database refuses: it would refuse each of them.
        for job in jobs:
            job.error = error
    except BaseException as error:  # noqa: BLE001 -- it is the waiter's
        if len(jobs) == 1:
            jobs[0].error = error
            return
        # One of them is at fault, and must not take the others along.
        for job in jobs:
            _write_together(session, [job])
