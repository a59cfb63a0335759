"""For drivers of an event loop: the same plain code, in greenlets of that loop, without a thread.

Writes go one transaction after the other, and what waits meanwhile goes together into the next one; everything else
has a connection to itself at once, as long as there are some.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Coroutine
from typing import Any

from camora_sql.errors import CommitUnclear
from camora_sql.hub import Hub
from camora_sql.steps import Step, perform, resolve
from camora_sql.store import Store
from camora_sql.wakeup import Wakeups

__all__ = ["LoopBridge"]

_MOST_TOGETHER = 500
"""Steps that go into one transaction at most."""


class LoopBridge:
    """For one event loop. Opened once, closed once."""

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._hub: Hub | None = None
        self._pid = 0
        self._waiting: deque[Step[Any]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Find the hub of the running loop."""
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._hub = self._store.shared.enter(lambda: Hub(self._store))

    @property
    def wakeups(self) -> Wakeups:
        """What tells of commits, of this process and others."""
        return self._open_hub.wakeups

    @property
    def _open_hub(self) -> Hub:
        assert self._hub is not None
        return self._hub

    def submit(self, step: Step[Any]) -> None:
        """Do it when its turn comes."""
        if step.need is None:
            self._spawn(self._run(step)).add_done_callback(lambda _: _give_up([step], self._name))
            return
        self._waiting.append(step)
        if self._writer is None:
            self._start_writing()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, step: Step[Any]) -> None:
        await self._open_hub.run(perform, [step])
        step.resolve()

    def _start_writing(self) -> None:
        self._writer = self._spawn(self._write())
        self._writer.add_done_callback(self._written)

    async def _write(self) -> None:
        while self._waiting:
            steps = [self._waiting.popleft() for _ in range(min(len(self._waiting), _MOST_TOGETHER))]
            try:
                await self._open_hub.run(perform, steps)
                resolve(steps)
            finally:
                _give_up(steps, self._name)

    def _written(self, _: asyncio.Task[None]) -> None:
        self._writer = None
        # What came after the last look, or somebody cancels every task that there is.
        if self._waiting and not self._loop.is_closed():
            self._start_writing()

    async def end(self) -> None:
        """Finish what was asked for, let go of the hub. May be repeated."""
        hub = self._hub
        if hub is None or self._pid != os.getpid():
            return
        while self._tasks or self._waiting:
            await (asyncio.wait(self._tasks) if self._tasks else asyncio.sleep(0))
        self._hub = None
        if self._store.shared.leave(self._loop):
            await hub.close()

    def abandon(self) -> None:
        """Let go although the loop is closed; from any thread, without waiting."""
        hub, self._hub = self._hub, None
        if hub is not None and self._pid == os.getpid() and self._store.shared.leave(self._loop):
            hub.abandon()


def _give_up(steps: list[Step[Any]], name: str) -> None:
    """Nobody goes on with these: their task was cancelled."""
    for step in steps:
        if not step.future.done():
            step.future.set_exception(CommitUnclear(f"{name}: interrupted: its event loop cancels all tasks"))
