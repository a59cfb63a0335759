"""The client's senders and receivers for whoever looks into queues: one for each entity, kept open between calls.

What happens on one of them happens in a task of its own that nobody cancels: a client that is interrupted in the middle
of an answer is of no use afterwards. Whatever fails costs its handle; the next call opens another one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Literal, TypeVar

from azure.core.exceptions import AzureError
from azure.servicebus import ServiceBusSubQueue
from azure.servicebus.exceptions import MessageNotFoundError
from camora.errors import BrokerUnavailable, ConfigurationError
from camora.sockets import let_go

from camora_servicebus import internals
from camora_servicebus.client import Connector
from camora_servicebus.errors import Cause, judge
from camora_servicebus.store import Store
from camora_servicebus.topics import split

__all__ = ["Handles", "Kind", "NoEntity", "NoMessage"]

T = TypeVar("T")
Kind = Literal["send", "look", "take", "dead"]
"""A sender; a receiver to look with, one that takes messages, and one of dead letters, for both."""

_CLOSING = 2.0
_MOST_OPEN = 10
"""Each handle is a connection, and an app may have many queues."""
_SOCKET_TIMEOUT = 0.02
"""Seconds for which one read keeps writes waiting."""


class NoEntity(Exception):
    """The namespace has no such entity."""


class NoMessage(Exception):
    """The entity has no such message."""


class _Handle:
    """A sender or receiver of the client, and the sockets that it has had: after an error the client forgets them."""

    def __init__(self, inner: Any, *, only_asks: bool = False) -> None:
        self.inner = inner
        self._only_asks = only_asks
        self._loop = asyncio.get_running_loop()
        self._sockets: list[tuple[Any, Any]] = []

    async def open(self, kind: Kind, timeout: float) -> None:
        """Raises what the client raises, or `TimeoutError`."""
        try:
            match kind:
                case "send":
                    await internals.open_sender(self.inner, timeout)
                case "look" if self._only_asks:
                    await internals.open_looker(self.inner, timeout)
                case _:
                    await internals.open_receiver(self.inner, timeout)
        finally:
            self.note()

    def note(self) -> None:
        """Its connection may be another one by now."""
        found = internals.socket_of(self.inner)
        if found is not None and all(found is not known for known, _ in self._sockets):
            self._sockets.append((found, internals.inside_of(self.inner)))

    async def close(self) -> None:
        """Raises nothing."""
        self.note()
        await internals.close(self.inner, _CLOSING)
        self.abort()

    def abort(self) -> None:
        """Cut what is left of its connections."""
        for one, _ in self._sockets:
            let_go(one, self._loop)


class Handles:
    """Belongs to the event loop in which it is first used."""

    def __init__(self, store: Store, who: str) -> None:
        self._store = store
        self._who = who
        self._connector: Connector | None = None
        self._open: dict[tuple[Kind, str], _Handle] = {}
        """By when they were used last."""
        self._locks: dict[tuple[Kind, str], asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self.timeout = store.settings.timeout
        """Seconds for one answer."""

    async def use(
        self, kind: Kind, entity: str, work: Callable[[Any], Awaitable[T]], *, seconds: float = 0, once: bool = False
    ) -> T:
        """Do something with a handle, alone with it; one that was open before and fails is tried once more, anew.

        So `work` must be such that it may be repeated, or be tried `once`. It has `seconds` (0: twice the store's
        timeout), opening included. Cancelled, the work goes on to its end. Raises `NoEntity`, `NoMessage`,
        `BrokerUnavailable` or `ConfigurationError`.
        """
        return await asyncio.shield(self._started(self._use(kind, entity, work, seconds, once=once)))

    def drop(self, kind: Kind, entity: str) -> None:
        """Let go of a handle, in the background: whatever the service has lent to it goes back."""
        if (handle := self._open.pop((kind, entity), None)) is not None:
            self._started(handle.close())

    def abandon(self) -> None:
        """Let go of the sockets of a loop that is gone: from any thread, without waiting."""
        self._closed = True
        while self._open:
            with contextlib.suppress(KeyError):
                self._open.popitem()[1].abort()

    async def close(self) -> None:
        """Let go of all; waits for what is under way, which has limits of its own."""
        self._closed = True
        while self._tasks or self._open:
            for kind, entity in list(self._open):
                self.drop(kind, entity)
            await asyncio.wait(set(self._tasks))
        connector, self._connector = self._connector, None
        if connector is not None:
            await connector.close()

    def _started(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited for it may be gone

    async def _use(
        self, kind: Kind, entity: str, work: Callable[[Any], Awaitable[T]], seconds: float, *, once: bool
    ) -> T:
        key = (kind, entity)
        async with self._locks.setdefault(key, asyncio.Lock()):
            while True:
                fresh = key not in self._open
                try:
                    return await self._limited(self._work(kind, entity, work), seconds)
                except MessageNotFoundError as error:
                    raise NoMessage(str(error)) from error
                except (NoEntity, NoMessage, ConfigurationError):
                    raise
                except Exception as error:
                    self.drop(kind, entity)
                    # One that has been idle was detached by the service, which is no failure.
                    if fresh or once or self._closed or not isinstance(error, (AzureError, BrokerUnavailable)):
                        raise self._explained(entity, error) from error

    async def _work(self, kind: Kind, entity: str, work: Callable[[Any], Awaitable[T]]) -> T:
        key = (kind, entity)
        handle = self._open.pop(key, None)
        fresh = handle is None
        if handle is None:
            handle = self._made(kind, entity)
        self._open[key] = handle  # the one that was used last
        for other in list(self._open)[:-_MOST_OPEN]:
            if not self._locks[other].locked():
                self.drop(*other)
        if fresh:
            await handle.open(kind, self.timeout)
        try:
            return await work(handle.inner)
        finally:
            handle.note()

    @contextlib.asynccontextmanager
    async def another(self, kind: Kind, entity: str) -> AsyncIterator[Any]:
        """One more handle, for the length of a block inside of some `work`. Raises what the client raises."""
        handle = self._made(kind, entity)
        try:
            await handle.open(kind, self.timeout)
            yield handle.inner
        finally:
            await handle.close()

    def _made(self, kind: Kind, entity: str) -> _Handle:
        if self._closed:
            raise BrokerUnavailable(f"{self._who} is closed")
        if self._connector is None:
            self._connector = Connector(self._store)
        client, name = self._connector.client(), self._connector.name()
        if kind == "send":
            return _Handle(internals.sender_of(client, split(entity)[0], name))
        # Nothing is handed out to it before it is asked to receive; looking alone takes no message from anybody.
        sub_queue = ServiceBusSubQueue.DEAD_LETTER if kind == "dead" else None
        receiver = client.get_queue_receiver(
            entity, sub_queue=sub_queue, client_identifier=name, socket_timeout=_SOCKET_TIMEOUT
        )
        # Who has no session gets no link to a queue with sessions, but answers.
        sessions = bool(self._store.has_sessions(self._store.names.of_queue(entity)))
        return _Handle(receiver, only_asks=sessions)

    async def _limited(self, work: Awaitable[T], seconds: float) -> T:
        """The client has calls without a limit, such as settling."""
        limit = seconds or 2 * self.timeout
        task = asyncio.ensure_future(work)
        await asyncio.wait({task}, timeout=limit)
        if task.done():
            return task.result()
        # The handle goes with it, so it may as well be interrupted.
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, Exception):
            await asyncio.wait_for(task, _CLOSING)
        raise BrokerUnavailable(f"{self._who}: no answer within {limit:g} s")

    def _explained(self, entity: str, error: Exception) -> Exception:
        if not isinstance(error, (AzureError, OSError, TimeoutError)):
            return error
        judged = judge(error)
        if judged.cause is Cause.MISSING:
            return NoEntity(entity)
        if judged.cause is Cause.DENIED:
            return ConfigurationError(
                f"{self._who}: {entity!r} cannot be looked into: {judged.text}. It needs a key, or a role, with the "
                "rights Listen and Send"
            )
        return BrokerUnavailable(f"{self._who}: {entity!r}: {judged.text}")
