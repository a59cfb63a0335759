"""In which order a worker takes what there is, where scripts look at several streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from camora.clock import SYSTEM_CLOCK
from camora.interfaces.broker import Consumer, ConsumerSettings
from camora.testing.conformance.making import ack, envelope
from camora_redis import RedisBroker

from tests.servers.fixtures import fresh_url


@pytest.fixture
async def broker() -> AsyncIterator[RedisBroker]:
    broker = RedisBroker.from_url(fresh_url())
    await broker.open()
    yield broker
    await broker.close()


async def consumer_of(broker: RedisBroker, *queues: str, lease: float = 30.0) -> Consumer:
    return await broker.consumer(ConsumerSettings(queues=queues, worker="w", lease=lease, prefetch=1))


async def test_a_paused_queue_does_not_disturb_the_priorities_of_another(broker: RedisBroker) -> None:
    consumer = await consumer_of(broker, "paused", "work")
    await broker.queues.pause("paused")
    await broker.publish([envelope(body=b"first"), envelope(body=b"urgent", priority=5), envelope(body=b"last")])
    assert [one.body for one in await consumer.receive(2, 5.0)] == [b"urgent", b"first"]
    await consumer.close()


async def test_what_is_urgent_comes_before_what_was_given_up_by_others(broker: RedisBroker) -> None:
    gone, consumer = await consumer_of(broker, "work", lease=0.2), await consumer_of(broker, "work")
    await broker.publish([envelope(body=b"old"), envelope(body=b"old")])
    assert len(await gone.receive(2, 5.0)) == 2
    await asyncio.sleep(0.3)  # their leases lapse
    await broker.publish([envelope(body=b"urgent", priority=5)])
    taken = await consumer.receive(2, 5.0)
    assert [(one.body, one.deliveries) for one in taken] == [(b"urgent", 1), (b"old", 2)]
    await gone.close()
    await consumer.close()


async def test_the_first_message_of_a_priority_comes_when_it_is_due(broker: RedisBroker) -> None:
    consumer = await consumer_of(broker, "work")
    due = SYSTEM_CLOCK.now_ms() + 200
    await broker.publish([envelope(priority=5, due=due)])
    async with asyncio.timeout(2.0):  # and not only when the worker looks anyway
        [delivery] = await consumer.receive(1, 10.0)
    assert await consumer.settle([ack(delivery)]) == [True]
    await consumer.close()


@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
async def test_who_waits_at_a_plain_queue_takes_the_first_urgent_message_first(
    broker: RedisBroker, known: bool
) -> None:
    consumer = await consumer_of(broker, "work")
    if known:  # and hidden while the queue is paused
        await broker.publish([envelope(priority=5)])
        await broker.queues.pause("work")
    assert not await consumer.receive(1, 0)
    await broker.queues.pause("work", paused=False)
    await broker.queues.purge("work")
    await broker.publish([envelope(body=b"first"), envelope(body=b"urgent", priority=5), envelope(body=b"last")])
    taken = [one.body for _ in range(3) for one in await consumer.receive(1, 5.0)]
    assert taken == [b"urgent", b"first", b"last"]
    await consumer.close()
