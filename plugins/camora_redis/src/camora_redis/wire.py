"""One connection, once it is made: commands go out together, answers come back in order.

The redis client connects (names, TLS, authentication), then hands its transport over. Awaiting each command with the
client itself costs several times what the server needs for it. The protocol is RESP 2 or 3:
https://redis.io/docs/latest/develop/reference/protocol-spec/ .
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
from camora.sockets import let_go

from camora_redis.errors import ConnectionLost, ServerError

__all__ = ["Wire", "pack"]

_NOTHING = object()
_PUSH: type[Any] = getattr(hiredis, "PushNotification", type(None))
_LOOK_AGAIN = 0.1
"""Seconds that an overdue answer has left: when something has blocked the loop, it may be here, and unread."""
_PARTING = 1.0
"""Seconds after which a connection that is closed in order is cut."""


class _ClosedTransport(asyncio.Transport):
    """For a stream writer that has none any more: when it goes, it closes its transport unless that is closing."""

    def is_closing(self) -> bool:
        return True


_CLOSED = _ClosedTransport()

pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command
"""A command as it travels: its words are `bytes`, `str`, `int` or `float`."""


class Wire(asyncio.Protocol):
    """Belongs to the event loop of its transport. `timeout` is seconds until an answer that does not come ends it.

    `heard` gets what the server sends unasked: the messages of channels, by RESP 3 or where no answer is awaited.
    `home` names the server that it leads to.
    """

    def __init__(self, timeout: float, heard: Callable[[Any], None] | None = None, home: str = "") -> None:
        self.closed = False
        """True when it takes no more commands."""
        self.client_id = 0
        self.home = home
        self._timeout = timeout
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._reader = hiredis.Reader(replyError=_error, protocolError=ConnectionLost, notEnoughData=_NOTHING)
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()
        self._outbox: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._gone: asyncio.Future[None] = self._loop.create_future()

    def take_over(self, connection: Any) -> None:
        """From now on, the transport of this connection of the redis client's is this wire's."""
        # The client has no public way to give it away.
        writer, connection._reader, connection._writer = connection._writer, None, None  # noqa: SLF001
        self._transport, writer._transport = writer.transport, _CLOSED  # noqa: SLF001
        self._transport.set_protocol(self)
        if self._transport.is_closing():
            # Lost already, as its former owner was told.
            self._gone.set_result(None)
            self._fail(ConnectionLost("the server closed the connection"))

    @property
    def idle(self) -> bool:
        """True while no answer is awaited."""
        return not self._waiting

    def send(self, packed: bytes, *, longer: float = 0.0) -> asyncio.Future[Any]:
        """Send a command; its answer, which may be a `ServerError`, comes by the future.

        What is sent in one turn of the loop travels together. `longer` is how many seconds the server may hold back
        the answer beyond the timeout. The future fails with `ConnectionLost`; who cancels it forgoes the answer, no
        more.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        if self.closed:
            future.set_exception(ConnectionLost("the connection is closed"))
            return future
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._outbox.append(packed)
        self._waiting.append((future, self._loop.time() + self._timeout + longer))
        if self._timer is None:
            self._timer = self._loop.call_later(self._timeout, self._check)
        return future

    async def call(self, *words: Any, longer: float = 0.0) -> Any:
        """Send a command, and wait for its answer. Raises `ServerError` or `ConnectionLost`."""
        answer = await self.send(pack(words), longer=longer)
        if isinstance(answer, ServerError):
            raise answer
        return answer

    def tell(self, packed: bytes) -> None:
        """Send a command whose answer goes to `heard`, if there is one: on a wire that listens."""
        if not self.closed:
            self._transport.write(packed)

    def _flush(self) -> None:
        outbox, self._outbox = self._outbox, []
        if outbox and not self._gone.done():
            self._transport.write(outbox[0] if len(outbox) == 1 else b"".join(outbox))

    def _check(self, *, again: bool = False) -> None:
        """End the connection when the oldest answer is overdue: nothing that comes on it can be trusted any more."""
        self._timer = None
        if not self._waiting:
            return
        left = self._waiting[0][1] - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._check)
        elif not again:
            self._timer = self._loop.call_later(_LOOK_AGAIN, lambda: self._check(again=True))
        else:
            self.abort(ConnectionLost(f"no answer within {self._timeout:g} s"))

    # What the transport calls

    def data_received(self, data: bytes) -> None:
        """Hand out the answers in it."""
        reader, waiting = self._reader, self._waiting
        reader.feed(data)
        try:
            while (answer := reader.gets(False)) is not _NOTHING:
                if isinstance(answer, _PUSH) or not waiting:
                    self._unasked(answer)
                    continue
                future, _ = waiting.popleft()
                if not future.done():
                    future.set_result(answer)
        except ConnectionLost as error:
            self.abort(ConnectionLost(f"no Redis at the other end: {error}"))
        if self.closed and not waiting and not self._transport.is_closing():
            self._transport.close()

    def _unasked(self, answer: Any) -> None:
        if self._heard is not None:
            self._heard(answer)
        elif not isinstance(answer, _PUSH):
            # Whose answer the next one is cannot be known any more.
            said = f": {answer}" if isinstance(answer, ServerError) else ""
            self.abort(ConnectionLost(f"the server sent an answer that nobody had asked for{said}"))

    def connection_lost(self, error: Exception | None) -> None:
        """Nobody gets an answer any more."""
        if not self._gone.done():
            self._gone.set_result(None)
        self._fail(ConnectionLost(str(error) if error else "the server closed the connection"))

    # Its end

    def retire(self) -> None:
        """Take no more commands, and close when all answers have come."""
        if not self.closed:
            self._flush()
            self.closed = True
            if not self._waiting:
                self._transport.close()

    def abort(self, error: Exception) -> None:
        """Cut the connection at once; what is awaited fails with this error."""
        if self._transport is not None:
            self._transport.abort()
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                # One each: whoever raises it writes a traceback into it.
                future.set_exception(ConnectionLost(*error.args))
        if not self._ended.done():
            self._ended.set_result(None)

    async def ended(self) -> None:
        """Wait until the connection is gone, for whatever reason."""
        await asyncio.shield(self._ended)

    def when_ended(self, call: Callable[[], None]) -> None:
        """Have this called, in the loop, when the connection is gone."""
        self._ended.add_done_callback(lambda _: call())

    async def close(self) -> None:
        """Close the connection, after what was sent has been written. May be repeated."""
        if not self._gone.done():
            self._flush()
            self._transport.close()
            self._fail(ConnectionLost("the connection was closed here"))
            await asyncio.wait([self._gone], timeout=_PARTING)
        if not self._gone.done():
            # It hears nothing, so it cannot part in order either.
            self._transport.abort()
            await asyncio.wait([self._gone], timeout=_PARTING)

    def abandon(self) -> None:
        """Close the socket although the event loop is gone: from any thread, without waiting. May be repeated."""
        self.closed = True
        if self._transport is None or self._gone.done():
            return
        if not self._loop.is_closed():
            # It may run in another thread, or never again.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.abort, ConnectionLost("the connection was abandoned"))
            return
        let_go(self._transport, self._loop)


_WITHIN_SCRIPT = re.compile(r"ERR Error running script .*?-([A-Z]{2,} .*)", re.DOTALL)
"""Redis 6.2 wraps an error that a command in a script has met."""


def _error(text: str) -> ServerError:
    within = _WITHIN_SCRIPT.match(text) if text.startswith("ERR E") else None
    return ServerError(within[1] if within else text)
