"""What tests of dispatching share: envelopes, brokers that are closed at the end, and the service's own view of it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import uuid4

from azure.servicebus.aio import ServiceBusClient
from camora.message import Envelope
from camora.queue import Queue
from camora_servicebus import ServiceBusBroker, ServiceBusSettings, internals

from tests.servers.servicebus import ServiceBusServer

LIMIT = 60.0


def new_name(what: str = "q") -> str:
    """A name that no other test has."""
    return f"{what}-{uuid4().hex[:10]}"


def envelope(queue: str, number: int = 0, *, body: bytes = b"{}", due: int = 0, **more: Any) -> Envelope:
    """A job's, named by a number."""
    return Envelope(id=f"job-{number}", task="shop.tell", queue=queue, body=body, due=due, **more)


def in_future(seconds: float) -> int:
    """Then, in milliseconds since the epoch."""
    return int((time.time() + seconds) * 1000)


def broker_of(server: ServiceBusServer, *queues: Queue, port: int = 0, **settings: Any) -> ServiceBusBroker:
    """A broker on the emulator, not open yet; perhaps by way of a proxy's port."""
    text = server.connection_string_of(port=port or None)
    given = {"connection_string": text, "timeout": 5.0, **settings}
    made = ServiceBusBroker(None, ServiceBusSettings(**given))
    made.declare(queues)
    return made


@contextlib.asynccontextmanager
async def opened(server: ServiceBusServer, *queues: Queue, **settings: Any) -> AsyncIterator[ServiceBusBroker]:
    """The same, open, and closed at the end."""
    broker = broker_of(server, *queues, **settings)
    await broker.open()
    try:
        yield broker
    finally:
        await broker.close()


def stored(server: ServiceBusServer, queue: str) -> list[str]:
    """The message ids that a queue has, oldest first, scheduled ones too."""
    return [one["message_id"] for one in server.messages(queue)]


async def until(true: Callable[[], Any], what: str) -> None:
    """Wait until it is so, for a minute at most."""
    deadline = time.monotonic() + LIMIT
    while not await asyncio.to_thread(true):
        assert time.monotonic() < deadline, f"not within {LIMIT:g} s: {what}"
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def bare(server: ServiceBusServer) -> AsyncIterator[ServiceBusClient]:
    """The client of the service's own, without anything of ours."""
    async with ServiceBusClient.from_connection_string(server.connection_string) as client:
        yield client


async def received(server: ServiceBusServer, queue: str, count: int = 1) -> list[Any]:
    """Messages as that client gets them, taken off the queue."""
    found: list[Any] = []
    async with bare(server) as client, client.get_queue_receiver(queue) as receiver:
        while len(found) < count:
            came = await receiver.receive_messages(count - len(found), max_wait_time=10)
            assert came, f"{len(found)} of {count} came"
            for message in came:
                await receiver.complete_message(message)
            found += came
    return found


async def ended(broker: ServiceBusBroker) -> None:
    """The news that a connection has ended has come to this side of it."""
    [line] = broker._publisher._lines.values()
    assert line._sender is not None
    await until(lambda: not internals.silent(line._sender), "the connection has ended")
