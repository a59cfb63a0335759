"""What a worker settles on Redis, where more comes together than usual."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from camora.interfaces.broker import Consumer, ConsumerSettings
from camora.message import Delivery
from camora.outcome import Settlement
from camora.testing.conformance.making import ack, envelope, reject, release
from camora_redis import RedisBroker
from camora_redis.errors import ServerError

from tests.servers.fixtures import fresh_url


@pytest.fixture(params=["redis", "redis-6.2"])
async def broker(request: pytest.FixtureRequest) -> AsyncIterator[RedisBroker]:
    broker = RedisBroker.from_url(fresh_url(request.param))
    await broker.open()
    yield broker
    await broker.close()


async def taken(broker: RedisBroker, count: int, *, key: str | None = None) -> tuple[Consumer, list[Delivery]]:
    """A consumer, and so many messages in its hands."""
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="w", lease=60.0))
    await broker.publish([envelope(key=key and f"{key}{number}") for number in range(count)])
    found: list[Delivery] = []
    while len(found) < count:
        found += await consumer.receive(count - len(found), 5.0)
    return consumer, found


@pytest.mark.parametrize("settled", [release, reject], ids=["release", "reject"])
@pytest.mark.parametrize("count", [2, 20], ids=["some", "many"])
async def test_a_message_that_somebody_has_deleted_holds_up_no_other(
    broker: RedisBroker, settled: Callable[[Delivery], Settlement], count: int
) -> None:
    consumer, (gone, *others) = await taken(broker, count, key="once")
    await command(broker, "XDEL", "camora:work", gone.receipt.entry)
    assert await consumer.settle([settled(gone), *map(ack, others)]) == [False] + [True] * len(others)
    assert await consumer.settle([settled(gone)]) == [False]
    assert (await command(broker, "XPENDING", "camora:work", "camora"))[0] == 0
    assert await broker.queues.counts() == {}
    # Its place and its key are free for another one.
    again = envelope(id=gone.id, key="once0")
    assert await broker.publish([again]) == [gone.id]
    assert await broker.queues.counts() == {"work": {"ready": 1}}


async def test_what_the_server_refuses_for_itself_is_no_want_of_a_server(broker: RedisBroker) -> None:
    consumer, [first, second] = await taken(broker, 2)
    await command(broker, "SET", "camora:taken", "by something else")
    bad = ack(first, successors=(envelope("taken"),))
    # What could be settled is, and nobody hears that it failed.
    assert await consumer.settle([bad, ack(second)]) == [None, True]
    with pytest.raises(ServerError, match="WRONGTYPE"):
        await consumer.settle([bad])
    await command(broker, "DEL", "camora:taken")
    assert await consumer.settle([bad]) == [True]
    assert await command(broker, "XLEN", "camora:taken") == 1


async def test_a_job_has_thousands_of_successors(broker: RedisBroker) -> None:
    consumer, [first] = await taken(broker, 1)
    successors = tuple(envelope("next") for _ in range(5000))
    assert await consumer.settle([ack(first, successors=successors)]) == [True]
    assert await command(broker, "XLEN", "camora:next") == 5000
    # They are known, the first as well as the last.
    assert await broker.publish(successors[:1] + successors[-1:]) == [successors[0].id, successors[-1].id]
    assert await command(broker, "XLEN", "camora:next") == 5000


async def command(broker: RedisBroker, *words: str) -> Any:
    """Ask the broker's server something."""
    return await broker._link.call(words[1], *words)
