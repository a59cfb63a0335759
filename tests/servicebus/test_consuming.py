"""Receiving: what comes, when, to whom, and that nothing stays locked for nobody."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from camora_servicebus.direct import Direct, fits
from camora_servicebus.plain import Plain
from camora_servicebus.receiving import Answer, End, Word

from tests.servers.servicebus import ServiceBusServer
from tests.servicebus.holding import (
    ack,
    by_public_means,
    consuming,
    happened,
    held_by_nobody,
    job_ids,
    publish,
    settle,
    take,
    taken,
    within,
)
from tests.servicebus.sending import bare, envelope, new_name


@pytest.fixture(scope="module")
def shared() -> Iterator[ServiceBusServer]:
    with ServiceBusServer() as server:
        yield server


@pytest.fixture
def queue(shared: ServiceBusServer) -> str:
    return shared.create_queue(new_name())


@pytest.fixture(params=["direct", "plain"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "plain":
        by_public_means(monkeypatch)
    return request.param


# What comes


async def test_messages_come_whole_in_order_and_once(shared: ServiceBusServer, queue: str, way: str) -> None:
    del way
    async with consuming(shared, queue) as (broker, consumer):
        await publish(broker, queue, range(30))
        got = await take(consumer, 30)
        assert [one.body for one in got] == [b"%d" % number for number in range(30)]
        assert [one.id for one in got] == [f"job-{number}" for number in range(30)]
        assert {one.deliveries for one in got} == {1}
        assert [one.sequence_number for one in got] == sorted({one.sequence_number for one in got})
        assert all(await settle(consumer, *map(ack, got)))
    assert shared.counts(queue)["active"] == 0
    assert set(taken(shared, queue).values()) == {1}
    assert held_by_nobody(shared, queue)


async def test_a_message_of_many_frames_comes_whole(shared: ServiceBusServer, queue: str) -> None:
    body = bytes(range(256)) * 900
    async with consuming(shared, queue) as (broker, consumer):
        await broker.publish([envelope(queue, body=body)])
        [one] = await take(consumer)
        assert one.body == body
        assert await settle(consumer, ack(one)) == [True]


async def test_messages_of_others_come_too(shared: ServiceBusServer, queue: str) -> None:
    from azure.servicebus import ServiceBusMessage

    async with bare(shared) as client, client.get_queue_sender(queue) as sender:
        await sender.send_messages([ServiceBusMessage("text", message_id="theirs"), ServiceBusMessage(b"")])
    async with consuming(shared, queue) as (_, consumer):
        first, second = await take(consumer, 2)
        assert (first.id, first.body) == ("theirs", b"text")
        assert second.id
        assert second.body == b""
        await settle(consumer, ack(first), ack(second))


async def test_nothing_more_comes_than_was_asked_for(shared: ServiceBusServer, queue: str) -> None:
    async with consuming(shared, queue) as (broker, consumer):
        await publish(broker, queue, range(50))
        first = await take(consumer, 3)
        assert len(first) == 3
        # The worker is busy with these: what the service sent beyond them is for others.
        await within(
            lambda: happened(shared, queue, "locked") - happened(shared, queue, "released") == 3, "giving back"
        )
        rest = await take(consumer, 47, at_once=10)
        assert job_ids([*first, *rest]) == {f"job-{number}" for number in range(50)}
        assert {one.deliveries for one in rest} == {1}, "what nobody took was not delivered"
        await settle(consumer, *map(ack, [*first, *rest]))


async def test_two_hundred_slots_are_filled(shared: ServiceBusServer, queue: str) -> None:
    async with consuming(shared, queue) as (broker, consumer):
        await publish(broker, queue, range(600))
        got = await take(consumer, 600, at_once=200)
        assert len(job_ids(got)) == 600
        assert all(await settle(consumer, *map(ack, got)))
    assert set(taken(shared, queue).values()) == {1}


async def test_queues_share_the_slots_of_a_consumer_and_none_is_starved(shared: ServiceBusServer) -> None:
    flooded, quiet, other = (shared.create_queue(new_name()) for _ in range(3))
    async with consuming(shared, flooded, quiet, other) as (broker, consumer):
        await publish(broker, flooded, range(400))
        await publish(broker, quiet, [1000])
        await publish(broker, other, [2000])
        came: list[str] = []
        while not {quiet, other} <= set(came):
            assert len(came) < 200, f"others waited for {Counter(came)}"
            got = await take(consumer, 4)
            came += [one.queue for one in got]
            assert all(await settle(consumer, *map(ack, got)))
        rest = await take(consumer, 402 - len(came), at_once=50)
        assert all(await settle(consumer, *map(ack, rest)))
    assert all(shared.counts(name)["active"] == 0 for name in (flooded, quiet, other))


async def test_several_connections_for_a_queue_share_what_is_asked_for(shared: ServiceBusServer, queue: str) -> None:
    async with consuming(shared, queue, receivers=3) as (broker, consumer):
        await publish(broker, queue, range(90))
        got = await take(consumer, 90, at_once=9)
        assert len(job_ids(got)) == 90
        assert len({one.receipt.by for one in got}) == 3
        assert all(await settle(consumer, *map(ack, got)))


# When it comes


async def test_a_job_on_an_idle_queue_is_there_at_once_and_so_is_its_end(
    shared: ServiceBusServer, queue: str, record_property: Any
) -> None:
    """No pause of 0.2 s for others that might follow, none of 5 s until credit is found: the measure is recorded."""
    waited, ended = [], []
    async with consuming(shared, queue) as (broker, consumer):
        await consumer.receive(10, 0.5)
        for number in range(40):
            waiting = asyncio.ensure_future(consumer.receive(10, 30.0))
            await asyncio.sleep(0)
            await publish(broker, queue, [number])
            stored = time.perf_counter()
            [one] = await waiting
            waited.append(time.perf_counter() - stored)
            began = time.perf_counter()
            assert await settle(consumer, ack(one)) == [True]
            ended.append(time.perf_counter() - began)
    for name, values in (("received", waited), ("settled", ended)):
        found = f"p50 {sorted(values)[20] * 1000:.1f} ms, max {max(values) * 1000:.1f} ms"
        print(f"{name} after {found}")
        record_property(name, found)


async def test_who_waits_in_vain_leaves_no_credit_that_keeps_a_message_from_others(
    shared: ServiceBusServer, queue: str
) -> None:
    async with consuming(shared, queue) as (broker, idle), consuming(shared, queue, worker="v") as (_, busy):
        assert await idle.receive(10, 0.3) == []
        await within(lambda: _credit(shared, queue) == 0, "credit taken back")
        for number in range(20):
            await publish(broker, queue, [number])
            [one] = await take(busy)
            assert await settle(busy, ack(one)) == [True]
        assert set(taken(shared, queue).values()) == {1}, "somebody took what he did not want"


def _credit(server: ServiceBusServer, queue: str) -> int:
    return sum(
        link.get("credit") or 0
        for connection in server.connections()
        for link in connection["links"]
        if queue in str(link) and link.get("credit") and link.get("role", "receiver") == "receiver"
    )


# The end


async def test_stopping_gives_everything_back_uncounted(shared: ServiceBusServer, queue: str) -> None:
    async with consuming(shared, queue) as (broker, consumer):
        await publish(broker, queue, range(100))
        kept = await take(consumer, 5)
        asking = asyncio.ensure_future(consumer.receive(60, 30.0))
        await asyncio.sleep(0)
        await consumer.stop()
        more = list(await asking)
        assert await consumer.receive(10, 5.0) == []
        await within(
            lambda: happened(shared, queue, "locked") - happened(shared, queue, "released") == 5 + len(more),
            "the return of what was taken ahead",
        )
        # Settling goes on.
        assert all(await settle(consumer, *map(ack, [*kept, *more])))
        assert happened(shared, queue, "lapsed") == happened(shared, queue, "abandoned") == 0
    async with consuming(shared, queue, worker="heir") as (_, heir):
        rest = await take(heir, 95 - len(more))
        assert {one.deliveries for one in rest} == {1}
        await settle(heir, *map(ack, rest))
    assert shared.counts(queue)["active"] == 0
    assert held_by_nobody(shared, queue)


async def test_a_receive_that_is_cancelled_again_and_again_loses_nothing(shared: ServiceBusServer, queue: str) -> None:
    async with consuming(shared, queue) as (broker, consumer):
        sent = 0
        got: list[Any] = []
        for turn in range(40):
            asking = asyncio.ensure_future(consumer.receive(4, 30.0))
            await asyncio.sleep(0.001 * (turn % 7))
            await publish(broker, queue, range(sent, sent + 3))
            sent += 3
            await asyncio.sleep(0.001 * (turn % 5))
            asking.cancel()
            try:
                got += await asking
            except asyncio.CancelledError:
                continue
        got += await take(consumer, sent - len(got), at_once=20)
        assert job_ids(got) == {f"job-{number}" for number in range(sent)}
        assert {one.deliveries for one in got} == {1}
        await settle(consumer, *map(ack, got))
    assert held_by_nobody(shared, queue)


async def test_closing_in_the_midst_of_everything_leaves_nothing_locked_for_nobody(
    shared: ServiceBusServer, queue: str
) -> None:
    async with consuming(shared, queue, worker="first") as (broker, _):
        await publish(broker, queue, range(200))
    for turn in range(5):
        async with consuming(shared, queue, worker=f"w{turn}") as (_, consumer):
            asking = asyncio.ensure_future(consumer.receive(50, 30.0))
            await asyncio.sleep(0.03 * turn)
            await consumer.stop()
            back = list(await asking)
            assert all(await settle(consumer, *map(ack, back)))
    assert held_by_nobody(shared, queue)
    assert happened(shared, queue, "lapsed") == 0


async def test_a_consumer_ends_at_once_while_it_connects(shared: ServiceBusServer, queue: str) -> None:
    for _ in range(10):
        async with consuming(shared, queue) as (_, consumer):
            await consumer.stop()
            assert await consumer.receive(1, 30.0) == []


async def test_a_worker_s_log_is_not_full_of_what_its_client_does(
    shared: ServiceBusServer, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with consuming(shared, queue) as (broker, consumer):
        await publish(broker, queue, [1])
        [one] = await take(consumer)
        assert await settle(consumer, ack(one)) == [True]
    assert [record.getMessage() for record in caplog.records if record.name.startswith(("azure", "camora"))] == []


# What the client is inside


async def test_the_client_is_the_one_that_is_known(shared: ServiceBusServer, queue: str) -> None:
    """When this fails a new version of the client works by `plain` alone: look at `direct`, part by part."""
    async with bare(shared) as client:
        receiver = client.get_queue_receiver(queue)
        assert fits(receiver)
        came: list[tuple[Any, int, bytes]] = []
        direct = Direct(receiver, lambda _, message, number, tag: came.append((message, number, tag)), quiet=5.0)
        await direct.open(10.0)
        reading = asyncio.ensure_future(direct.run())
        try:
            handler = receiver._handler
            assert handler._keep_alive_thread is None
            assert handler._link.current_link_credit == 0
            assert handler._connection._transport.write.__name__ == "apart"
            await within(lambda: direct._echoes, "the answer to an echo")
            await direct.drain(10.0)
            assert direct.wanted == 0
        finally:
            await direct.close(2.0)
            await asyncio.gather(reading, return_exceptions=True)


async def test_one_frame_ends_many_messages(shared: ServiceBusServer, queue: str) -> None:
    from camora_servicebus.lent import Lent

    async with consuming(shared, queue) as (broker, _):
        await publish(broker, queue, range(20))
    async with bare(shared) as client:
        lent: list[Lent] = []

        def came(by: Any, message: Any, number: int, tag: bytes) -> None:
            lent.append(Lent(by, message, queue=queue, job_id="", deliveries=1, number=number, tag=tag, lock=60.0))

        direct = Direct(client.get_queue_receiver(queue), came, quiet=5.0)
        await direct.open(10.0)
        reading = asyncio.ensure_future(direct.run())
        written: list[bytes] = []
        transport = direct._receiver._handler._connection._transport
        write = transport.write

        async def counting(data: bytes) -> None:
            written.append(data)
            await write(data)

        try:
            direct.want(20)
            await within(lambda: len(lent) == 20, "twenty messages")
            transport.write = counting
            assert await direct.tell(lent, Word(End.COMPLETE), 10.0) == [Answer.DONE] * 20
            assert len(written) == 1
            assert await direct.tell(lent[:1], Word(End.COMPLETE), 0.5) != [Answer.DONE], "it is gone"
        finally:
            await direct.close(2.0)
            await asyncio.gather(reading, return_exceptions=True)


async def test_the_public_way_receives_too(
    shared: ServiceBusServer, queue: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_public_means(monkeypatch)
    async with consuming(shared, queue) as (broker, consumer):
        await publish(broker, queue, range(10))
        got = await take(consumer, 10)
        assert all(isinstance(one.receipt.by, Plain) for one in got)
        assert all(await settle(consumer, *map(ack, got)))
        await consumer.stop()
    await within(lambda: held_by_nobody(shared, queue), "the end of all locks")
