"""What could lose a job, or run it twice without need: each was seen on a server before it was mended."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import aio_pika
import pytest
from camora.errors import BrokerUnavailable, DispatchUncertain
from camora.interfaces.broker import Consumer, ConsumerSettings
from camora.message import Delivery
from camora.testing.conformance.making import ack, envelope, release, retry
from camora_amqp import AmqpBroker, Queue
from camora_amqp.confirming import Confirming
from camora_amqp.errors import WireLost
from camora_amqp.frames import properties, publish
from camora_amqp.link import connect
from camora_amqp.messages import PARKED, Outgoing
from camora_amqp.settings import split_url

from tests.servers.rabbitmq import fresh_url, shared
from tests.servers.rabbitmq_operator import add_user, alarm, allow
from tests.servers.rabbitmq_sturdy import Sturdy, sturdy_rabbitmq

__all__ = ["sturdy_rabbitmq"]  # a fixture

KINDS = pytest.mark.parametrize("kind", ["quorum", "classic"])
PATIENCE = 30.0


@contextlib.asynccontextmanager
async def opened(url: str, *queues: Queue) -> AsyncIterator[AmqpBroker]:
    broker = AmqpBroker(url)
    broker.declare(queues)
    await broker.open()
    try:
        yield broker
    finally:
        await broker.close()


@contextlib.asynccontextmanager
async def consuming(
    broker: AmqpBroker, *queues: str, worker: str = "one", lease: float = 60.0
) -> AsyncIterator[Consumer]:
    settings = ConsumerSettings(queues=queues or ("work",), worker=worker, lease=lease)
    consumer = await broker.consumer(settings)
    try:
        yield consumer
    finally:
        await consumer.close()


@contextlib.asynccontextmanager
async def stranger(url: str) -> AsyncIterator[Any]:
    """A channel of somebody who knows nothing of Camora."""
    address, _ = split_url(url)
    connection = await aio_pika.connect(address.url(address.hosts[0]))
    try:
        async with connection.channel() as channel:
            yield await channel.get_underlay_channel()
    finally:
        await connection.close()


def full(url: str, name: str) -> str:
    """The name of a queue on the server."""
    return split_url(url)[1].prefix + name


async def some(consumer: Consumer, count: int) -> list[Delivery]:
    taken: list[Delivery] = []
    async with asyncio.timeout(PATIENCE):
        while len(taken) < count:
            taken += await consumer.receive(count - len(taken), 5)
    return taken


async def ready(broker: AmqpBroker) -> Mapping[str, int]:
    return {name: sum(counts.values()) for name, counts in (await broker.queues.counts()).items()}


# Copies of what others have sent


@KINDS
async def test_what_a_stranger_has_signed_is_given_back_unsigned(kind: str) -> None:
    """A server takes nobody's message under another one's name, and closes the channel of whoever tries."""
    url = f"{fresh_url()}&queue_type={kind}"
    add_user(shared(), "somebody", "secret")
    allow(shared(), "somebody", "/", ".*", ".*", ".*")
    async with (
        opened(url) as broker,
        stranger(url.replace("guest:guest", "somebody:secret")) as other,
        consuming(broker) as consumer,
    ):
        properties = aio_pika.Message(
            b"", user_id="somebody", type="t", app_id="app", reply_to="", headers={"mine": 1}, timestamp=1
        ).properties
        await other.basic_publish(b"signed", routing_key=full(url, "work"), properties=properties)
        [taken] = await some(consumer, 1)
        later = release(taken, delay=0.2, charged=False)
        assert list(await consumer.settle([later])) == [True]
        [again] = await some(consumer, 1)
        assert (again.body, again.deliveries) == (b"signed", 1)
        assert again.receipt.properties.headers["mine"] == 1
        assert b"app" in again.receipt.message.properties
        assert list(await consumer.settle([ack(again)])) == [True]


@KINDS
async def test_copies_go_to_nobody_else(kind: str) -> None:
    """A sender may name further queues in a header: whoever they are, they have got theirs."""
    url = f"{fresh_url()}&queue_type={kind}"
    async with opened(url) as broker, stranger(url) as other, consuming(broker, "work", "more") as consumer:
        properties = aio_pika.Message(b"", headers={"CC": [full(url, "more")], "mine": 1}).properties
        await other.basic_publish(b"for two", routing_key=full(url, "work"), properties=properties)
        both = await some(consumer, 2)
        [one] = [taken for taken in both if taken.queue == "work"]
        [two] = [taken for taken in both if taken.queue == "more"]
        assert list(await consumer.settle([ack(two), release(one, delay=0.2, charged=False)])) == [True, True]
        [again] = await some(consumer, 1)
        assert again.queue == "work"
        assert again.receipt.properties.headers["mine"] == 1
        assert list(await consumer.settle([ack(again)])) == [True]
        assert not await consumer.receive(2, 0.5)


@pytest.mark.parametrize("count", [1, 3])
async def test_what_could_not_be_copied_comes_again(count: int) -> None:
    """The server closes the channel for copies, and no other."""
    url = f"{fresh_url()}&queue_type=classic"
    async with opened(url) as broker:
        jobs = [envelope() for _ in range(count)]
        await broker.publish(jobs)
        async with consuming(broker) as consumer:
            await some(consumer, count)
        # What it had comes again, marked, and is to be replaced by copies that count it.
        send, broken = Confirming.send, []

        async def break_once(self: Confirming, messages: Sequence[Outgoing]) -> Sequence[str | None]:
            if not broken:
                broken.append(self)
                wrong = publish(self.channel.number, "nowhere", "", properties(message_id=""), b"", 4096)
                self.channel.wire.write(wrong)
            return await send(self, messages)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Confirming, "send", break_once)
            async with consuming(broker, lease=1.0) as consumer:
                left = {one.id for one in jobs}
                async with asyncio.timeout(PATIENCE):
                    while left:
                        taken = await consumer.receive(1, 5)
                        await consumer.settle([ack(one) for one in taken])
                        left -= {one.id for one in taken}
                assert broken


# Deliveries that nobody had


@KINDS
async def test_a_blocked_loop_buries_nothing(kind: str) -> None:
    """Messages that lie ready while the loop stands still are in nobody's hands."""
    url = f"{fresh_url()}&queue_type={kind}"
    async with opened(url) as broker:
        await broker.publish([envelope() for _ in range(3)])
        async with consuming(broker, lease=0.5) as consumer:
            waiting = asyncio.ensure_future(consumer.receive(3, 60))
            await asyncio.sleep(0)  # it asks
            time.sleep(4)
            taken = list(await waiting)
            taken += await some(consumer, 3 - len(taken))
            assert [one.deliveries for one in taken] == [1, 1, 1]
            assert list(await consumer.settle([ack(one) for one in taken])) == [True] * 3
            assert not await consumer.receive(3, 0.3)


# What comes back from the server


async def test_what_no_queue_took_is_not_taken_for_something_else() -> None:
    """Messages of strangers may be alike in all their properties."""
    url = fresh_url()
    async with opened(url) as broker:
        await broker.publish([envelope("one"), envelope("one")])
        header = properties(message_id="")
        name = full(url, "one")
        messages = [Outgoing("", "", queue, header, b"") for queue in (name, f"{name}.gone", name, f"{name}.gone")]
        channel = await Confirming.on(await connect(broker.database, purpose="test", heartbeat=5))
        for _ in range(20):
            assert await channel.send(messages) == [None, "NO_ROUTE"] * 2
        await channel.channel.wire.close()


@pytest.mark.parametrize("header", ["CC", "BCC"])
async def test_what_no_queue_took_is_not_taken_for_stored(header: str) -> None:
    """The server changes the headers of what names further queues."""
    url = fresh_url()
    async with opened(url) as broker:
        broker.declare([])
        channel = await Confirming.on(await connect(broker.database, purpose="test", heartbeat=5))
        lost = properties(message_id="1", headers={header: ["nowhere"]})
        assert await channel.send([Outgoing("1", "", full(url, "gone"), lost, b"lost")]) == ["NO_ROUTE"]
        await channel.channel.wire.close()


# Jobs that run for long


@pytest.mark.parametrize("what", ["channel", "queue"])
async def test_the_way_of_long_jobs_is_made_again(what: str) -> None:
    """Copies in a queue to which nobody listens would go to somebody else, while the job still runs."""
    url = f"{fresh_url()}&ack_timeout=600ms"
    async with opened(url) as broker, consuming(broker) as consumer, stranger(url) as other:
        await broker.publish([envelope()])
        [one] = await some(consumer, 1)
        await parked(one)
        feed = consumer._feed  # type: ignore[attr-defined]
        if what == "queue":
            await other.queue_delete(one.receipt.message.routing_key)
        else:
            way = one.receipt.channel
            wrong = publish(way.number, "nowhere", "", properties(message_id=""), b"", 4096)
            feed._loop.call_soon_threadsafe(way.wire.write, wrong)
            async with asyncio.timeout(PATIENCE):
                while way.error is None:
                    await asyncio.sleep(0.02)
        job = envelope()
        await broker.publish([job])
        two = one
        async with asyncio.timeout(PATIENCE):
            while two.id != job.id:
                [two] = await some(consumer, 1)
        await parked(two)
        assert list(await consumer.settle([ack(two)])) == [True]


async def parked(one: Delivery) -> None:
    """Until it is held by way of its copy."""
    async with asyncio.timeout(PATIENCE):
        while PARKED.encode() not in one.receipt.message.properties:
            await asyncio.sleep(0.02)


# Connections and servers that die


@pytest.mark.parametrize("stored", [0, 1])
async def test_what_was_stored_before_a_connection_broke_is_known(stored: int) -> None:
    """Part of a batch reached no queue, is sent again once that is there, and then the connection breaks."""
    url = fresh_url()
    small = Queue("small", max_length=1, queue_type="classic")
    async with opened(url, small) as broker, stranger(url) as other:
        await broker.publish([envelope("small"), envelope("one"), envelope("two")])
        await other.queue_delete(full(url, "one"))
        await other.queue_delete(full(url, "two"))
        jobs = [envelope("small"), envelope("one"), envelope(), envelope("two")]
        send, sent = Confirming.send, []

        async def break_again(self: Confirming, messages: Sequence[Outgoing]) -> Sequence[str | None]:
            sent.append(messages)
            if len(sent) == 2:
                await send(self, messages[:stored])
                self.channel.wire.fail(WireLost("cut"))
                raise WireLost("cut", sent=bool(stored), stored=[True] * stored)
            return await send(self, messages)

        broker._store.topology.seen.add("work")
        await broker._publisher.declarer.queues(["work"])
        messages = await broker._publisher.jobs(jobs)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Confirming, "send", break_again)
            with pytest.raises(DispatchUncertain) as raised:
                await broker._publisher.publish(messages)
        assert len(sent) == 2
        lost = raised.value.__cause__
        assert isinstance(lost, WireLost)
        assert list(lost.stored) == [False, bool(stored), True, False]


async def test_a_server_that_dies_loses_nothing_that_is_between_two_levels(sturdy_rabbitmq: Sturdy) -> None:
    server = sturdy_rabbitmq
    urls = [f"{server.fresh_url()}?queue_type={kind}" for kind in ("quorum", "classic")]
    async with contextlib.AsyncExitStack() as stack:
        brokers = [await stack.enter_async_context(opened(url)) for url in urls]
        # Of each kind one falls due every two milliseconds, from soon after the last is sent.
        due = time.time() * 1000 + 4_000
        jobs = [[envelope(due=round(due + 2 * number)) for number in range(1_500)] for _ in brokers]
        for broker, some_jobs in zip(brokers, jobs, strict=True):
            await broker.publish(some_jobs)
        async with asyncio.timeout(PATIENCE):
            while min([(await ready(broker)).get("work", 0) for broker in brokers]) < 300:
                await asyncio.sleep(0.1)
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)
    for url, some_jobs in zip(urls, jobs, strict=True):
        missing = {one.id for one in some_jobs}
        async with opened(url) as broker, consuming(broker) as consumer, asyncio.timeout(3 * PATIENCE):
            while missing:
                taken = await consumer.receive(500, 5)
                await consumer.settle([ack(one) for one in taken])
                missing -= {one.id for one in taken}


# A settlement that cannot be applied


async def test_one_full_queue_does_not_hold_up_what_goes_elsewhere() -> None:
    url = fresh_url()
    small = Queue("small", max_length=1, queue_type="classic")
    async with opened(url, small) as broker, consuming(broker) as consumer:
        await broker.publish([envelope("small"), envelope(), envelope(), envelope()])
        first, second, third = await some(consumer, 3)
        blocked = ack(first, successors=(envelope("small"),))
        answers = await consumer.settle([ack(second), blocked, retry(third)])
        assert list(answers) == [True, None, True]
        [again] = await some(consumer, 1)
        assert (again.id, again.body) == (third.id, b"again")
        assert await broker.queues.purge("small") == 1
        assert list(await consumer.settle([blocked, ack(again)])) == [True, True]
        assert await ready(broker) == {"small": 1}


# A worker that leaves


@KINDS
async def test_whoever_leaves_takes_along_what_it_has_copied(kind: str) -> None:
    """What it was sent and does not want goes back as a copy, which the server is slow to confirm."""
    url = f"{fresh_url()}&queue_type={kind}"
    send, sent = Confirming.send, []

    async def slowly(self: Confirming, messages: Sequence[Outgoing]) -> Sequence[str | None]:
        told = asyncio.ensure_future(send(self, messages))
        sent.extend(messages)
        await asyncio.sleep(0.3)
        return await told

    async with opened(url) as broker:
        jobs = [envelope() for _ in range(3)]
        await broker.publish(jobs)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Confirming, "send", slowly)
            async with consuming(broker) as consumer, asyncio.timeout(PATIENCE):
                while not sent:  # it leaves some of what it asked for
                    [one] = await consumer.receive(1, 5)
                    consumer._feed.ask(5)  # type: ignore[attr-defined]
                    await asyncio.sleep(0.05)
                    consumer._feed.unask()  # type: ignore[attr-defined]
                    await asyncio.sleep(0.05)
                assert list(await consumer.settle([ack(one)])) == [True]
        async with consuming(broker, worker="two") as other:
            again = await some(other, 2)
            assert {one.id for one in again} < {one.id for one in jobs}
            assert not await other.receive(5, 0.5)


async def test_an_alarm_of_the_servers_takes_nothing_from_a_worker() -> None:
    """A connection that publishes is not read from until it is over: a worker's acknowledgements go by another one."""
    async with opened(f"{fresh_url()}&timeout=1s") as broker, consuming(broker) as consumer:
        await broker.publish([envelope() for _ in range(3)])
        [one, two] = await some(consumer, 2)
        feed = consumer._feed  # type: ignore[attr-defined]
        with alarm(shared()):
            feed.ask(5)
            async with asyncio.timeout(PATIENCE):
                while not feed.ready:
                    await asyncio.sleep(0.01)
                feed.unask()
                while feed._copies is None:
                    await asyncio.sleep(0.01)
                # The server reads no more of this one, which is cut.
                while feed._copies.channel.wire.error is None:
                    await asyncio.sleep(0.01)
            assert list(await consumer.settle([ack(one)])) == [True]
        assert list(await consumer.settle([ack(two)])) == [True]


# Queues that go, and letters of others


async def again(consumer: Consumer, count: int) -> None:
    """So many jobs are taken and settled, each once, through whatever the server does to the connection meanwhile."""
    done: set[str] = set()
    async with asyncio.timeout(PATIENCE):
        while len(done) < count:
            with contextlib.suppress(BrokerUnavailable):
                taken = await consumer.receive(count, 5)
                answers = await consumer.settle([ack(one) for one in taken])
                done |= {one.id for one, answer in zip(taken, answers, strict=True) if answer}


@KINDS
async def test_a_queue_that_was_deleted_and_made_again_is_listened_to_anew_and_answered(kind: str) -> None:
    """On the old channel, a server takes acknowledgements for those of the queue that is gone."""
    url = f"{fresh_url()}&queue_type={kind}"
    async with opened(url) as broker, stranger(url) as other, consuming(broker) as consumer:
        await broker.publish([envelope(body=b"running")])
        [running] = await some(consumer, 1)
        waiting = asyncio.create_task(again(consumer, 20))
        await other.queue_delete(full(url, "work"))
        jobs = [envelope(body=str(number).encode()) for number in range(20)]
        await broker.publish(jobs)
        await waiting
        # What ran meanwhile has no message any more; whether that was noticed depends on how the server took it.
        await consumer.settle([ack(running)])
    async with opened(url) as broker, consuming(broker, worker="two") as consumer:
        assert not await consumer.receive(20, 0.5), "an acknowledgement was not heard"


async def test_letters_of_strangers_without_an_id_are_listed_and_requeued() -> None:
    url = fresh_url()
    mail = Queue("work", message_ttl=0.05)
    async with opened(url, mail) as broker, stranger(url) as other:
        await other.basic_publish(b"nobody's", routing_key=full(url, "work"))
        async with asyncio.timeout(PATIENCE):
            while not (letters := await broker.dead_letters.list()):
                await asyncio.sleep(0.05)
        [letter] = letters
        assert (letter.body, letter.queue, letter.reason) == (b"nobody's", "work", "expired")
        assert letter.id
        async with consuming(broker) as consumer:
            waiting = asyncio.create_task(some(consumer, 1))
            requeued = 0
            while not waiting.done():  # what a busy server gives to nobody in time is a letter again
                requeued += await broker.dead_letters.requeue(letter.id)
                await asyncio.wait([waiting], timeout=1)
            assert requeued
            [taken] = await waiting
            assert (taken.id, taken.body) == (letter.id, b"nobody's")
            assert list(await consumer.settle([ack(taken)])) == [True]
        assert await ready(broker) == {}
