"""A Cluster of which one node hangs: workers of the others' queues do not wait for it."""

from __future__ import annotations

import asyncio

import pytest
from camora.errors import BrokerUnavailable
from camora.interfaces.broker import ConsumerSettings
from camora.testing.conformance.making import ack, envelope
from camora_redis import RedisBroker

from tests.servers.binaries import need
from tests.servers.cluster import Cluster

_TIMEOUT = 20.0

pytestmark = pytest.mark.timeout(120)


async def test_jobs_of_a_living_node_begin_at_once_beside_a_hanging_one() -> None:
    with Cluster(need("redis"), full_coverage=False) as cluster:
        broker = RedisBroker.from_url(f"{cluster.url}?timeout={_TIMEOUT:g}")
        await broker.open()
        names = [f"q{number}" for number in range(100)]
        list_of_queues = cluster.node_of("{camora}:queues")
        living = next(name for name in names if cluster.node_of(f"camora:{name}") is list_of_queues)
        hanging = next(name for name in names if cluster.node_of(f"camora:{name}") is not list_of_queues)
        consumer = await broker.consumer(ConsumerSettings(queues=(living, hanging), worker="w", lease=600.0))
        await broker.publish([envelope(living), envelope(hanging)])
        taken = 0
        while taken < 2:  # now both have been looked at
            found = await consumer.receive(1, 5.0)
            assert all(await consumer.settle([ack(one) for one in found]))
            taken += len(found)
        node = cluster.node_of(f"camora:{hanging}")
        receiving = asyncio.create_task(consumer.receive(1, _TIMEOUT))
        while " cmd=xreadgroup " not in node.cli("CLIENT", "LIST"):
            await asyncio.sleep(0.01)
        node.pause()
        try:
            async with asyncio.timeout(_TIMEOUT / 2):
                for _ in range(3):
                    await broker.publish([envelope(living)])
                    [one] = await receiving
                    assert await consumer.settle([ack(one)]) == [True]
                    receiving = asyncio.create_task(consumer.receive(1, _TIMEOUT))
        finally:
            node.resume()
        await broker.publish([envelope(hanging)])
        found = await receiving
        async with asyncio.timeout(3 * _TIMEOUT):
            while not found:
                try:
                    found = await consumer.receive(1, 1.0)
                except BrokerUnavailable:
                    await asyncio.sleep(0.05)
        assert found[0].queue == hanging
        await consumer.close()
        await broker.close()
