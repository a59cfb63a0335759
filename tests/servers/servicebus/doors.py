"""The port that clients come in by, with AMQP, WebSockets or HTTP. It can be shut and opened again."""

from __future__ import annotations

import asyncio
import ssl
import time

from tests.servers.servicebus.admin import Administration
from tests.servers.servicebus.amqp.connection import Connection
from tests.servers.servicebus.service import Service
from tests.servers.servicebus.web import Conversation
from tests.servers.servicebus.websocket import WebSocket, asks_for

__all__ = ["Doors"]


class Doors:
    """Listens on the loopback address."""

    def __init__(
        self, service: Service, administration: Administration, port: int, tls: ssl.SSLContext | None = None
    ) -> None:
        self._service = service
        self._administration = administration
        self._tls = tls
        self._server: asyncio.Server | None = None
        self.port = port

    async def open(self) -> None:
        """Take connections. Raises `OSError` if somebody else has the port."""
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._guest, "127.0.0.1", self.port, backlog=1024, ssl=self._tls)
            self.port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Refuse connections; those that are there stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _guest(self) -> asyncio.Protocol:
        return _Guest(self._service, self._administration)


class _Guest(asyncio.Protocol):
    """Somebody of whom nothing is known until he has said something: a connection string names one port for all."""

    def __init__(self, service: Service, administration: Administration) -> None:
        self._service = service
        self._administration = administration
        self._transport: asyncio.Transport | None = None
        self._said = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._said += data
        if len(self._said) < 4 or self._transport is None:
            return
        protocol: asyncio.Protocol
        if self._said.startswith(b"AMQP"):
            protocol = Connection(self._service, time.monotonic)
        elif b"\r\n\r\n" not in self._said and self._said.startswith(b"GET "):
            return  # what else it wants stands in the headers
        elif asks_for(self._said):
            protocol = WebSocket(Connection(self._service, time.monotonic))
        else:
            protocol = _Clerk(self._administration)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(self._said)


class _Clerk(asyncio.Protocol):
    """One connection over HTTP."""

    def __init__(self, administration: Administration) -> None:
        self._conversation = Conversation(administration)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(self._conversation.feed(data))
        if self._conversation.closed:
            self._transport.close()
