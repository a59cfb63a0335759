"""Settling: what the service is told, what is sent before, and what holds when its answer is lost."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

import pytest
from camora.errors import BrokerUnavailable
from camora_servicebus import ServiceBusQueue

from tests.servers.servicebus import ServiceBusServer
from tests.servicebus.holding import (
    ack,
    bury,
    by_public_means,
    consuming,
    happened,
    held_by_nobody,
    publish,
    release,
    retry,
    settle,
    take,
    within,
)
from tests.servicebus.sending import bare, envelope, in_future, new_name, stored


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


@pytest.fixture(params=["direct", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "plain":
        by_public_means(monkeypatch)
    return request.param


# What the service is told


async def test_each_end_is_what_the_service_calls_so(shared: ServiceBusServer, queue: str) -> None:
    async with consuming(shared, queue) as (broker, consumer):
        await publish(broker, queue, range(4))
        done, given_up, given_back, dead = await take(consumer, 4)
        await consumer.stop()
        settlements = [ack(done), release(given_up, charged=True), release(given_back), bury(dead, "refused")]
        assert await settle(consumer, *settlements) == [True] * 4
    for kind, id_ in (("completed", done), ("abandoned", given_up), ("released", given_back), ("dead_lettered", dead)):
        assert [event["message_id"] for event in shared.events(kind, entity=queue)] == [id_.id]
    [event] = shared.events("dead_lettered", entity=queue)
    assert event["reason"] == "refused"
    async with consuming(shared, queue) as (_, consumer):
        counts = {one.id: one.deliveries for one in await take(consumer, 2)}
    assert counts == {given_up.id: 2, given_back.id: 1}


async def test_a_dead_letter_says_what_happened_to_every_tool(shared: ServiceBusServer, queue: str) -> None:
    async with consuming(shared, queue) as (broker, consumer):
        await publish(broker, queue, [1])
        [one] = await take(consumer)
        assert await settle(consumer, bury(one, "poison")) == [True]
    async with bare(shared) as client, client.get_queue_receiver(queue, sub_queue="deadletter") as receiver:
        [letter] = await receiver.peek_messages()
    assert letter.dead_letter_reason == "poison"
    assert json.loads((letter.dead_letter_error_description or "").splitlines()[-1])["camora"] == 1
    assert letter.message_id == one.id


async def test_given_back_for_later_it_is_a_scheduled_copy_with_its_count(
    shared: ServiceBusServer, queue: str, way: str
) -> None:
    del way
    async with consuming(shared, queue) as (broker, consumer):
        await publish(broker, queue, [1])
        seen = []
        for charged in (True, True, False, False):
            [one] = await take(consumer)
            seen.append(one.deliveries)
            assert one.id == "job-1"
            assert await settle(consumer, release(one, delay=0.2, charged=charged)) == [True]
        [one] = await take(consumer)
        assert [*seen, one.deliveries] == [1, 2, 3, 3, 3]
        assert await settle(consumer, ack(one)) == [True]
    ids = [event["message_id"] for event in shared.events("scheduled", entity=queue)]
    assert ids == ["job-1:1", "job-1:2", "job-1:3", "job-1:4"], "a queue that knows ids must not drop them"


async def test_a_retry_is_stored_before_its_job_ends(shared: ServiceBusServer, queue: str, way: str) -> None:
    del way
    async with consuming(shared, queue) as (broker, consumer):
        await publish(broker, queue, [1])
        [one] = await take(consumer)
        due = in_future(0.3)
        assert await settle(consumer, retry(one, due=due)) == [True]
        order = [
            (event["event"], event["message_id"]) for event in shared.events("scheduled", "completed", entity=queue)
        ]
        assert order == [("scheduled", "job-1:1"), ("completed", "job-1")]
        [again] = await take(consumer)
        assert time.time() * 1000 >= due
        assert (again.id, again.body, again.deliveries) == ("job-1", b"again", 1)
        assert await settle(consumer, ack(again)) == [True]


async def test_a_queue_that_detects_duplicates_takes_retries(shared: ServiceBusServer) -> None:
    name = shared.create_queue(new_name(), requires_duplicate_detection=True)
    async with consuming(shared, name) as (broker, consumer):
        broker.declare([ServiceBusQueue(name, duplicate_detection=600)])
        await publish(broker, name, [1])
        for attempt in range(4):
            [one] = await take(consumer)
            assert await settle(consumer, retry(one) if attempt < 3 else ack(one)) == [True]
    assert shared.counts(name)["active"] == 0
    assert happened(shared, name, "completed") == 4


async def test_followers_that_cannot_be_stored_hold_up_their_own_job_alone(
    shared: ServiceBusServer, queue: str
) -> None:
    missing = new_name("missing")
    async with consuming(shared, queue) as (broker, consumer):
        await publish(broker, queue, range(2))
        first, second = await take(consumer, 2)
        stuck = ack(first, successors=(envelope(missing, 7),))
        assert list(await consumer.settle([stuck, ack(second)])) == [None, True]
        with pytest.raises(BrokerUnavailable, match="camora servicebus apply"):
            await consumer.settle([stuck])
        shared.create_queue(missing)
        assert await settle(consumer, stuck) == [True]
        assert stored(shared, missing) == ["job-7"]


# Answers that are lost


async def test_an_end_whose_answer_was_lost_with_its_connection_counts_and_nothing_runs_again(
    own: ServiceBusServer,
) -> None:
    async with consuming(own, "q") as (broker, consumer):
        await publish(broker, "q", range(3))
        got = await take(consumer, 3)
        await consumer.stop()
        own.fault("settle_answer_lost", "q", times=1, how="cut")
        assert await settle(consumer, *map(ack, got)) == [True] * 3
    assert own.counts("q")["active"] == 0
    assert happened(own, "q", "locked") == 3, "one came again"
    assert happened(own, "q", "completed") == 3


async def test_an_end_whose_answer_was_lost_alone_counts(own: ServiceBusServer) -> None:
    async with consuming(own, "q", timeout=1.0) as (broker, consumer):
        await publish(broker, "q", range(2))
        got = await take(consumer, 2)
        await consumer.stop()
        own.fault("settle_answer_lost", "q", times=1, how="silent")
        assert await settle(consumer, *map(ack, got)) == [True] * 2
    assert happened(own, "q", "completed") == happened(own, "q", "locked") == 2


async def test_an_end_that_was_lost_on_its_way_is_told_again(own: ServiceBusServer) -> None:
    async with consuming(own, "q", timeout=1.0) as (broker, consumer):
        await publish(broker, "q", range(3))
        got = await take(consumer, 3)
        await consumer.stop()
        for how in ("cut", "silent"):
            own.fault("settle_lost", "q", times=1, how=how)
        assert await settle(consumer, *map(ack, got)) == [True] * 3
    assert own.counts("q")["active"] == 0
    assert happened(own, "q", "completed") == happened(own, "q", "locked") == 3


async def test_a_settlement_that_is_repeated_sends_what_follows_once(own: ServiceBusServer) -> None:
    own.create_queue("next")
    async with consuming(own, "q", timeout=1.0) as (broker, consumer):
        await publish(broker, "q", [1])
        [one] = await take(consumer)
        own.fault("settle_refused", "q", times=2, condition="com.microsoft:server-busy")
        own.fault("management_refused", "q", times=2, condition="com.microsoft:server-busy", status=503)
        ended = ack(one, successors=(envelope("next", 5),))
        with pytest.raises(BrokerUnavailable, match="not confirmed"):
            await consumer.settle([ended])
        assert await settle(consumer, ended) == [True]
    assert stored(own, "next") == ["job-5"]


async def test_a_lock_that_is_lost_is_told_and_nothing_else_is_harmed(shared: ServiceBusServer, queue: str) -> None:
    async with consuming(shared, queue) as (broker, consumer):
        await publish(broker, queue, range(2))
        lost, kept = await take(consumer, 2)
        await consumer.stop()
        shared.expire_locks(queue)
        async with consuming(shared, queue, worker="other") as (_, other):
            [first, second] = await take(other, 2)
            assert await settle(consumer, ack(lost), bury(kept)) == [False, False]
            assert await settle(other, ack(first), ack(second)) == [True, True]
    assert happened(shared, queue, "dead_lettered") == 0
    assert held_by_nobody(shared, queue)


async def test_what_came_by_a_connection_that_is_gone_is_settled_by_another_one(own: ServiceBusServer) -> None:
    async with consuming(own, "q") as (broker, consumer):
        await publish(broker, "q", range(4))
        done, again, dead, back = await take(consumer, 4)
        await consumer.stop()
        own.cut("q")
        settlements = [ack(done), retry(again), bury(dead, "poison"), release(back)]
        assert await settle(consumer, *settlements) == [True] * 4
    assert own.counts("q")["dead"] == 1
    assert sorted(stored(own, "q")) == sorted([f"{again.id}:1", back.id])
    assert happened(own, "q", "lapsed") == 0


async def test_locks_that_died_with_their_connection_are_known_as_lost(own: ServiceBusServer) -> None:
    own.stop()
    with ServiceBusServer(locks_die_with_link=True) as strict:
        strict.create_queue("q")
        async with consuming(strict, "q") as (broker, consumer):
            await publish(broker, "q", [1])
            [one] = await take(consumer)
            strict.cut("q")
            [again] = await take(consumer)
            assert again.id == one.id
            assert await settle(consumer, ack(one)) == [False]
            assert await settle(consumer, ack(again)) == [True]
        assert strict.counts("q")["active"] == 0


async def test_a_settlement_that_is_cancelled_can_be_repeated(shared: ServiceBusServer, queue: str) -> None:
    async with consuming(shared, queue) as (broker, consumer):
        await publish(broker, queue, range(20))
        got = await take(consumer, 20)
        for turn, one in enumerate(got):
            settling = asyncio.ensure_future(consumer.settle([ack(one)]))
            for _ in range(turn % 5):
                await asyncio.sleep(0)
            settling.cancel()
            await asyncio.wait([settling])
        await settle(consumer, *map(ack, got))
        await within(lambda: shared.counts(queue)["active"] == 0, "the end of all jobs")
    assert happened(shared, queue, "locked") == 20
