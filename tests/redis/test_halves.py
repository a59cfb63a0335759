"""Large batches travel in parts: whoever dispatched one is told the truth when a part of it is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from camora import Camora, Queue, WorkerSettings
from camora.errors import BrokerUnavailable, DispatchUncertain
from camora.interfaces.broker import Broker
from camora.message import Envelope
from camora.testing.conformance.making import envelope
from camora_redis import ListQueue, RedisBroker

from tests.servers.binaries import need
from tests.servers.cluster import Cluster
from tests.servers.fixtures import private
from tests.servers.redis import Server

LARGE = b"x" * 900_000
COUNT = 20
"""Together more than travels at once."""


@pytest.fixture
def server() -> Iterator[Server]:
    with private("redis", maxmemory_policy="noeviction") as made:
        yield made


@pytest.fixture
async def broker(server: Server) -> AsyncIterator[Broker]:
    made = RedisBroker.from_url(f"{server.url}?wait_timeout=0.1")
    made.declare([Queue("plain"), ListQueue("list"), ListQueue("other")])
    await made.open()
    yield made
    await made.close()


def batch(*queues: str, **options: int) -> list[Envelope]:
    """Large messages, by turns for these queues."""
    return [
        envelope(queues[number % len(queues)], body=_body(number), id=f"job-{number}", options=options or None)
        for number in range(COUNT)
    ]


def _body(number: int) -> bytes:
    return b'{"id":"job-%d","task":"t","kwargs":{"text":"%s"}}' % (number, LARGE)


def stored(server: Server) -> tuple[int, int]:
    """In the stream, and in the lists."""
    lists = int(server.cli("LLEN", "list")) + int(server.cli("LLEN", "other"))
    return int(server.cli("XLEN", "camora:plain")), lists


def leave_room(server: Server, size: int) -> None:
    used = next(line for line in server.cli("INFO", "memory").splitlines() if line.startswith("used_memory:"))
    server.cli("CONFIG", "SET", "maxmemory", int(used.partition(":")[2]) + size)


@pytest.mark.parametrize("queues", [("plain",), ("list",), ("plain", "list", "other")])
async def test_all_of_it_is_stored_though_no_replica_has_it(
    server: Server, broker: Broker, queues: tuple[str, ...]
) -> None:
    with pytest.raises(DispatchUncertain, match="only 0 of 1 replicas") as caught:
        await broker.publish(batch(*queues, wait_replicas=1))
    assert caught.value.final
    assert sum(stored(server)) == COUNT


async def test_what_a_full_server_has_taken_of_it_is_not_called_nothing(server: Server, broker: Broker) -> None:
    leave_room(server, 7 * 1024 * 1024)
    with pytest.raises(DispatchUncertain, match="a part of the batch is stored, and the rest is not: .* it is full"):
        await broker.publish(batch("plain"))
    assert 0 < stored(server)[0] < COUNT
    server.cli("CONFIG", "SET", "maxmemory", 0)
    assert await broker.publish(batch("plain")) == [f"job-{number}" for number in range(COUNT)]
    assert stored(server) == (COUNT, 0)


async def test_a_list_takes_all_of_it_or_nothing(server: Server, broker: Broker) -> None:
    leave_room(server, 7 * 1024 * 1024)
    with pytest.raises(BrokerUnavailable, match="it is full"):
        await broker.publish(batch("list"))
    assert stored(server) == (0, 0)


async def test_what_one_list_has_taken_is_not_repeated_for_another_ones_sake(server: Server, broker: Broker) -> None:
    server.cli("SET", "other", "no list")
    with pytest.raises(DispatchUncertain, match="'other' is no list") as caught:
        await broker.publish(
            [envelope("list", body=_body(0), id="job-0"), envelope("other", body=_body(1), id="job-1")]
        )
    assert caught.value.final
    assert server.cli("LLEN", "list") == 1


@pytest.mark.timeout(120)
async def test_a_worker_starts_though_the_node_of_one_of_its_lanes_is_gone() -> None:
    with Cluster(need("redis"), full_coverage=False, node_timeout=1000) as cluster:
        list_of_queues = cluster.node_of("{camora}:queues")
        names = [f"q{number}" for number in range(100)]
        living = next(name for name in names if cluster.node_of(f"camora:{name}") is list_of_queues)
        dead = next(name for name in names if cluster.node_of(f"camora:{name}") is not list_of_queues)
        # A queue with a concurrency of its own has a lane, and a consumer, of its own.
        app = Camora(RedisBroker.from_url(f"{cluster.url}?timeout=1"), queues=[Queue(dead, concurrency=2)])
        ran = asyncio.Event()

        @app.task(name="f", queue=dead)
        async def f() -> None: ...

        @app.task(name="g", queue=living)
        async def g() -> None:
            ran.set()

        async with app:
            await g.dispatch()
            cluster.node_of(f"camora:{dead}").kill()
            async with app.worker(settings=WorkerSettings(shutdown_timeout=1)):
                async with asyncio.timeout(60):
                    await ran.wait()
