"""The bridge from an event loop to a database: asynchronous outside, plain statements inside.

What waits for its turn at the same moment is done together; how that goes depends on the driver: `threaded`, `looped`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from camora.errors import BrokerUnavailable, ConfigurationError

from camora_sql.dialects.base import Need
from camora_sql.session import Session
from camora_sql.steps import Batch, Step
from camora_sql.store import Store
from camora_sql.wakeup import Wakeups

__all__ = ["Link"]

R = TypeVar("R")
T = TypeVar("T")
A = TypeVar("A")


class _Bridge(Protocol):
    @property
    def wakeups(self) -> Wakeups: ...

    def start(self) -> None: ...

    def submit(self, step: Step[Any]) -> None: ...

    async def end(self) -> None: ...

    def abandon(self) -> None: ...


def _bridge(store: Store, name: str) -> _Bridge:
    # The one that is not needed is not imported: it needs what may not be installed.
    if store.dialect.blocking:
        from camora_sql.threaded import ThreadBridge

        return ThreadBridge(store, name)
    from camora_sql.looped import LoopBridge

    return LoopBridge(store, name)


class Link:
    """A way to a database, for one event loop. Made without I/O; opened once, closed once.

    A process that was forked from the one that opened it gets an error, never the parent's connection.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self._name = name
        self._bridge: _Bridge | None = None
        self._pid = 0
        self._closed = False

    async def open(self) -> None:
        """Connect, make or check the schema. May be repeated after an error."""
        if self._closed:
            raise BrokerUnavailable(f"{self._name} cannot be opened again; use its twin()")
        if self._bridge is not None:
            self._check()
            return
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._bridge = _bridge(self.store, self._name)
        self._bridge.start()
        try:
            await self.read(lambda _: None)
        except BaseException:
            await self._end()
            raise

    @property
    def wakeups(self) -> Wakeups:
        """What tells of commits, of this process and others."""
        return self._check().wakeups

    def _check(self) -> _Bridge:
        if self._bridge is None or self._closed:
            state = "closed" if self._closed else "not open"
            raise BrokerUnavailable(f"{self._name} is {state}; call open() first, or use twin() for one that is")
        if self._pid != os.getpid():
            raise ConfigurationError(
                f"{self._name} was opened before this process was forked (in process {self._pid}); "
                "use its twin() here, or start processes by spawning them"
            )
        return self._bridge

    def run(self, work: Callable[[Session], R]) -> asyncio.Future[R]:
        """Run it by itself; it calls `read` and `write` of the session as it needs them."""
        return self._submit(work, None)

    def read(self, work: Callable[[Session], R]) -> asyncio.Future[R]:
        """Run statements that only read."""
        return self._submit(lambda session: session.read(work), None)

    def write(self, work: Callable[[Session], R], need: Need = Need.KEPT) -> asyncio.Future[R]:
        """Run it as part of a transaction, perhaps with what others write at the same moment.

        `work` may run more than once, and must not have effects outside of the database.
        """
        return self._submit(work, need)

    def batch(
        self,
        of_many: Callable[[Session, Sequence[T]], Sequence[A]],
        items: Sequence[T],
        need: Need = Need.KEPT,
        *,
        single: bool = False,
        patience: float | None = None,
        revocable: bool = False,
    ) -> asyncio.Future[list[A]]:
        """As `write`, for a work that takes any number of items, and is given those of others with them.

        `single`: it is one statement by itself, and may be repeated; then it waits for other writers for `patience`
        seconds, if that is given. `revocable`: it need not happen once the future is cancelled.
        """
        bridge = self._check()
        future: asyncio.Future[list[A]] = self._loop.create_future()
        bridge.submit(Batch(of_many, items, future, need, single=single, patience=patience, revocable=revocable))
        return future

    def _submit(self, work: Callable[[Session], R], need: Need | None) -> asyncio.Future[R]:
        bridge = self._check()
        future: asyncio.Future[R] = self._loop.create_future()
        bridge.submit(Step(work, future, need))
        return future

    async def close(self) -> None:
        """Finish what was asked for, let go of the connection. May be repeated."""
        self._closed = True
        await self._end()

    def abandon(self) -> None:
        """Let go of what it holds although its loop is closed; from any thread, without waiting."""
        self._closed = True
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            bridge.abandon()

    async def _end(self) -> None:
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            await bridge.end()
