"""Many large messages and results: they travel in parts that get through."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from camora.interfaces.broker import ConsumerSettings
from camora.message import Delivery
from camora.testing.conformance.making import ack, envelope, job_record
from camora_redis import RedisBroker
from camora_redis.batches import batches

from tests.servers.fixtures import private

LARGE = b"x" * 1_000_000


@pytest.fixture
async def broker() -> AsyncIterator[RedisBroker]:
    """At a server that cuts connections on which too much comes at once."""
    with private("redis") as server:
        server.cli("CONFIG", "SET", "maxmemory-clients", "12mb")
        broker = RedisBroker.from_url(server.url)
        await broker.open()
        yield broker
        await broker.close()


async def test_large_results_are_settled_together(broker: RedisBroker) -> None:
    consumer = await broker.consumer(ConsumerSettings(queues=("work", "other"), worker="w", lease=60.0))
    await broker.publish([envelope(queue) for queue in ("work", "other") for _ in range(20)])
    found: list[Delivery] = []
    while len(found) < 40:
        found += await consumer.receive(40, 5.0)
    settlements = [ack(one, record=job_record(one.id, value=LARGE)) for one in found]
    assert await consumer.settle(settlements) == [True] * 40


async def test_large_messages_are_published_together(broker: RedisBroker) -> None:
    messages = [envelope(queue, LARGE) for queue in ("work", "other") for _ in range(20)]
    assert await broker.publish(messages) == [one.id for one in messages]


async def test_large_messages_of_many_callers_are_published_together(broker: RedisBroker) -> None:
    messages = [envelope(body=LARGE) for _ in range(40)]
    found = await asyncio.gather(*(broker.publish([one]) for one in messages))
    assert found == [[one.id] for one in messages]


def test_batches_are_cut_by_number_and_by_size() -> None:
    assert [len(batch) for batch in batches(range(1100), lambda _: 1)] == [500, 500, 100]
    assert list(batches([3, 3, 3, 20, 1, 1], lambda size: size, 6)) == [[3, 3], [3], [20], [1, 1]]
    assert list(batches([], len)) == []
