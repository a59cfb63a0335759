"""For drivers that block: a thread that owns a session.

All that is asked for while the thread is busy is done in one go: writes that wait together share one transaction, and
so one disk flush, and their answers come back to the loop in one call.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import Any

from camora_sql.opening import prepare
from camora_sql.session import Session
from camora_sql.steps import Step, perform, resolve
from camora_sql.store import Store
from camora_sql.wakeup import Wakeups

__all__ = ["ThreadBridge"]

_MOST_TOGETHER = 64
"""Writes that share a transaction at most: others want to write, too."""


class ThreadBridge:
    """One thread with one session, for one event loop. Opened once, closed once."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._session = Session(store, prepare=lambda session: prepare(session, store))
        self._queue: SimpleQueue[Step[Any] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._wakeups: Wakeups | None = None

    def start(self) -> None:
        """Start the thread; in the loop that it is for."""
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._serve, name=f"camora-{self._name}", daemon=True)
        self._thread.start()

    @property
    def wakeups(self) -> Wakeups:
        """What tells of commits, of this process and others. The database must be there."""
        if self._wakeups is None:
            self._wakeups = self._store.dialect.wakeups(self._store.time)
        return self._wakeups

    def submit(self, step: Step[Any]) -> None:
        """Do it when its turn comes."""
        self._queue.put(step)

    async def end(self) -> None:
        """Finish what was asked for, end the thread, let go of the connection. May be repeated."""
        if self._wakeups is not None:
            self._wakeups.close()
            self._wakeups = None
        thread, self._thread = self._thread, None
        if thread is None or self._pid != os.getpid():
            return
        self._queue.put(None)
        # A thread, because this loop may be asked to go on with other work meanwhile.
        await asyncio.get_running_loop().run_in_executor(None, thread.join)

    def abandon(self) -> None:
        """End the thread of a loop that is closed; from any thread, without waiting."""
        if self._wakeups is not None:
            self._wakeups.abandon()
            self._wakeups = None
        thread, self._thread = self._thread, None
        if thread is not None and self._pid == os.getpid():
            self._queue.put(None)

    # In the thread

    def _serve(self) -> None:
        session = self._session
        try:
            while True:
                waiting = self._collect()
                ended = waiting[-1] is None
                steps = [step for step in waiting if step is not None]
                done: list[Step[Any]] = []
                for shared, group in itertools.groupby(steps, key=lambda step: step.need is not None):
                    together = list(group)
                    for piece in [together] if shared else [[step] for step in together]:
                        perform(session, piece)
                        done += piece
                        # A claim is wanted at once, whatever else is still to be done.
                        if not shared and piece[-1] is not steps[-1]:
                            self._answer(done)
                            done = []
                self._answer(done)
                if ended:
                    return
        finally:
            session.close()

    def _collect(self) -> list[Step[Any] | None]:
        waiting = [self._queue.get()]
        with contextlib.suppress(Empty):
            while waiting[-1] is not None and len(waiting) < _MOST_TOGETHER:
                waiting.append(self._queue.get_nowait())
        return waiting

    def _answer(self, steps: Sequence[Step[Any]]) -> None:
        # A closed loop has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(resolve, list(steps))
