"""Connections that are cut, detached, refused, silent, idle, or without their entity: workers go on by themselves."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator

import pytest
from camora.errors import BrokerUnavailable
from camora_servicebus import pump

from tests.servers.servicebus import ServiceBusServer
from tests.servicebus.holding import (
    ack,
    consuming,
    happened,
    held_by_nobody,
    job_ids,
    publish,
    sent,
    settle,
    take,
    within,
)
from tests.servicebus.sending import LIMIT, new_name


@pytest.fixture
def own() -> Iterator[ServiceBusServer]:
    """One to which anything may be done."""
    with ServiceBusServer(lock_seconds=5.0) as server:
        server.create_queue("q")
        yield server


async def test_connections_that_are_cut_and_links_that_are_detached_come_back(own: ServiceBusServer) -> None:
    async with consuming(own, "q") as (_, consumer):
        count = 0
        for harm in (own.cut, own.detach, own.cut, lambda queue: own.detach(queue, "amqp:connection:forced")):
            asking = asyncio.ensure_future(take(consumer, 3))
            await asyncio.sleep(0)
            harm("q")
            await sent(own, "q", range(count, count + 3))
            count += 3
            got = await asking
            assert all(await settle(consumer, *map(ack, got)))
    assert own.counts("q")["active"] == 0
    assert happened(own, "q", "completed") == count


async def test_an_idle_link_that_the_service_detaches_is_no_news(
    own: ServiceBusServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="camora_servicebus")
    async with consuming(own, "q") as (_, consumer):
        for number in range(5):
            asking = asyncio.ensure_future(consumer.receive(5, 60.0))
            await within(lambda: own.detach("q") >= 1, "a link that can be detached")
            await sent(own, "q", [number])
            got = await asking or await take(consumer)
            assert all(await settle(consumer, *map(ack, got)))
    assert [record for record in caplog.records if record.name.startswith("camora_servicebus")] == []


async def test_an_outage_is_told_once_and_so_is_its_end(
    own: ServiceBusServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="camora_servicebus.feed")
    async with consuming(own, "q", worker="shop-1") as (broker, consumer):
        await publish(broker, "q", range(4))
        held = await take(consumer, 4)
        own.outage()
        told: list[str] = []
        deadline = time.monotonic() + LIMIT
        while len(told) < 8:
            assert time.monotonic() < deadline
            try:
                assert await consumer.receive(5, 0.2) == []
            except BrokerUnavailable as error:
                told.append(str(error))
                await asyncio.sleep(0.05)
        assert all("'q'" in text and own.key not in text for text in told)
        own.clear()
        assert await settle(consumer, *map(ack, held)) == [True] * 4
        await publish(broker, "q", [9])
        [one] = await take(consumer)
        assert await settle(consumer, ack(one)) == [True]
    said = [record.getMessage() for record in caplog.records if record.name == "camora_servicebus.feed"]
    assert len([text for text in said if "'q'" in text and "again" not in text]) == 1, said
    assert len([text for text in said if "again" in text]) == 1, said


async def test_a_mute_peer_is_left_and_asked_again(own: ServiceBusServer) -> None:
    async with consuming(own, "q", lease=1.5, timeout=1.0) as (broker, consumer):
        await publish(broker, "q", [1])
        [one] = await take(consumer)
        assert await settle(consumer, ack(one)) == [True]
        own.mute()
        deadline = time.monotonic() + LIMIT
        with pytest.raises(BrokerUnavailable):
            while True:  # until it is seen that nobody answers; nothing hangs
                assert time.monotonic() < deadline
                await consumer.receive(5, 0.5)
        own.clear()
        await sent(own, "q", range(2, 5))
        got = await take(consumer, 3)
        assert job_ids(got) >= {"job-2", "job-3", "job-4"}
        await settle(consumer, *map(ack, got))


async def test_an_end_that_is_told_to_a_mute_peer_is_told_again_in_time(own: ServiceBusServer) -> None:
    async with consuming(own, "q", lease=30.0, timeout=1.0) as (broker, consumer):
        await publish(broker, "q", range(3))
        got = await take(consumer, 3)
        own.mute()
        settling = asyncio.ensure_future(settle(consumer, *map(ack, got)))
        await asyncio.sleep(0.2)
        own.clear()
        assert await settling == [True] * 3
    assert happened(own, "q", "locked") == happened(own, "q", "completed") == 3


async def test_a_service_that_was_killed_and_started_again_has_everything(own: ServiceBusServer) -> None:
    own.update_queue("q", lock_duration=60.0)
    async with consuming(own, "q", timeout=2.0) as (broker, consumer):
        await publish(broker, "q", range(40))
        first = await take(consumer, 10)
        for _ in range(2):
            own.restart()
        assert all(await settle(consumer, *map(ack, first)))
        done = job_ids(first)
        while len(done) < 40:
            got = await take(consumer)
            assert all(await settle(consumer, *map(ack, got)))
            done |= job_ids(got)
    assert done == {f"job-{number}" for number in range(40)}
    assert own.counts("q")["active"] == 0


async def test_a_paused_service_is_waited_for(own: ServiceBusServer) -> None:
    async with consuming(own, "q", lease=1.5, timeout=1.0) as (broker, consumer):
        await publish(broker, "q", range(6))
        held = await take(consumer, 3)
        own.pause()
        deadline = time.monotonic() + LIMIT
        with pytest.raises(BrokerUnavailable):
            while True:
                assert time.monotonic() < deadline
                await consumer.receive(5, 0.5)
        own.resume()
        answers = await settle(consumer, *map(ack, held))
        done = {one.id for one, answer in zip(held, answers, strict=True) if answer}
        while len(done) < 6:
            got = await take(consumer)
            mine = await settle(consumer, *map(ack, got))
            done |= {one.id for one, answer in zip(got, mine, strict=True) if answer}
    assert own.counts("q")["active"] == 0


async def test_one_queue_that_is_missing_does_not_keep_the_others_from_working(
    own: ServiceBusServer, caplog: pytest.LogCaptureFixture
) -> None:
    missing = new_name("missing")
    async with consuming(own, missing, "q") as (broker, consumer):
        await publish(broker, "q", range(10))
        got = await take(consumer, 10)
        assert all(await settle(consumer, *map(ack, got)))
        await within(lambda: f"there is no entity '{missing}'" in caplog.text, "a word about it")
        assert "camora servicebus apply" in caplog.text
        own.create_queue(missing)
        await within(lambda: f"receives from queue {missing!r} again" in caplog.text or _attached(own, missing), "it")
        await publish(broker, missing, [7])
        [one] = await take(consumer)
        assert one.queue == missing
        await settle(consumer, ack(one))


def _attached(server: ServiceBusServer, queue: str) -> bool:
    return any(queue in str(connection) for connection in server.connections())


async def test_a_queue_that_is_missing_says_what_to_do(own: ServiceBusServer) -> None:
    async with consuming(own, "nowhere") as (_, consumer):
        deadline = time.monotonic() + LIMIT
        with pytest.raises(BrokerUnavailable, match="there is no entity 'nowhere'.*camora servicebus apply"):
            while time.monotonic() < deadline:
                await consumer.receive(1, 0.5)


async def test_a_queue_with_sessions_that_nobody_knows_of_says_what_to_do(own: ServiceBusServer) -> None:
    name = own.create_queue(new_name(), requires_session=True)
    async with consuming(own, name) as (_, consumer):
        deadline = time.monotonic() + LIMIT
        with pytest.raises(BrokerUnavailable, match=r"it has sessions on one side alone .* camora doctor says how"):
            while time.monotonic() < deadline:
                await consumer.receive(1, 0.5)


async def test_a_queue_that_is_disabled_is_waited_for(own: ServiceBusServer) -> None:
    async with consuming(own, "q") as (broker, consumer):
        await publish(broker, "q", [1])
        own.update_queue("q", status="ReceiveDisabled")
        own.detach("q", "com.microsoft:entity-disabled")
        deadline = time.monotonic() + LIMIT
        with pytest.raises(BrokerUnavailable, match="disabled"):
            while time.monotonic() < deadline:
                await consumer.receive(1, 0.5)
        own.update_queue("q", status="Active")
        [one] = await take(consumer)
        assert await settle(consumer, ack(one)) == [True]


async def test_throttling_is_waited_for(own: ServiceBusServer) -> None:
    async with consuming(own, "q", lease=30.0) as (broker, consumer):
        await publish(broker, "q", range(5))
        got = await take(consumer, 5)
        own.fault("throttled", seconds=3.0)
        own.cut("q")  # so that ends have to be told by requests, which are refused
        assert await settle(consumer, *map(ack, got)) == [True] * 5
    assert happened(own, "q", "completed") == happened(own, "q", "locked") == 5


async def test_a_connection_that_brings_nothing_for_long_is_made_anew(
    own: ServiceBusServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service forgets a link now and then, and says nothing."""
    monkeypatch.setattr(pump, "_STALE", 0.4)
    monkeypatch.setattr(pump.Pump.__init__, "__kwdefaults__", {**pump.Pump.__init__.__kwdefaults__, "stale": 0.4})
    async with consuming(own, "q") as (broker, consumer):
        asking = asyncio.ensure_future(take(consumer))
        first = (await _receiver(consumer)).receiving
        deadline = time.monotonic() + LIMIT
        while (await _receiver(consumer)).receiving is first:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        (await _receiver(consumer))._stale = LIMIT  # a busy machine needs longer to bring it
        await publish(broker, "q", [1])
        [one] = await asking
        assert await settle(consumer, ack(one)) == [True]
    assert held_by_nobody(own, "q")


async def _receiver(consumer: object) -> pump.Pump:
    feed = consumer._inner._feed  # type: ignore[attr-defined]
    while not (feed._pumps and feed._pumps[0].receiving is not None):
        await asyncio.sleep(0.01)
    return feed._pumps[0]
