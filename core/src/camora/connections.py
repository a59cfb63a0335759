"""One opened broker and result backend per event loop, made when it is first needed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import attrs

from camora.declarations import Declarations
from camora.errors import ConfigurationError
from camora.interfaces.broker import Broker
from camora.interfaces.journal import Journal
from camora.interfaces.limits import Limits
from camora.interfaces.results import ResultBackend
from camora.interfaces.schedule import ScheduleStore
from camora.interfaces.workers import WorkerDirectory
from camora.interfaces.workflows import WorkflowStore

__all__ = ["Connection", "Connections", "Portal", "companion_of"]

R = TypeVar("R")

_OUTBOX = "outbox"


@attrs.frozen
class Connection:
    """What is open in one loop. `atomic`: the broker's settlements write the results."""

    broker: Broker
    results: ResultBackend | None
    atomic: bool
    _outbox: Broker | None = None
    _companions: dict[str, asyncio.Task[Any]] = attrs.field(factory=dict, init=False)

    async def limits(self) -> Limits | None:
        """Limits across workers, opened by the first who asks; None when neither store keeps them."""
        return await self._companion("own_limits")  # type: ignore[no-any-return]

    async def schedules(self) -> ScheduleStore | None:
        """The schedule store; as `limits`."""
        return await self._companion("own_schedules")  # type: ignore[no-any-return]

    async def workers(self) -> WorkerDirectory | None:
        """The directory of workers; as `limits`."""
        return await self._companion("own_workers")  # type: ignore[no-any-return]

    async def workflows(self) -> WorkflowStore | None:
        """The store of workflows; as `limits`."""
        return await self._companion("own_workflows")  # type: ignore[no-any-return]

    async def journal(self) -> Journal | None:
        """The journal; as `limits`."""
        return await self._companion("own_journal")  # type: ignore[no-any-return]

    async def outbox(self) -> Broker | None:
        """The broker of the outbox, opened by the first who asks; None where the app has no outbox."""
        return await self._companion(_OUTBOX)  # type: ignore[no-any-return]

    async def _companion(self, kind: str) -> Any:
        opening = self._companions.get(kind)
        if opening is None or (opening.done() and (opening.cancelled() or opening.exception() is not None)):
            opening = self._companions[kind] = asyncio.get_running_loop().create_task(self._open(kind))
        # Shielded: whoever is cancelled while waiting must not take it away from the others.
        return await asyncio.shield(opening)

    async def _open(self, kind: str) -> Any:
        found = self._own_outbox() if kind == _OUTBOX else companion_of(self.broker, self.results, kind)
        if found is not None:
            try:
                await found.open()
            except BaseException:
                # Nobody else knows of it, and it may go on connecting.
                await found.close()
                raise
        return found

    def _own_outbox(self) -> Broker | None:
        # Another one for each try: what has been closed stays so.
        return None if self._outbox is None else self._outbox.twin()

    async def close(self) -> None:
        """Close everything, companions first."""
        for opening in self._companions.values():
            # Waited for, not awaited: a job that cancels every task must not end this, too.
            await asyncio.wait([opening])
            if not opening.cancelled() and opening.exception() is None and opening.result() is not None:
                with contextlib.suppress(Exception):
                    await opening.result().close()
        self._companions.clear()
        if self.results is not None:
            await self.results.close()
        await self.broker.close()

    def abandon(self) -> None:
        """As `Broker.abandon`, for everything."""
        for opening in self._companions.values():
            if opening.done() and not opening.cancelled() and opening.exception() is None and opening.result():
                opening.result().abandon()
        self.broker.abandon()
        if self.results is not None:
            self.results.abandon()


def companion_of(broker: Broker, results: ResultBackend | None, kind: str) -> Any:
    """What the broker keeps under this name (`own_limits` …), else what the result backend does, unopened; or None."""
    found = getattr(broker, kind)()
    if results is None or (found is not None and not getattr(found, "last_resort", False)):
        return found
    other = getattr(results, kind)()
    return found if other is None else other


class Connections:
    """Opens the broker and the result backend once in every loop that uses the app."""

    def __init__(
        self,
        broker: Broker,
        results: ResultBackend | None,
        declarations: Declarations | None = None,
        outbox: Broker | None = None,
    ) -> None:
        self._outbox = outbox
        self._broker = broker
        self._results = results
        self._declarations = declarations or Declarations()
        self._first_taken = False
        self._by_loop: dict[asyncio.AbstractEventLoop, asyncio.Task[Connection]] = {}
        self._lock = threading.Lock()
        self._ready: tuple[asyncio.AbstractEventLoop | None, Connection | None] = (None, None)

    def ready(self) -> Connection | None:
        """This loop's connection, if it is open and was the last one asked for: the way of the hot path."""
        loop, connection = self._ready
        return connection if loop is asyncio.get_running_loop() else None

    def opened(self) -> Connection | None:
        """This loop's connection, if it is open: unlike `get`, this opens none."""
        opening = self._by_loop.get(asyncio.get_running_loop())
        if opening is None or not opening.done() or opening.cancelled() or opening.exception() is not None:
            return None
        return opening.result()

    async def get(self) -> Connection:
        """This loop's connection; opened by the first who asks. Raises what `Broker.open` raises."""
        loop = asyncio.get_running_loop()
        opening = self._by_loop.get(loop)
        if opening is None:
            self._drop_dead_loops()
            opening = self._by_loop[loop] = loop.create_task(self._open())
        try:
            # Shielded: whoever is cancelled while waiting must not take the connection away from the others.
            connection = await asyncio.shield(opening)
        except BaseException:
            if opening.done() and self._by_loop.get(loop) is opening:
                del self._by_loop[loop]
            raise
        self._ready = (loop, connection)
        return connection

    async def _open(self) -> Connection:
        with self._lock:
            first, self._first_taken = not self._first_taken, True
        broker = self._broker if first else self._broker.twin()
        results = self._results if first or self._results is None else self._results.twin()
        async with contextlib.AsyncExitStack() as undo:
            self._declarations.tell(broker)
            undo.callback(self._declarations.forget, broker)
            undo.push_async_callback(broker.close)
            await broker.open()
            if results is not None:
                undo.push_async_callback(results.close)
                await results.open()
            atomic = results is not None and broker.settles_into(results)
            if results is not None and results.private and not atomic:
                raise ConfigurationError(
                    f"{results!r} takes results from a broker at the same URL alone, and this app's broker is "
                    f"{broker!r}. Leave results= out, or give a store of results that processes share"
                )
            undo.pop_all()
        return Connection(broker, results, atomic, self._outbox)

    async def close(self) -> None:
        """Close this loop's connection. The next use opens a new one."""
        loop = asyncio.get_running_loop()
        self._ready = (None, None)
        opening = self._by_loop.pop(loop, None)
        if opening is None:
            return
        with contextlib.suppress(Exception):
            connection = await opening
            self._declarations.forget(connection.broker)
            await connection.close()

    def _drop_dead_loops(self) -> None:
        for loop in [loop for loop in self._by_loop if loop.is_closed()]:
            opening = self._by_loop.pop(loop)
            if opening.done() and not opening.cancelled() and opening.exception() is None:
                self._declarations.forget(opening.result().broker)
                opening.result().abandon()


class Portal:
    """An event loop in a thread of its own, for callers that have none. Started by the first call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Run it there, and wait for its answer."""
        if self._thread is not None and threading.current_thread() is self._thread:
            coroutine.close()
            raise ConfigurationError("a _sync method was called from Camora's own loop; use the async one")
        return asyncio.run_coroutine_threadsafe(coroutine, self._start()).result()

    def _start(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._pid != os.getpid():
                # A forked child has its parent's objects, but not its threads.
                self._loop, self._pid = None, os.getpid()
            if self._loop is None:
                loop = self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=loop.run_forever, name="camora-portal", daemon=True)
                self._thread.start()
            return self._loop

    def stop(self, last: Coroutine[Any, Any, object]) -> None:
        """Run one last coroutine there and end the thread; does nothing but close it when there is no thread."""
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is None or thread is None:
            last.close()
            return
        asyncio.run_coroutine_threadsafe(last, loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
