"""In which order a worker takes what there is, where scripts look at several streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from camora.clock import SYSTEM_CLOCK
from camora.interfaces.broker import Consumer, ConsumerSettings
from camora.message import Delivery
from camora.testing.conformance.making import ack, envelope
from camora_redis import RedisBroker

from tests.redis.blocked import blocked
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
    async with asyncio.timeout(4.0):  # and not only when the worker looks anyway
        [delivery] = await consumer.receive(1, 60.0)
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


async def waiters(broker: RedisBroker, count: int) -> list[asyncio.Task[Sequence[Delivery]]]:
    """So many workers with room for one each, all waiting."""
    consumers = [await consumer_of(broker, "work", lease=600.0) for _ in range(count)]

    async def one(consumer: Consumer) -> Sequence[Delivery]:
        found: Sequence[Delivery] = ()
        while not found:
            found = await consumer.receive(1, 60.0)
        await consumer.close()
        return found

    tasks = [asyncio.create_task(one(consumer)) for consumer in consumers]
    await blocked(count)
    return tasks


async def test_a_batch_of_urgent_messages_wakes_as_many_workers(broker: RedisBroker) -> None:
    tasks = await waiters(broker, 12)
    await broker.publish([envelope(priority=5) for _ in range(12)])
    async with asyncio.timeout(4.0):  # and not only when they look anyway
        assert sum(len(found) for found in await asyncio.gather(*tasks)) == 12


async def test_urgent_messages_that_come_due_together_wake_as_many_workers(broker: RedisBroker) -> None:
    tasks = await waiters(broker, 4)
    due = SYSTEM_CLOCK.now_ms() + 200
    await broker.publish([envelope(priority=5, due=due) for _ in range(4)])
    async with asyncio.timeout(4.0):
        assert sum(len(found) for found in await asyncio.gather(*tasks)) == 4


async def test_what_is_due_comes_though_who_was_told_of_it_is_busy(broker: RedisBroker) -> None:
    told, idle = [await consumer_of(broker, "work", lease=600.0) for _ in range(2)]
    tasks = []
    for consumer in (told, idle):  # the first to wait is the one that is told
        tasks.append(asyncio.create_task(consumer.receive(1, 60.0)))
        await blocked(len(tasks))
    mine = envelope(due=SYSTEM_CLOCK.now_ms() + 1000)
    await broker.publish([mine])
    await blocked(2)
    await asyncio.sleep(0.2)  # it looks and waits again; where it does not yet, this shows nothing
    tasks[0].cancel()
    await asyncio.wait([tasks[0]])
    await told.close()
    async with asyncio.timeout(60):  # looks are five seconds apart, not a third of the lease
        [found] = await tasks[1]
    assert found.id == mine.id
    await idle.close()


async def test_what_a_dead_worker_of_short_leases_held_comes_soon_to_one_of_long_leases(broker: RedisBroker) -> None:
    idle, dead = await consumer_of(broker, "work", lease=600.0), await consumer_of(broker, "work", lease=2.0)
    assert not await idle.receive(1, 0)
    await broker.publish([envelope()])
    [lost] = await dead.receive(1, 5.0)
    async with asyncio.timeout(60):
        [found] = await idle.receive(1, 60.0)
    assert (found.id, found.deliveries) == (lost.id, 2)
    await idle.close()
    await dead.close()
