"""What a worker takes on Redis, when answers are lost on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from camora.errors import BrokerUnavailable
from camora.interfaces.broker import Consumer, ConsumerSettings
from camora.message import Delivery
from camora.testing.conformance.making import ack, envelope
from camora_redis import RedisBroker

from tests.servers.fixtures import fresh_url, shared
from tests.servers.proxy import Proxy


@pytest.fixture
def url() -> str:
    return fresh_url("redis")


@pytest.fixture
async def broker(url: str) -> AsyncIterator[RedisBroker]:
    broker = RedisBroker.from_url(url)
    await broker.open()
    yield broker
    await broker.close()


async def take(consumer: Consumer, count: int) -> list[Delivery]:
    """So many, though the first tries may fail."""
    found: list[Delivery] = []
    async with asyncio.timeout(20):
        while len(found) < count:
            try:
                found += await consumer.receive(count - len(found), 1.0)
            except BrokerUnavailable:
                await asyncio.sleep(0.01)
    return found


@pytest.mark.parametrize("waiting", [False, True], ids=["looking", "waiting"])
async def test_what_was_lent_with_a_lost_answer_comes_long_before_its_lease_lapses(
    broker: RedisBroker, url: str, waiting: bool
) -> None:
    server = shared("redis")
    with Proxy(("127.0.0.1", server.port)) as proxy:
        near = RedisBroker.from_url(url.replace(str(server.port), str(proxy.port)))
        await near.open()
        # Of one plain queue a worker takes by waiting alone; at several it looks first.
        queues = ("work",) if waiting else ("work", "other")
        consumer = await near.consumer(ConsumerSettings(queues=queues, worker="w", lease=600.0))
        mine = envelope()
        await broker.publish([mine])
        [held] = await take(consumer, 1)
        messages = [envelope() for _ in range(3)]
        if waiting:
            lost = proxy.drop_next_reply(to=b"XREADGROUP")
            receiving = asyncio.create_task(take(consumer, 3))
            await blocked()
            await broker.publish(messages)
            found = await receiving
        else:
            await broker.publish(messages)
            lost = proxy.drop_next_reply(to=b"EVALSHA")
            found = await take(consumer, 3)
        assert lost.is_set()
        assert [one.id for one in found] == [one.id for one in messages]
        assert [one.deliveries for one in found] == [1, 1, 1]
        assert await consumer.settle([ack(one) for one in [held, *found]]) == [True] * 4
        await consumer.close()
        await near.close()


async def blocked() -> None:
    """Wait until somebody waits at the streams."""
    with shared("redis").connection() as connection:
        async with asyncio.timeout(20):
            while "cmd=xreadgroup" not in connection.call("CLIENT", "LIST"):
                await asyncio.sleep(0.005)
