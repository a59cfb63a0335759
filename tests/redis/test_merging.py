"""Publications that travel together, when their tasks are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from camora.testing.conformance.making import envelope
from camora_redis import RedisBroker

from tests.servers.fixtures import fresh_url


@pytest.fixture
async def broker() -> AsyncIterator[RedisBroker]:
    broker = RedisBroker.from_url(fresh_url("redis"))
    await broker.open()
    yield broker
    await broker.close()


async def test_others_go_on_after_somebody_has_cancelled_every_task(broker: RedisBroker) -> None:
    main = asyncio.current_task()

    async def publish_and_cancel() -> None:
        await broker.publish([envelope()])
        for task in asyncio.all_tasks() - {asyncio.current_task(), main}:
            task.cancel()

    first = asyncio.create_task(publish_and_cancel())
    await asyncio.sleep(0)
    others = [asyncio.create_task(broker.publish([envelope()])) for _ in range(2)]
    await first
    late = envelope()
    async with asyncio.timeout(60):
        # The one that comes in the same moment, and one that comes afterwards.
        assert await broker.publish([late]) == [late.id]
        await asyncio.wait(others)
        assert await broker.publish([late]) == [late.id]
    assert all(other.cancelled() for other in others)
