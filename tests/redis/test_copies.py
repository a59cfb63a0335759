"""Waiting for replicas: nobody waits for the replicas of others."""

from __future__ import annotations

import asyncio

from camora.errors import DispatchError
from camora.testing.conformance.making import envelope
from camora_redis import RedisBroker

from tests.servers.fixtures import private


async def test_dispatches_wait_for_replicas_beside_each_other() -> None:
    with private("redis") as server:
        # No replica ever has it, and the wait is long: all must be waiting before the first one has ended.
        broker = RedisBroker.from_url(f"{server.url}?wait_timeout=30")
        await broker.open()
        waiting = [
            asyncio.create_task(broker.publish([envelope(f"q{number}", options={"wait_replicas": 1})]))
            for number in range(8)
        ]
        async with asyncio.timeout(60):
            while server.cli("CLIENT", "LIST").count("cmd=wait") < 8:
                await asyncio.sleep(0.02)
        for task in waiting:
            task.cancel()
        await asyncio.wait(waiting)
        assert all(task.cancelled() or isinstance(task.exception(), DispatchError) for task in waiting)
        await broker.close()
