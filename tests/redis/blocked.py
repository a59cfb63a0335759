"""When the clients of the shared server wait."""

from __future__ import annotations

import asyncio

from tests.servers.fixtures import shared


async def blocked(count: int = 1) -> None:
    """Wait until so many wait at the streams."""
    with shared("redis").connection() as connection:
        async with asyncio.timeout(60):
            while _waiting(connection.call("CLIENT", "LIST")) < count:
                await asyncio.sleep(0.005)


def _waiting(clients: str) -> int:
    return sum(" flags=b " in line and " cmd=xreadgroup " in line for line in clients.splitlines())
