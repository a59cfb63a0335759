"""The management side of the emulator in a thread of a test: what is in it can be looked at, and made to fail."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl
from xml.etree.ElementTree import Element, SubElement, tostring

import pytest
from camora_servicebus.settings import ServiceBusSettings, address_of
from camora_servicebus.store import Store

from tests.servers.servicebus.admin import ERROR, Administration
from tests.servers.servicebus.entities import Namespace, QueueOptions
from tests.servers.servicebus.web import Answer, Asked, Conversation

__all__ = ["Management", "management"]

_MANAGER = "RootManageSharedAccessKey"


class _Cut(Exception):
    """The connection ends here, without an answer."""


class Management:
    """A namespace whose management interface listens on loopback. Faults are for so many requests to come.

    The key named `clerk` may do nothing here, and its refusal reads as the service's.
    """

    def __init__(self, tier: str = "standard") -> None:
        self.namespace = Namespace(tier=tier)
        self._administration = Administration(self.namespace)
        self._lock = threading.RLock()
        self._faults: list[tuple[str, Callable[[Asked], Answer | None]]] = []
        self.asked: list[tuple[str, str]] = []
        """Method and path of each request."""
        self.tokens: list[str] = []
        """How each request said who it is."""
        self.port = 0

    # What goes wrong

    def refuse(self, status: int, text: str, *, times: int = 1, method: str = "") -> None:
        """Answer with this status, and do nothing."""
        self._arm(lambda asked: _error(status, text), times, method)

    def lose(self, *, times: int = 1, method: str = "PUT") -> None:
        """Do it, and cut the connection instead of an answer."""

        def lose(asked: Asked) -> Answer:
            self._administration(asked)
            raise _Cut

        self._arm(lose, times, method)

    def before(self, act: Callable[[], object], *, method: str = "PUT") -> None:
        """Something else happens between two requests of ours; then all goes on."""

        def meanwhile(asked: Asked) -> None:
            act()

        self._arm(meanwhile, 1, method)

    def _arm(self, fault: Callable[[Asked], Answer | None], times: int, method: str) -> None:
        with self._lock:
            self._faults += [(method, fault)] * times

    def _fault(self, method: str) -> Callable[[Asked], Answer | None] | None:
        for number, (wanted, fault) in enumerate(self._faults):
            if wanted in ("", method):
                del self._faults[number]
                return fault
        return None

    def __call__(self, asked: Asked) -> Answer:
        with self._lock:
            self.asked.append((asked.method, asked.path))
            token = asked.headers.get("authorization", "")
            self.tokens.append(token)
            if dict(parse_qsl(token.partition(" ")[2])).get("skn") == "clerk":
                return _error(
                    401,
                    "Manage,EntityRead claims required to perform this operation. To know more visit "
                    "https://example.com/more. TrackingId:1-2-3, SystemTracker:shop, Timestamp:2026-01-01T00:00:00",
                )
            fault = self._fault(asked.method)
            if fault is not None and (answer := fault(asked)) is not None:
                return answer
            return self._administration(asked)

    # What is in it

    def options(self, queue: str) -> QueueOptions:
        """Of a queue, as it is now."""
        with self._lock:
            found: Any = self.namespace.target(queue)
            options: QueueOptions = found.options
            return options

    def create(self, queue: str, **options: Any) -> None:
        """Somebody else makes a queue."""
        self.namespace.create_queue(queue, QueueOptions(**options))

    def names(self) -> list[str]:
        """Of all queues."""
        with self._lock:
            return sorted(one.path for one in self.namespace.queues())

    # For the plugin

    def url(self, key: str = _MANAGER, **query: Any) -> str:
        """Of this namespace: nobody listens for AMQP there."""
        options = {"emulator": "true", "management": f"127.0.0.1:{self.port}", "timeout": "5", **query}
        return f"servicebus://{key}:hunter2@127.0.0.1:1?" + "&".join(
            f"{name}={value}" for name, value in options.items()
        )

    def store(self, key: str = _MANAGER, settings: ServiceBusSettings | None = None, **query: Any) -> Store:
        """The same as the plugin has it."""
        return Store(*address_of(self.url(key, **query), settings))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Listen while the block runs, in a thread."""
        loop = asyncio.new_event_loop()
        server = loop.run_until_complete(asyncio.start_server(self._converse, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        thread = threading.Thread(target=loop.run_forever, name="management of the emulator")
        thread.start()
        try:
            yield
        finally:
            loop.call_soon_threadsafe(server.close)
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            for task in asyncio.all_tasks(loop):
                task.cancel()
                loop.run_until_complete(asyncio.wait([task]))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = Conversation(self)
        try:
            while not conversation.closed and (data := await reader.read(65536)):
                writer.write(conversation.feed(data))
                await writer.drain()
        except (_Cut, ConnectionError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            writer.close()


def _error(status: int, text: str) -> Answer:
    root = Element("Error")
    SubElement(root, "Code").text = str(status)
    SubElement(root, "Detail").text = text
    return Answer(status, tostring(root), ERROR)


@pytest.fixture
def management() -> Iterator[Management]:
    """A namespace with nothing in it."""
    made = Management()
    with made.running():
        yield made
