"""The limits of the service: what is refused, when, and with which words; what is made to fit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from camora.errors import DispatchError, MessageTooLarge
from camora.message import Envelope
from camora_servicebus import ServiceBusQueue

from tests.servers.servicebus import ServiceBusServer
from tests.servicebus.holding import ack, consuming, settle, take
from tests.servicebus.sending import envelope, new_name, opened, stored

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def standard() -> Iterator[ServiceBusServer]:
    with ServiceBusServer() as server:
        yield server


@pytest.fixture(scope="module")
def premium() -> Iterator[ServiceBusServer]:
    with ServiceBusServer(tier="premium") as server:
        yield server


def job(queue: str, name: str = "job-0", body: bytes = b"x", **options: Any) -> Envelope:
    return Envelope(id=name, task="shop.tell", queue=queue, body=body, options=options or None)


@pytest.mark.parametrize("length", [1, 126, 127, 128, 129, 500])
async def test_ids_of_jobs_of_any_length_come_back_whole_and_message_ids_fit(
    standard: ServiceBusServer, length: int
) -> None:
    queue, name = standard.create_queue(new_name()), "i" * length
    async with consuming(standard, queue) as (broker, consumer):
        await broker.publish([job(queue, name)])
        assert len(stored(standard, queue)[0]) <= 128
        [found] = await take(consumer)
        assert found.id == name
        await settle(consumer, ack(found))


async def test_long_ids_that_differ_at_their_end_are_not_taken_for_repetitions(standard: ServiceBusServer) -> None:
    queue = standard.create_queue(new_name(), requires_duplicate_detection=True)
    async with opened(standard, ServiceBusQueue(queue, duplicate_detection=600)) as broker:
        await broker.publish([job(queue, "i" * 200 + end) for end in "ab"])
        await broker.publish([job(queue, "i" * 200 + "a")])
    assert len(set(stored(standard, queue))) == 2
    assert standard.counts(queue)["active"] == 2


async def test_a_body_at_the_limit_passes_and_one_beyond_it_is_refused_before_it_is_sent(
    standard: ServiceBusServer,
) -> None:
    queue = standard.create_queue(new_name())
    async with consuming(standard, queue) as (broker, consumer):
        largest = broker.capabilities.largest
        assert largest is not None
        await broker.publish([job(queue, body=b"x" * largest)])
        for more in (1, MIB):
            with pytest.raises(MessageTooLarge) as caught:
                await broker.publish([job(queue, "small"), job(queue, "large", b"x" * (largest + more))])
            assert caught.value.size == largest + more
            assert caught.value.limit == largest
        [found] = await take(consumer)
        assert len(found.body) == largest
        await settle(consumer, ack(found))
    assert standard.counts(queue)["active"] == 0, "nothing of a refused batch was sent"


async def test_what_is_too_large_with_its_properties_is_refused_with_size_and_limit(
    standard: ServiceBusServer,
) -> None:
    queue = standard.create_queue(new_name())
    async with opened(standard) as broker:
        largest = broker.capabilities.largest or 0
        properties = {"note": "n" * 20_000}
        with pytest.raises(MessageTooLarge) as caught:
            await broker.publish([job(queue, body=b"x" * largest, message_properties=properties)])
    assert caught.value.size > 256 * 1024
    assert caught.value.limit == 256 * 1024
    assert stored(standard, queue) == []


async def test_more_than_a_batch_takes_goes_in_several(standard: ServiceBusServer) -> None:
    queue = standard.create_queue(new_name())
    async with opened(standard) as broker:
        await broker.publish([envelope(queue, number, body=b"x" * 100_000) for number in range(7)])
    assert stored(standard, queue) == [f"job-{number}" for number in range(7)]


async def test_premium_takes_what_the_queue_says_when_the_broker_is_told(premium: ServiceBusServer) -> None:
    queue = premium.create_queue(new_name(), max_message_size=4 * MIB)
    body = bytes(range(256)) * (3 * MIB // 256)
    async with consuming(premium, queue, max_message_size=4 * MIB) as (broker, consumer):
        # Larger than any batch: by itself, between others.
        await broker.publish([job(queue, "a"), job(queue, "b", body), job(queue, "c")])
        found = {one.id: one for one in await take(consumer, 3)}
        assert found["b"].body == body
        await settle(consumer, *map(ack, found.values()))
    async with opened(premium) as broker:
        with pytest.raises(MessageTooLarge):
            await broker.publish([job(queue, "d", body)])


async def test_the_link_s_own_limit_is_told_where_the_broker_was_told_a_larger_one(premium: ServiceBusServer) -> None:
    queue = premium.create_queue(new_name(), max_message_size=2 * MIB)
    async with opened(premium, max_message_size=16 * MIB) as broker:
        with pytest.raises(MessageTooLarge) as caught:
            await broker.publish([job(queue, body=b"x" * (3 * MIB))])
        assert caught.value.limit == 2 * MIB
        assert caught.value.size > 3 * MIB
        await broker.publish([job(queue, "fits", b"x" * MIB)])
    assert stored(premium, queue) == ["fits"]


async def test_a_session_id_that_is_too_long_is_refused_at_dispatch(standard: ServiceBusServer) -> None:
    queue = standard.create_queue(new_name(), requires_session=True)
    async with opened(standard, ServiceBusQueue(queue, sessions=True)) as broker:
        await broker.publish([job(queue, "fits", session="s" * 128)])
        with pytest.raises(DispatchError, match="128"):
            await broker.publish([job(queue, "long", session="s" * 129)])
    assert stored(standard, queue) == ["fits"]
