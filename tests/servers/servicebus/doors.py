"""The port that clients come in by: it can be shut and opened again."""

from __future__ import annotations

import asyncio
import time

from tests.servers.servicebus.amqp.connection import Connection
from tests.servers.servicebus.service import Service

__all__ = ["Doors"]


class Doors:
    """Listens on the loopback address."""

    def __init__(self, service: Service, port: int) -> None:
        self._service = service
        self._server: asyncio.Server | None = None
        self.port = port

    async def open(self) -> None:
        """Take connections. Raises `OSError` if somebody else has the port."""
        if self._server is None:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._connection, "127.0.0.1", self.port, backlog=1024)
            self.port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Refuse connections; those that are there stay."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _connection(self) -> asyncio.Protocol:
        return Connection(self._service, time.monotonic)
