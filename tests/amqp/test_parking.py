"""Jobs that run for longer than the server waits for an acknowledgement."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from camora.interfaces.broker import Consumer, ConsumerSettings
from camora.message import Delivery
from camora.testing.conformance.making import ack, envelope, retry
from camora_amqp import AmqpBroker

from tests.servers.rabbitmq import fresh_url, shared
from tests.servers.rabbitmq_operator import having

KINDS = pytest.mark.parametrize("kind", ["quorum", "classic"])
LEASE = 60.0


@pytest.fixture
def impatient() -> Iterator[str]:
    """The URL of a server that waits for two seconds, and looks twice a second."""
    with having(shared(), consumer_timeout=2000, channel_tick_interval=500, quorum_tick_interval=500):
        yield fresh_url()


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[AmqpBroker]:
    broker = AmqpBroker(url)
    await broker.open()
    try:
        yield broker
    finally:
        await broker.close()


@contextlib.asynccontextmanager
async def consuming(broker: AmqpBroker, name: str = "one") -> AsyncIterator[Consumer]:
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker=name, lease=LEASE))
    try:
        yield consumer
    finally:
        await consumer.close()


async def some(consumer: Consumer, count: int) -> list[Delivery]:
    taken: list[Delivery] = []
    while len(taken) < count:
        came = await consumer.receive(count - len(taken), 20)
        assert came, "nothing came"
        taken += came
    return taken


async def parked(*deliveries: Delivery) -> None:
    """Until each is held by way of its copy."""
    async with asyncio.timeout(20):
        while not all("camora-parked" in repr(one.receipt.message.properties) for one in deliveries):
            await asyncio.sleep(0.02)


@KINDS
async def test_a_job_may_run_for_longer_than_the_server_waits(impatient: str, kind: str) -> None:
    url = f"{impatient}&queue_type={kind}&ack_timeout=2s"
    async with opened(url) as broker, consuming(broker) as consumer, consuming(broker, "two") as other:
        jobs = [envelope(body=str(number).encode()) for number in range(3)]
        await broker.publish(jobs)
        taken = await some(consumer, 3)
        until = time.monotonic() + 7
        while time.monotonic() < until:
            assert not await other.receive(3, 0.5), "somebody else got it while it ran"
        follower = envelope("next")
        answers = await consumer.settle([ack(taken[0], successors=(follower,)), retry(taken[1]), ack(taken[2])])
        assert list(answers) == [True, True, True]
        [again] = await some(other, 1)
        assert (again.id, again.body, again.deliveries) == (jobs[1].id, b"again", 1)
        assert list(await other.settle([ack(again)])) == [True]
        assert not await other.receive(3, 0.5)
        assert await broker.queues.counts() == {"next": {"ready": 1}}


async def test_without_that_the_server_gives_it_to_somebody_else(impatient: str) -> None:
    """So that the other tests show something; and nothing is silent afterwards."""
    url = f"{impatient}&ack_timeout=1h"
    async with opened(url) as broker, consuming(broker) as consumer:
        await broker.publish([envelope()])
        [taken] = await some(consumer, 1)
        [again] = await some(consumer, 1)
        assert (again.id, again.deliveries) == (taken.id, 2)
        assert list(await consumer.settle([ack(taken), ack(again)])) == [False, True]


@KINDS
async def test_what_a_worker_held_for_long_comes_back_when_it_dies(kind: str) -> None:
    url = f"{fresh_url()}&queue_type={kind}&ack_timeout=1s"
    async with opened(url) as broker:
        jobs = [envelope(body=b"whole"), envelope(body=b"")]
        await broker.publish(jobs)
        async with consuming(broker) as consumer:
            taken = await some(consumer, 2)
            await parked(*taken)
        async with consuming(broker, "two") as other:
            again = await some(other, 2)
            assert sorted((one.id, one.body, one.deliveries) for one in again) == sorted(
                (one.id, one.body, 2) for one in jobs
            )
            assert list(await other.settle([ack(one) for one in again])) == [True, True]
            assert not await other.receive(2, 0.3)
