"""Queues of streams and broadcasts in one worker: what is heard takes nothing away from others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from camora.interfaces.broker import Consumer, ConsumerSettings
from camora.message import Delivery
from camora.queue import Queue
from camora.testing.conformance.making import ack, envelope
from camora_redis import PubSubQueue, RedisBroker
from camora_redis.consumer import RedisConsumer

from tests.redis.blocked import blocked
from tests.servers.fixtures import fresh_url


@pytest.fixture
async def broker() -> AsyncIterator[RedisBroker]:
    broker = RedisBroker.from_url(fresh_url())
    broker.declare([PubSubQueue("mixed-bus"), Queue("work")])
    await broker.open()
    yield broker
    await broker.close()


async def consumer_of(broker: RedisBroker, *queues: str) -> Consumer:
    return await broker.consumer(ConsumerSettings(queues=queues, worker="w", lease=600.0))


async def test_who_is_full_of_what_was_heard_takes_no_job_away(broker: RedisBroker) -> None:
    full, idle = await consumer_of(broker, "mixed-bus", "work"), await consumer_of(broker, "work")
    receiving = asyncio.create_task(full.receive(1, 20.0))
    await blocked()
    await broker.publish([envelope("mixed-bus")])
    [heard] = await receiving
    assert heard.queue == "mixed-bus"
    await broker.publish([envelope("work")])
    async with asyncio.timeout(60):
        [taken] = await idle.receive(1, 20.0)
    assert taken.deliveries == 1
    assert await idle.settle([ack(taken)]) == [True]
    await full.close()
    await idle.close()


async def test_what_comes_in_the_moment_of_a_cancellation_is_handed_out_next(
    broker: RedisBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer = await consumer_of(broker, "mixed-bus", "work")
    received = RedisConsumer.receive

    async def and_cancel(streams: RedisConsumer, *arguments: Any) -> Sequence[Delivery]:
        found = await received(streams, *arguments)
        if found:
            receiving.cancel()
        return found

    with monkeypatch.context() as patched:
        patched.setattr(RedisConsumer, "receive", and_cancel)
        receiving = asyncio.create_task(consumer.receive(1, 20.0))
        await blocked()
        mine = envelope("work")
        await broker.publish([mine])
        await asyncio.wait([receiving])
        assert receiving.cancelled()
    async with asyncio.timeout(60):
        [found] = await consumer.receive(1, 20.0)
    assert (found.id, found.deliveries) == (mine.id, 1)
    assert await consumer.settle([ack(found)]) == [True]
    await consumer.close()
