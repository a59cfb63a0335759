"""Connections of the wire for tests, in each kind of event loop, and servers that say what they are told."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import uvloop
from camora_amqp import frames
from camora_amqp.errors import Refused, WireLost
from camora_amqp.link import connect
from camora_amqp.messages import Outgoing
from camora_amqp.store import Store
from camora_amqp.wire import Channel, Wire
from pamqp import commands

T = TypeVar("T")
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def run(loop: str, main: Coroutine[Any, Any, T]) -> T:
    """Run it in a loop of this kind, which is closed then; what it left open is a warning, and so an error."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        result = runner.run(main)
    gc.collect()
    return result


@contextlib.asynccontextmanager
async def wire_to(url: str, *, heartbeat: float = 20.0) -> AsyncIterator[Wire]:
    """A connection, closed at the end."""
    wire = await connect(Store.of_url(url), purpose="test", heartbeat=heartbeat)
    try:
        yield wire
    finally:
        await wire.close()


async def failure_of(url: str) -> WireLost | Refused:
    """Why no connection comes about."""
    try:
        wire = await connect(Store.of_url(url), purpose="test", heartbeat=20.0)
    except (WireLost, Refused) as error:
        return error
    await wire.close()
    raise AssertionError("it connects")


async def declare(channel: Channel, queue: str, **arguments: Any) -> None:
    """A queue that goes with its connection."""
    await channel.call(commands.Queue.Declare(0, queue, exclusive=True, arguments=arguments))


async def listen(channel: Channel, queue: str) -> asyncio.Queue[frames.Deliver]:
    """All that a queue delivers from now on."""
    came: asyncio.Queue[frames.Deliver] = asyncio.Queue()
    channel.on_deliver = came.put_nowait
    await channel.call(commands.Basic.Consume(0, queue, "test"))
    return came


def message(key: str, body: bytes, name: str = "m", exchange: str = "") -> Outgoing:
    """A message on its way to a queue."""
    return Outgoing(name, exchange, key, frames.properties(message_id=name), body)


@contextlib.asynccontextmanager
async def telling(tell: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[int]:
    """A port of a server that does with each connection what `tell` does."""
    writers: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        with contextlib.suppress(OSError):
            await tell(reader, writer)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()
        await asyncio.sleep(0)
