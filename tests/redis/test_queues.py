"""Looking into queues on Redis where others have written something, and where the server is full."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from camora.errors import BrokerUnavailable
from camora.interfaces.broker import ConsumerSettings
from camora.interfaces.queues import CancelResult
from camora.testing.conformance.making import envelope, reject
from camora_redis import RedisBroker

from tests.servers.fixtures import fresh_url, private


@pytest.fixture(params=["redis", "redis-6.2"])
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[RedisBroker]:
    broker = RedisBroker.from_url(fresh_url(request.param))
    await broker.open()
    yield broker
    await broker.close()


async def test_a_purge_goes_on_behind_entries_of_strangers(broker: RedisBroker) -> None:
    for _ in range(1001):
        await command(broker, "XADD", "camora:work", "*", "hello", "world")
    await broker.publish([envelope() for _ in range(3)])
    assert await broker.queues.purge("work") == 1004
    assert await broker.queues.counts() == {}


async def test_entries_of_strangers_among_dead_letters_are_passed_over_and_purged(broker: RedisBroker) -> None:
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="w", lease=60.0))
    mine = envelope()
    await command(broker, "XADD", "{camora:work}:dead", "*", "hello", "world")
    await broker.publish([mine])
    [delivery] = await consumer.receive(1, 10.0)
    await consumer.settle([reject(delivery)])
    await command(broker, "XADD", "{camora:work}:dead", "*", "id", "half a letter")
    assert [letter.id for letter in await broker.dead_letters.list()] == [mine.id]
    assert await broker.dead_letters.purge(queue="work") == 3
    assert await command(broker, "XLEN", "{camora:work}:dead") == 0


@pytest.mark.parametrize("kind", ["redis", "redis-6.2", "valkey"])
async def test_queues_are_paused_and_lent_jobs_cancelled_on_a_full_server(kind: str) -> None:
    with private(kind) as server:
        broker = RedisBroker.from_url(server.url)
        await broker.open()
        consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="w", lease=60.0))
        await broker.publish([envelope()])
        [lent] = await consumer.receive(1, 10.0)
        server.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")
        server.cli("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(BrokerUnavailable, match="full"):
            await broker.publish([envelope()])
        assert await broker.queues.cancel(lent.id) is CancelResult.SIGNALLED
        for queue in ("work", "new"):
            await broker.queues.pause(queue)
        assert await broker.queues.paused() == ["new", "work"]
        for queue in ("work", "new"):
            await broker.queues.pause(queue, paused=False)
        assert await broker.queues.paused() == []
        await broker.close()


async def command(broker: RedisBroker, *words: str) -> Any:
    """Ask the broker's server something."""
    return await broker._link.call(words[1], *words)
