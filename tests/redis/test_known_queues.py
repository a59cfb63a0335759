"""The set of queues' names: a server that has lost it is told again by those who use the queues."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest
from camora.errors import BrokerUnavailable
from camora.interfaces.broker import Consumer, ConsumerSettings
from camora.testing.conformance.making import ack, envelope
from camora_redis import RedisBroker
from camora_redis import broker as module

from tests.servers.fixtures import private_server, shared_cluster
from tests.servers.redis import Server

__all__ = ["private_server"]  # a fixture

NewServer = Callable[..., Server]
_prefixes = itertools.count()


async def names(broker: RedisBroker) -> set[bytes]:
    name = broker.database.keys.queues
    return set(await broker._link.call(name, "SMEMBERS", name))


async def consumer_of(broker: RedisBroker, *queues: str) -> Consumer:
    return await broker.consumer(ConsumerSettings(queues=queues, worker="w", lease=30.0))


async def told_again(broker: RedisBroker, consumer: Consumer, *queues: str) -> None:
    """Let the consumer work until all its queues are known again."""
    wanted = {queue.encode() for queue in queues}
    async with asyncio.timeout(30):
        while True:
            try:
                for delivery in await consumer.receive(1, 0.2):
                    await consumer.settle([ack(delivery)])
                if await names(broker) >= wanted:
                    return
            except BrokerUnavailable:
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", ["redis", "valkey"])
@pytest.mark.parametrize("how", ["flushed", "restarted"])
async def test_a_waiting_consumer_makes_its_queue_known_again(private_server: NewServer, kind: str, how: str) -> None:
    server = private_server(kind)
    broker = RedisBroker.from_url(f"{server.url}?timeout=1")
    await broker.open()
    consumer = await consumer_of(broker, "work")
    assert await names(broker) == {b"work"}
    waiting = asyncio.create_task(consumer.receive(1, 0.2))
    await waiting
    if how == "flushed":
        server.cli("FLUSHALL")
    else:
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        assert server.cli("DBSIZE") == 0
    await told_again(broker, consumer, "work")
    await consumer.close()
    await broker.close()


async def test_a_waiting_consumer_makes_its_queues_known_again_in_a_cluster() -> None:
    prefix = f"known{next(_prefixes)}"
    cluster = shared_cluster()
    broker = RedisBroker.from_url(f"{cluster.url}?prefix={prefix}")
    await broker.open()
    consumer = await consumer_of(broker, "one", "two", "three")
    assert await consumer.receive(1, 0.2) == []
    keys = broker.database.keys
    for key in (keys.queues, *map(keys.of_queue, ("one", "two", "three"))):
        await broker._link.call(key, "DEL", key)
    await told_again(broker, consumer, "one", "two", "three")
    await consumer.close()
    await broker.close()


@pytest.mark.parametrize("kind", ["redis", "valkey"])
async def test_a_dispatcher_makes_its_queues_known_again(
    private_server: NewServer, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_KNOWN_FOR", 0.1)
    server = private_server(kind)
    broker = RedisBroker.from_url(f"{server.url}?timeout=1")
    await broker.open()
    await broker.publish([envelope()])
    [known] = await names(broker)
    server.cli("FLUSHALL")
    async with asyncio.timeout(30):
        while known not in await names(broker):
            await asyncio.sleep(0.02)
            last = envelope()
            await broker.publish([last])
    assert await broker.queues.find(last.id) is not None
    await broker.close()
