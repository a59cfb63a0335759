"""One port for both: who begins with AMQP gets AMQP, all others get HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tests.servers.servicebus.web import Answer, Asked, Conversation

__all__ = ["Knock", "Web"]

_AMQP = b"AMQP"


class Web(asyncio.Protocol):
    """A connection of HTTP."""

    def __init__(self, answer: Callable[[Asked], Answer]) -> None:
        self._conversation = Conversation(answer)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(self._conversation.feed(data))
        if self._conversation.closed:
            self._transport.close()


class Knock(asyncio.Protocol):
    """Waits for the first bytes, and hands the connection over to whom they are for. Clients speak first in both."""

    def __init__(self, amqp: Callable[[], asyncio.Protocol], answer: Callable[[Asked], Answer]) -> None:
        self._amqp = amqp
        self._answer = answer
        self._first = b""
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._first += data
        if _AMQP.startswith(self._first[: len(_AMQP)]) and len(self._first) < len(_AMQP):
            return
        assert isinstance(self._transport, asyncio.Transport)
        protocol = self._amqp() if self._first.startswith(_AMQP) else Web(self._answer)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(self._first)
