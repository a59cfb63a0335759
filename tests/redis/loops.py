"""The event loops that everything must work in, and a server that answers what a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import uvloop
from redis.asyncio.connection import Connection

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
        await asyncio.sleep(0.01)


async def bare(port: int) -> Connection:
    """A connection of the redis client's that says nothing by itself."""
    connection = Connection(host="127.0.0.1", port=port, protocol=2, driver_info=None)
    await connection.connect()  # type: ignore[no-untyped-call]
    return connection
