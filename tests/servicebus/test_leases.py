"""Locks: they are renewed while a lease is kept, whatever the worker's loop does, and their loss is noticed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence

import pytest
from azure.servicebus import ServiceBusClient, ServiceBusMessage
from camora.errors import BrokerUnavailable
from camora.interfaces.broker import Consumer, LeaseVerdict
from camora.message import Delivery
from camora_servicebus.locks import LONGEST, LockTerm

from tests.servers.servicebus import ServiceBusServer
from tests.servicebus.holding import (
    ack,
    by_public_means,
    consuming,
    happened,
    held_by_nobody,
    publish,
    settle,
    take,
    within,
)
from tests.servicebus.sending import LIMIT, new_name

LOCK = 1.5
HELD, LOST = LeaseVerdict.HELD, LeaseVerdict.LOST


@pytest.fixture(scope="module")
def shared() -> Iterator[ServiceBusServer]:
    with ServiceBusServer(lock_seconds=LOCK) as server:
        yield server


@pytest.fixture
def queue(shared: ServiceBusServer) -> str:
    return shared.create_queue(new_name())


@pytest.fixture
def own() -> Iterator[ServiceBusServer]:
    """One to which anything may be done."""
    with ServiceBusServer(lock_seconds=LOCK) as server:
        server.create_queue("q")
        yield server


@pytest.fixture(params=["direct", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "plain":
        by_public_means(monkeypatch)
    return request.param


async def extend(consumer: Consumer, *deliveries: Delivery) -> Sequence[LeaseVerdict]:
    """In another thread, as keepers do; a service that does not answer for a moment is asked again."""
    leases = consumer.leases()
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            return await asyncio.to_thread(leases.extend, deliveries)
        except BrokerUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


async def test_a_lock_lasts_for_as_long_as_the_lease_is_kept(shared: ServiceBusServer, queue: str, way: str) -> None:
    del way
    async with consuming(shared, queue, lease=LOCK) as (broker, consumer):
        await publish(broker, queue, range(5))
        got = await take(consumer, 5)
        # By renewals, not by time: five of each message, so more than a lock and a half.
        while happened(shared, queue, "renewed") < 25:
            assert await extend(consumer, *got) == [HELD] * 5
            await asyncio.sleep(0.1)
        assert all(await settle(consumer, *map(ack, got)))
    assert happened(shared, queue, "locked") == 5
    assert happened(shared, queue, "lapsed") == 0


async def test_a_lease_is_longer_than_a_lock_if_it_is_said_so(shared: ServiceBusServer, queue: str) -> None:
    async with consuming(shared, queue, lease=300.0) as (broker, consumer):
        await publish(broker, queue, [1])
        [one] = await take(consumer)
        await within(lambda: happened(shared, queue, "renewed") >= 6, "renewals that nobody asked for")
        assert await settle(consumer, ack(one)) == [True]
    assert happened(shared, queue, "locked") == 1


async def test_many_locks_are_renewed_in_few_requests(own: ServiceBusServer) -> None:
    own.create_queue("many", lock_duration=6.0)
    async with consuming(own, "many", lease=300.0) as (broker, consumer):
        await publish(broker, "many", range(150))
        got = await take(consumer, 150, at_once=150)
        await within(lambda: happened(own, "many", "renewed") >= 300, "two renewals of each")
        moments = {event["at"] for event in own.events("renewed", entity="many")}
        assert len(got) == 150
        print(f"{happened(own, 'many', 'renewed')} renewals at {len(moments)} moments")
        assert all(await settle(consumer, *map(ack, got)))
    assert happened(own, "many", "lapsed") == 0


async def test_a_lease_that_nobody_extends_is_given_back_and_counted(shared: ServiceBusServer) -> None:
    name = shared.create_queue(new_name(), lock_duration=60.0)
    async with consuming(shared, name, lease=2.0) as (broker, silent):
        await publish(broker, name, [1])
        [first] = await take(silent)
        async with consuming(shared, name, worker="other") as (_, other):
            [second] = await take(other)
            assert (second.id, second.deliveries) == (first.id, 2)
            assert await extend(silent, first) == [LOST]
            assert await settle(silent, ack(first)) == [False]
            assert await settle(other, ack(second)) == [True]
    assert happened(shared, name, "abandoned") == 1


async def test_a_loop_that_stands_still_for_longer_than_the_lock_loses_nothing(
    shared: ServiceBusServer, queue: str
) -> None:
    async with consuming(shared, queue, lease=30.0) as (broker, consumer):
        await publish(broker, queue, range(3))
        got = await take(consumer, 3)
        before = happened(shared, queue, "renewed")
        deadline = time.monotonic() + LIMIT
        while happened(shared, queue, "renewed") < before + 12:  # without a turn of the loop
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert all(await settle(consumer, *map(ack, got)))
    assert happened(shared, queue, "locked") == 3
    assert happened(shared, queue, "lapsed") == 0


async def test_what_a_blocked_loop_does_not_take_is_for_others_and_uncounted(
    shared: ServiceBusServer, queue: str
) -> None:
    async with (
        consuming(shared, queue, lease=30.0) as (_, blocked),
        consuming(shared, queue, worker="other") as (_, other),
    ):
        asking = asyncio.ensure_future(blocked.receive(5, 60.0))
        await within(lambda: len(shared.connections()) >= 2, "connections")
        await asyncio.sleep(0.1)
        sending = threading.Thread(target=send, args=(shared, queue))
        sending.start()
        deadline = time.monotonic() + LIMIT
        while not happened(shared, queue, "released"):  # the loop stands still all the time
            assert time.monotonic() < deadline
            time.sleep(0.02)
        sending.join()
        locked = happened(shared, queue, "locked")
        assert locked == 1, "it came again to whoever does not take it"
        asking.cancel()
        await asyncio.wait([asking])
        [one] = await take(other)
        assert one.deliveries == 1
        assert await settle(other, ack(one)) == [True]
    assert happened(shared, queue, "lapsed") == 0


def send(server: ServiceBusServer, queue: str) -> None:
    with (
        ServiceBusClient.from_connection_string(server.connection_string) as client,
        client.get_queue_sender(queue) as sender,
    ):
        sender.send_messages(ServiceBusMessage(b"1", message_id="m"))


async def test_what_was_taken_ahead_never_lapses(shared: ServiceBusServer, queue: str) -> None:
    """A worker with one slot, jobs that take a third of a lock, and a hundred in the queue."""
    async with consuming(shared, queue, lease=LOCK) as (broker, consumer):
        await publish(broker, queue, range(100))
        for _ in range(8):
            [one] = await take(consumer)
            await asyncio.sleep(LOCK / 3)  # it runs
            assert await settle(consumer, ack(one)) == [True]
    assert happened(shared, queue, "lapsed") == 0
    assert held_by_nobody(shared, queue)


async def test_renewals_go_on_over_a_connection_that_is_cut_again_and_again(own: ServiceBusServer) -> None:
    async with consuming(own, "q", lease=LOCK) as (broker, consumer):
        await publish(broker, "q", range(4))
        got = await take(consumer, 4)
        for turn in range(1, 7):
            own.cut("q")
            renewed = happened(own, "q", "renewed")
            await within_extending(consumer, got, lambda now=renewed: happened(own, "q", "renewed") >= now + 4)
            assert turn
        assert all(await settle(consumer, *map(ack, got)))
    assert happened(own, "q", "locked") == 4
    assert happened(own, "q", "lapsed") == 0


async def within_extending(consumer: Consumer, got: Sequence[Delivery], true: object) -> None:
    deadline = time.monotonic() + LIMIT
    assert callable(true)
    while not true():
        assert time.monotonic() < deadline
        assert await extend(consumer, *got) == [HELD] * len(got)
        await asyncio.sleep(0.05)


async def test_one_lost_lock_among_many_is_told_apart(own: ServiceBusServer) -> None:
    own.create_queue("slow", lock_duration=3.0)
    async with consuming(own, "slow", lease=30.0) as (broker, consumer):
        await publish(broker, "slow", range(3))
        got = await take(consumer, 3)
        own.expire_locks("slow")
        async with consuming(own, "slow", worker="thief") as (_, thief):
            mine = await take(thief, 3)
            await publish(broker, "slow", [9])
            [fresh] = await take(consumer)
            verdicts: list[LeaseVerdict] = []
            deadline = time.monotonic() + LIMIT
            while verdicts != [LOST, LOST, LOST, HELD]:
                assert time.monotonic() < deadline, verdicts
                verdicts = list(await extend(consumer, *got, fresh))
                await asyncio.sleep(0.05)
            assert await settle(consumer, *map(ack, got), ack(fresh)) == [False, False, False, True]
            assert await settle(thief, *map(ack, mine)) == [True] * 3


async def test_a_service_that_renews_nothing_is_no_lease(own: ServiceBusServer) -> None:
    async with consuming(own, "q", lease=LOCK, timeout=1.0) as (broker, consumer):
        await publish(broker, "q", [1])
        [one] = await take(consumer)
        own.fault("management_silent", operation="renew-lock")
        verdict = HELD
        deadline = time.monotonic() + LIMIT
        while verdict is HELD:
            assert time.monotonic() < deadline
            [verdict] = await extend(consumer, one)
            await asyncio.sleep(0.05)
        own.clear()
        async with consuming(own, "q", worker="other") as (_, other):
            [again] = await take(other)
            assert (again.id, again.deliveries) == (one.id, 2)
            assert await settle(consumer, ack(one)) == [False]
            assert await settle(other, ack(again)) == [True]


async def test_a_renewal_that_is_refused_or_lost_once_is_tried_again(own: ServiceBusServer) -> None:
    own.create_queue("long", lock_duration=6.0)
    async with consuming(own, "long", lease=30.0, timeout=1.0) as (broker, consumer):
        await publish(broker, "long", [1])
        [one] = await take(consumer)
        renew = "renew-lock"
        own.fault("management_refused", operation=renew, times=1, condition="com.microsoft:server-busy", status=503)
        own.fault("management_silent", operation=renew, times=1)
        own.fault("management_answer_lost", operation=renew, times=1)
        await within(lambda: happened(own, "long", "renewed") >= 3, "renewals")
        assert await settle(consumer, ack(one)) == [True]
    assert happened(own, "long", "locked") == 1


# How long a lock lasts


def test_the_term_of_a_lock_is_known_though_clocks_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    service = 1_000_000.0
    for wrong in (0.0, 7200.0, -7200.0, 20.0, -20.0):
        monkeypatch.setattr(time, "time", lambda ahead=wrong: service + ahead)
        term = LockTerm()
        fresh = term.of_message(service + 60, service - 1)
        assert 0 < fresh <= 61, wrong
        assert 0 < term.of_renewal(service + 60) <= 61
        # A message that lay for a day says little, but nothing wrong.
        assert 0 < LockTerm().of_message(service + 60, service - 86400) <= LONGEST
        assert 0 < term.of_message(None, None) <= LONGEST
