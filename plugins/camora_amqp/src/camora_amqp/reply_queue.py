"""The queue into which results come, and the thread that empties it: one for all event loops of a process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import msgspec
from camora.errors import BrokerUnavailable
from pamqp import commands

from camora_amqp import frames
from camora_amqp.errors import Refused, WireLost
from camora_amqp.inbox import Inbox
from camora_amqp.link import connect
from camora_amqp.replies import LONGEST_TTL, read_reply
from camora_amqp.wire import Channel, Wire

if TYPE_CHECKING:
    from camora_amqp.store import Store

__all__ = ["ReplyQueue"]

logger = logging.getLogger(__name__)

_PAUSES = (0.05, 2.0)
"""Seconds until the next try to connect: at first, and at most."""
_OUTLIVES = 3600.0
"""Seconds for which the queue waits for a process that has lost its connection, or has been killed."""


class ReplyQueue:
    """Listens from the first `listen` until as many have called `leave` as have called `join`.

    In a thread of its own: a job may be dispatched in one loop and waited for in another one, and loops may stand
    still for long.
    """

    def __init__(self, store: Store) -> None:
        self.pid = os.getpid()
        self.inbox = Inbox(f"results of {store.label}", ttl=store.settings.result_ttl)
        self.name = self._fresh_name(store)
        """The queue's name on the server; another one, when the server cannot go on with it."""
        self._store = store
        self._lock = threading.Lock()
        self._users = 0
        self._ready: Future[None] | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._wire: Wire | None = None
        self._to_ack: tuple[Channel, int] | None = None

    @staticmethod
    def _fresh_name(store: Store) -> str:
        return f"{store.settings.prefix}camora.replies.{os.urandom(8).hex()}"

    # For any thread

    def join(self) -> None:
        """Somebody may want results from now on."""
        with self._lock:
            self._users += 1

    async def listen(self) -> str:
        """The queue's name, once it exists. Raises `BrokerUnavailable`."""
        ready = self._ready
        if ready is None or not ready.done() or ready.exception() is not None:
            with self._lock:
                ready = self._start()
            await asyncio.shield(asyncio.wrap_future(ready))
        return self.name

    def _start(self) -> Future[None]:
        ready = self._ready
        if ready is not None and not (ready.done() and ready.exception() is not None):
            return ready
        ready = self._ready = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main(ready)), name="camora-amqp-results", daemon=True
        )
        self._thread.start()
        return ready

    async def leave(self) -> None:
        """Nobody has more use for it than before `join`: the last one has the queue deleted, and ends the thread."""
        with self._lock:
            self._users -= 1
            if self._users > 0 or self._thread is None:
                return
            thread, loop, stop, self._thread, self._ready = self._thread, self._loop, self._stop, None, None
        if loop is not None and stop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(stop.set)
        await asyncio.to_thread(thread.join, 5.0)

    def abandon(self) -> None:
        """As `leave`, without waiting."""
        with self._lock:
            self._users -= 1
            if self._users > 0 or self._thread is None:
                return
            loop, stop, self._thread, self._ready = self._loop, self._stop, None, None
        if loop is not None and stop is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(stop.set)

    # Its own thread from here on

    async def _main(self, ready: Future[None]) -> None:
        self._loop, stop = asyncio.get_running_loop(), asyncio.Event()
        self._stop = stop
        pause = _PAUSES[0]
        stopping = asyncio.ensure_future(stop.wait())
        while not stop.is_set():
            try:
                await self._listen(ready, stopping)
                pause = _PAUSES[0]
            except (WireLost, Refused) as error:
                if not ready.done():
                    ready.set_exception(BrokerUnavailable(f"results of {self._store.label}: {error}"))
                    return
                if isinstance(error, Refused) and not stop.is_set():
                    self._begin_anew(error)
            await asyncio.wait([stopping], timeout=random.uniform(pause / 2, pause))  # noqa: S311 -- jitter
            pause = min(pause * 2, _PAUSES[1])

    def _begin_anew(self, error: Exception) -> None:
        """The server has something against this queue, such as that its node is away: go on with another one."""
        fresh = self._fresh_name(self._store)
        logger.warning(
            "%s: the queue of results %s cannot be used any more: %s. Results of jobs that were dispatched before will "
            "not come; for those from now on there is another one",
            self._store.label, self.name, error,
        )  # fmt: skip
        self.name = fresh

    async def _listen(self, ready: Future[None], stopping: asyncio.Future[Any]) -> None:
        """Connect, and keep what comes until the connection ends, or all is over."""
        wire = self._wire = await connect(self._store, purpose="results")
        try:
            channel = await self._subscribe(wire)
            if not ready.done():
                ready.set_result(None)
            ends: set[asyncio.Future[Any]] = {stopping, wire.closed}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done() and wire.error is None:
                with contextlib.suppress(WireLost, Refused):
                    await channel.call(commands.Queue.Delete(0, self.name, False, False, False))
        finally:
            await wire.close()

    async def _subscribe(self, wire: Wire) -> Channel:
        channel = await wire.channel()
        ttl = self._store.settings.result_ttl
        arguments: Any = {
            "x-expires": min(round(min(ttl, _OUTLIVES) * 1000), LONGEST_TTL),
            "x-message-ttl": min(round(ttl * 1000), LONGEST_TTL),
        }
        await channel.call(commands.Queue.Declare(0, self.name, False, True, False, False, False, arguments))
        channel.on_deliver = lambda message: self._on_deliver(channel, message)
        channel.on_close = lambda error: wire.fail(WireLost(str(error)))
        channel.on_cancel = lambda tag: wire.fail(WireLost(f"{tag} was cancelled"))
        await channel.call(commands.Basic.Consume(0, self.name, "camora", False, False, False, False, {}))
        return channel

    def _on_deliver(self, channel: Channel, message: frames.Deliver) -> None:
        with contextlib.suppress(msgspec.DecodeError):
            self.inbox.keep(read_reply(message.body), len(message.body))
        if self._to_ack is None:
            asyncio.get_running_loop().call_soon(self._acknowledge)
        self._to_ack = channel, message.tag

    def _acknowledge(self) -> None:
        """All that has come in one turn of the loop, at once."""
        assert self._to_ack is not None
        (channel, tag), self._to_ack = self._to_ack, None
        if channel.error is None:
            channel.wire.write(frames.ack(channel.number, tag, multiple=True))
