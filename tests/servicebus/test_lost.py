"""What must not lose a job, nor run one again and again: each of these was seen to happen once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from camora.errors import BrokerUnavailable, DispatchError, MessageTooLarge
from camora_servicebus import ServiceBusQueue

from tests.servers.servicebus import ServiceBusServer
from tests.servicebus.holding import (
    ack,
    bury,
    consuming,
    publish,
    retry,
    settle,
    take,
)
from tests.servicebus.sending import envelope, new_name, opened, stored


@pytest.fixture(scope="module")
def shared() -> Iterator[ServiceBusServer]:
    with ServiceBusServer() as server:
        yield server


@pytest.fixture
def queue(shared: ServiceBusServer) -> str:
    return shared.create_queue(new_name())


@pytest.fixture
def own() -> Iterator[ServiceBusServer]:
    """One to which anything may be done."""
    with ServiceBusServer() as server:
        server.create_queue("q")
        yield server


async def test_what_cannot_be_stored_makes_no_other_job_be_stored_again(shared: ServiceBusServer, queue: str) -> None:
    missing = new_name("missing")
    async with consuming(shared, queue) as (broker, consumer):
        await publish(broker, queue, range(2))
        first, second = await take(consumer, 2)
        await consumer.stop()
        stuck, again = ack(first, successors=(envelope(missing, 7),)), retry(second)
        assert list(await consumer.settle([stuck, again])) == [None, True]
        with pytest.raises(BrokerUnavailable, match="camora servicebus apply"):
            await consumer.settle([stuck])
        shared.create_queue(missing)
        assert await settle(consumer, stuck) == [True]
    assert stored(shared, queue) == [f"{second.id}:1"], "the retry was stored more than once"
    assert stored(shared, missing) == ["job-7"]


async def test_of_several_followers_none_is_stored_again_because_another_cannot_be(
    shared: ServiceBusServer, queue: str
) -> None:
    there, missing = shared.create_queue(new_name("there")), new_name("missing")
    async with consuming(shared, queue) as (broker, consumer):
        await publish(broker, queue, [1])
        [one] = await take(consumer)
        ended = ack(one, successors=(envelope(there, 5), envelope(missing, 6)))
        for _ in range(3):
            with pytest.raises(BrokerUnavailable, match="camora servicebus apply"):
                await consumer.settle([ended])
        shared.create_queue(missing)
        assert await settle(consumer, ended) == [True]
    assert stored(shared, there) == ["job-5"]


async def test_a_follower_that_no_queue_takes_is_told_and_holds_up_nobody(shared: ServiceBusServer, queue: str) -> None:
    async with consuming(shared, queue, max_message_size=1024 * 1024) as (broker, consumer):
        await publish(broker, queue, range(2))
        first, second = await take(consumer, 2)
        await consumer.stop()
        # Larger than this entity takes, which only its link says.
        huge, again = ack(first, successors=(envelope(queue, 7, body=b"x" * 400_000),)), retry(second)
        assert list(await consumer.settle([huge, again])) == [None, True]
        with pytest.raises(MessageTooLarge):
            await consumer.settle([huge])
        # As the worker does with what cannot be settled.
        assert await settle(consumer, bury(first)) == [True]
    assert stored(shared, queue) == [f"{second.id}:1"]
    assert shared.counts(queue)["dead"] == 1


async def test_a_time_that_the_wire_cannot_carry_is_refused(shared: ServiceBusServer, queue: str) -> None:
    async with opened(shared) as broker:
        async with asyncio.timeout(30):
            with pytest.raises((DispatchError, ValueError)):
                await broker.publish([envelope(queue, 1, due=2**70)])
            await broker.publish([envelope(queue, 2)])
    assert stored(shared, queue) == ["job-2"]


@pytest.mark.parametrize("how", ["disabled", "refused"])
async def test_a_queue_that_lets_nobody_in_is_not_hammered(own: ServiceBusServer, how: str) -> None:
    async with consuming(own, "q") as (broker, consumer):
        await publish(broker, "q", [1])
        [one] = await take(consumer)
        assert await settle(consumer, ack(one)) == [True]
        if how == "disabled":
            own.update_queue("q", status="ReceiveDisabled")
        else:
            own.fault("attach_refused", "q", condition="amqp:unauthorized-access")
        own.detach("q")
        with pytest.raises(BrokerUnavailable):
            for _ in range(20):
                await consumer.receive(1, 1.0)
        before = len(own.events("attaching", entity="q"))
        await asyncio.sleep(3)
        assert len(own.events("attaching", entity="q")) - before <= 6
        own.clear()
        own.update_queue("q", status="Active")
        await publish(broker, "q", [2])
        [two] = await take(consumer)
        assert await settle(consumer, ack(two)) == [True]


async def test_two_letters_of_one_job_make_one_job_where_duplicates_are_detected(shared: ServiceBusServer) -> None:
    name = shared.create_queue(new_name(), requires_duplicate_detection=True)
    letters = f"{name}/$deadletterqueue"
    async with consuming(shared, name, timeout=1.0) as (broker, consumer):
        broker.declare([ServiceBusQueue(name, duplicate_detection=600)])
        await publish(broker, name, [1])
        [one] = await take(consumer)
        assert await settle(consumer, bury(one)) == [True]
        # Whoever requeues it is killed before the letter is deleted.
        shared.fault("settle_lost", letters, how="silent")
        shared.fault("management_silent", letters, operation="update-disposition")
        with pytest.raises(BrokerUnavailable):
            await broker.dead_letters.requeue(one.id)
        shared.clear()
        shared.expire_locks(letters)
        [again] = await take(consumer)
        assert await settle(consumer, bury(again)) == [True]
        assert shared.counts(name)["dead"] == 2
        assert await broker.dead_letters.requeue(one.id)
        [last] = await take(consumer)
        assert last.id == one.id
        assert await settle(consumer, ack(last)) == [True]
    assert shared.counts(name)["dead"] == 0
