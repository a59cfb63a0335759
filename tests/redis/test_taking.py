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

from tests.redis.blocked import blocked
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
    async with asyncio.timeout(60):
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


def cancel_all() -> None:
    """What a job may do that knows no better."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


async def test_what_comes_after_every_task_was_cancelled_is_not_lost_to_a_wait(broker: RedisBroker) -> None:
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="w", lease=600.0))
    receiving = asyncio.create_task(consumer.receive(1, 5.0))
    await blocked()
    cancel_all()
    await asyncio.wait([receiving])
    mine = envelope()
    await broker.publish([mine])
    [found] = await take(consumer, 1)
    assert (found.id, found.deliveries) == (mine.id, 1)
    await consumer.close()


async def test_what_a_look_takes_while_every_task_is_cancelled_is_not_lost(broker: RedisBroker, url: str) -> None:
    server = shared("redis")
    with Proxy(("127.0.0.1", server.port)) as proxy:
        near = RedisBroker.from_url(url.replace(str(server.port), str(proxy.port)))
        await near.open()
        consumer = await near.consumer(ConsumerSettings(queues=("work", "other"), worker="w", lease=600.0))
        assert not await consumer.receive(1, 0)
        mine = envelope()
        await broker.publish([mine])
        proxy.delay(0.2)
        receiving = asyncio.create_task(consumer.receive(1, 0))
        await asyncio.sleep(0)  # it begins, and its command is on its way
        await asyncio.sleep(0)
        cancel_all()
        await asyncio.wait([receiving])
        proxy.heal()
        [found] = await take(consumer, 1)
        assert (found.id, found.deliveries) == (mine.id, 1)
        await consumer.close()
        await near.close()


async def test_what_was_taken_beyond_the_room_goes_to_others(broker: RedisBroker) -> None:
    full, idle = [
        await broker.consumer(ConsumerSettings(queues=("one", "two"), worker=name, lease=600.0))
        for name in ("full", "idle")
    ]
    assert not await full.receive(1, 0)
    receiving = asyncio.create_task(full.receive(10, 20.0))
    await blocked()
    receiving.cancel()
    await asyncio.wait([receiving])
    messages = [envelope(queue) for queue in ("one", "two") for _ in range(3)]
    await broker.publish(messages)
    found = await take(full, 1)
    found += await take(idle, 5)
    assert sorted(one.id for one in found) == sorted(one.id for one in messages)
    assert {one.deliveries for one in found} == {1}
    await full.close()
    await idle.close()


async def test_the_same_id_in_two_queues_is_two_jobs_when_a_connection_breaks(broker: RedisBroker, url: str) -> None:
    server = shared("redis")
    with Proxy(("127.0.0.1", server.port)) as proxy:
        near = RedisBroker.from_url(url.replace(str(server.port), str(proxy.port)))
        await near.open()
        consumer = await near.consumer(ConsumerSettings(queues=("one", "two"), worker="w", lease=600.0))
        await broker.publish([envelope("one", id="same")])
        held = await take(consumer, 1)
        await broker.publish([envelope("two", id="same")])
        held += await take(consumer, 1)
        receiving = asyncio.create_task(consumer.receive(1, 5.0))
        await blocked()
        proxy.cut()
        await asyncio.wait([receiving])
        last = envelope("one")
        await broker.publish([last])
        assert [one.id for one in await take(consumer, 1)] + list(await consumer.receive(2, 0)) == [last.id]
        assert await consumer.settle([ack(one) for one in held]) == [True, True]
        await consumer.close()
        await near.close()


async def test_who_stops_gives_back_what_a_look_takes_whose_caller_is_gone(broker: RedisBroker, url: str) -> None:
    server = shared("redis")
    with Proxy(("127.0.0.1", server.port)) as proxy:
        near = RedisBroker.from_url(url.replace(str(server.port), str(proxy.port)))
        await near.open()
        consumer = await near.consumer(ConsumerSettings(queues=("one", "two"), worker="w", lease=600.0))
        assert not await consumer.receive(1, 0)
        await broker.publish([envelope("one")])
        proxy.delay(0.2)
        receiving = asyncio.create_task(consumer.receive(1, 0))
        for _ in range(3):
            await asyncio.sleep(0)  # it begins, and its command is on its way
        receiving.cancel()
        await asyncio.wait([receiving])
        await consumer.stop()
        await near.publish([envelope("behind it")])
        proxy.heal()
        other = await broker.consumer(ConsumerSettings(queues=("one", "two"), worker="other", lease=600.0))
        [found] = await take(other, 1)
        assert found.deliveries == 1
        for each in (consumer, other, near):
            await each.close()
