"""Results in Redis: told to those who wait, whatever happens to connections and servers meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator

import msgspec
import pytest
from camora import Camora
from camora.errors import BrokerUnavailable, DecodeError
from camora.interfaces.broker import ConsumerSettings
from camora.outcome import JobRecord, Status
from camora.testing.conformance.making import ack, envelope, fresh_id, job_record
from camora_redis import waiting
from camora_redis.broker import RedisBroker
from camora_redis.keys import Keys
from camora_redis.link import Link
from camora_redis.results import RedisResultBackend
from camora_redis.subscription import Subscription

from tests.servers.binaries import need
from tests.servers.cluster import Cluster
from tests.servers.fixtures import fresh_url, private_server, shared_cluster
from tests.servers.proxy import Proxy
from tests.servers.redis import Server

__all__ = ["private_server"]  # a fixture

NewServer = Callable[..., Server]
PATIENCE = 20.0
"""Seconds after which what has not come is taken for lost."""
PROMPT = 2.0
CHANNEL = "camora:finished#0"


@pytest.fixture
def server(private_server: NewServer) -> Server:
    return private_server(appendonly=True, appendfsync="always")


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    with Proxy((server.host, server.port)) as between:
        yield between


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[RedisResultBackend]:
    backend = RedisResultBackend(url)
    await backend.open()
    try:
        yield backend
    finally:
        await backend.close()


async def until(condition: Callable[[], bool], what: str) -> None:
    """A server tells nobody: look until it is so."""
    begin = time.monotonic()
    while not condition():
        assert time.monotonic() - begin < PATIENCE, f"{what}: not within {PATIENCE} s"
        await asyncio.sleep(0.01)


def listeners(server: Server) -> int:
    return int(server.cli("PUBSUB", "NUMSUB", CHANNEL)[1])


async def subscribed(server: Server, number: int = 1) -> None:
    await until(lambda: listeners(server) == number, f"{number} listeners")


def begin(backend: RedisResultBackend, job_id: str) -> asyncio.Task[JobRecord | None]:
    return asyncio.create_task(backend.wait(job_id, PATIENCE))


async def store(url: str, *records: JobRecord) -> None:
    async with opened(url) as other:
        await other.store(records)


def told_nobody(server: Server, record: JobRecord) -> None:
    """The record is there, and its message got lost."""
    server.cli("SET", f"camora:result:{record.id}", b"F" + msgspec.msgpack.encode(record))


# Connections that end


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_subscription_that_the_server_ends_is_made_again(server: Server, protocol: int) -> None:
    async with opened(f"{server.url}?protocol={protocol}") as backend:
        record = job_record(fresh_id())
        task = begin(backend, record.id)
        await subscribed(server)
        [before] = server.cli("CLIENT", "LIST", "TYPE", "pubsub").strip().splitlines()
        assert server.cli("CLIENT", "KILL", "TYPE", "pubsub") == 1
        await until(
            lambda: server.cli("CLIENT", "LIST", "TYPE", "pubsub").strip() not in ("", before), "another subscription"
        )
        await store(server.url, record)
        assert await task == record


async def test_what_finishes_while_nobody_is_subscribed_is_seen_afterwards(server: Server, proxy: Proxy) -> None:
    record = job_record(fresh_id())
    async with opened(f"redis://{proxy.host}:{proxy.port}/0") as backend:
        task = begin(backend, record.id)
        await subscribed(server)
        proxy.refuse()
        proxy.cut()
        await subscribed(server, 0)
        await store(server.url, record)
        assert not task.done()
        proxy.heal()
        assert await task == record


async def test_a_network_that_swallows_everything_costs_only_time(server: Server, proxy: Proxy) -> None:
    record = job_record(fresh_id())
    async with opened(f"redis://{proxy.host}:{proxy.port}/0?timeout=0.5") as backend:
        task = begin(backend, record.id)
        await subscribed(server)
        proxy.hold()
        await store(server.url, record)
        proxy.heal()
        assert await task == record


async def test_a_connection_that_only_this_side_has_is_noticed(server: Server, proxy: Proxy) -> None:
    ended = asyncio.Event()
    heard: list[bytes] = []
    async with opened(f"redis://{proxy.host}:{proxy.port}/0") as backend:
        link = Link(backend.database, "the test")
        subscription = Subscription(link, "news", told=heard.append, ended=ended.set)
        await subscription.open("")
        subscription.check()  # it is answered
        server.cli("PUBLISH", "news", "first")
        await until(lambda: heard == [b"first"], "the message")
        subscription.check()
        assert not subscription.closed
        proxy.hold()
        subscription.check()
        subscription.check()
        await until(lambda: subscription.closed, "the end of the connection")
        async with asyncio.timeout(PATIENCE):
            await ended.wait()
        await subscription.close()
        await link.close()


async def test_a_server_that_is_restarted_finishes_no_waiting(server: Server) -> None:
    there, later = job_record(fresh_id()), job_record(fresh_id())
    async with opened(server.url) as backend:
        tasks = [begin(backend, record.id) for record in (there, later)]
        await subscribed(server)
        server.kill()
        with pytest.raises(BrokerUnavailable):
            await backend.fetch([there.id])
        server.start()
        told_nobody(server, there)
        assert await tasks[0] == there
        await store(server.url, later)
        assert await tasks[1] == later


async def test_who_cannot_be_told_in_time_hears_why(server: Server) -> None:
    async with opened(server.url) as backend:
        long = begin(backend, "a-job")
        await subscribed(server)
        server.kill()
        with pytest.raises(BrokerUnavailable, match=str(server.port)):
            await backend.wait("another-job", 0.5)
        with pytest.raises(BrokerUnavailable, match=str(server.port)):
            await backend.wait("another-job", 0)
        server.start()
        await store(server.url, job_record("a-job"))
        assert await long


async def test_who_may_not_listen_hears_why_and_is_told_as_soon_as_it_may(private_server: NewServer) -> None:
    server = private_server(users=["ann on >secret ~camora:* ~{camora* &camora:* +@all"])
    url = server.url_of(user="ann", password="secret")
    async with opened(url) as backend:
        there, later = job_record(fresh_id()), job_record(fresh_id())
        server.cli("ACL", "SETUSER", "ann", "resetchannels")
        await backend.store([there])  # nobody can be told, and it is kept
        assert await backend.wait(there.id, PATIENCE) == there
        with pytest.raises(BrokerUnavailable, match="NOPERM"):
            await backend.wait(later.id, 0.3)
        task = begin(backend, later.id)
        server.cli("ACL", "SETUSER", "ann", f"&{CHANNEL}")
        await subscribed(server)
        await backend.store([later])
        assert await task == later


async def test_a_lost_message_costs_seconds(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_FLOOR", 0.2)
    records = [job_record(fresh_id()) for _ in range(3)]
    async with opened(server.url) as backend:
        tasks = [begin(backend, record.id) for record in records]
        await subscribed(server)
        for record in records:
            told_nobody(server, record)
        assert await asyncio.gather(*tasks) == records


async def test_what_others_say_on_the_channel_does_no_harm(server: Server) -> None:
    async with opened(server.url) as backend:
        record = job_record(fresh_id())
        task = begin(backend, record.id)
        await subscribed(server)
        for junk in (b"", b"junk", b"\xc1", record.id.encode(), msgspec.msgpack.encode(["elsewhere:", record.id])):
            server.cli("PUBLISH", CHANNEL, junk)
        await backend.store([job_record(record.id, Status.RUNNING)])
        assert not task.done()
        await backend.store([record])
        assert await task == record


async def test_who_waits_survives_the_end_of_all_other_tasks(server: Server) -> None:
    async with opened(server.url) as backend:
        record = job_record(fresh_id())
        task = begin(backend, record.id)
        await subscribed(server)
        for other in asyncio.all_tasks() - {task, asyncio.current_task()}:
            other.cancel()
        await backend.store([record])
        assert await task == record


# What it costs


def calls(server: Server) -> dict[str, int]:
    """How often each command was called since the last reset, without those that are needed for asking."""
    found = {
        name.removeprefix("cmdstat_"): int(value.partition("calls=")[2].partition(",")[0])
        for name, value in server.info("commandstats").items()
    }
    return {name: number for name, number in found.items() if name not in ("info", "config|resetstat")}


async def test_nothing_is_sent_at_rest(server: Server) -> None:
    async with opened(server.url) as backend:
        server.cli("CONFIG", "RESETSTAT")
        task = begin(backend, "a-job")
        await subscribed(server)
        await until(lambda: calls(server).get("mget", 0) == 2, "a look before and one after subscribing")
        server.cli("CONFIG", "RESETSTAT")
        assert await backend.wait("a-job", 1.0) is None
        assert calls(server) == {"mget": 1}, "the newcomer's look, and nothing else"
        task.cancel()


async def test_the_connection_is_closed_when_nobody_has_waited_for_a_while(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "_FLOOR", 0.1)
    async with opened(server.url) as backend:
        assert await backend.wait("a-job", 0.2) is None
        await subscribed(server, 0)
        server.cli("CONFIG", "RESETSTAT")
        await asyncio.sleep(0.5)  # many floors
        assert calls(server) == {}
        record = job_record(fresh_id())
        task = begin(backend, record.id)
        await subscribed(server)
        await backend.store([record])
        assert await task == record


async def test_request_after_request_uses_one_subscription(server: Server) -> None:
    async with opened(server.url) as backend:
        for _ in range(20):
            record = job_record(fresh_id())
            task = begin(backend, record.id)
            await subscribed(server)
            await backend.store([record])
            assert await task == record
        assert calls(server)["subscribe"] == 1


async def test_a_finished_job_is_seen_without_a_subscription(server: Server) -> None:
    async with opened(server.url) as backend:
        record = job_record(fresh_id())
        await backend.store([record])
        assert await backend.wait(record.id, PATIENCE) == record
        assert "subscribe" not in calls(server)


@pytest.mark.parametrize("protocol", [2, 3])
@pytest.mark.parametrize(("value", "looks"), [(b"1", 0), (b"1" * 1000, 1)], ids=["small", "large"])
async def test_those_who_are_told_together_look_together_if_at_all(
    server: Server, protocol: int, value: bytes, looks: int
) -> None:
    records = [job_record(fresh_id(), value=value) for _ in range(400)]
    async with opened(f"{server.url}?protocol={protocol}") as backend, opened(server.url) as other:
        server.cli("CONFIG", "RESETSTAT")
        tasks = [begin(backend, record.id) for record in records]
        await subscribed(server)
        await until(lambda: calls(server).get("mget", 0) == 2, "a look before and one after subscribing")
        server.cli("CONFIG", "RESETSTAT")
        await other.store(records)
        assert await asyncio.gather(*tasks) == records
        assert calls(server)["publish"] == 1
        assert calls(server).get("mget", 0) == looks


# What is kept


async def test_another_database_is_another_store() -> None:
    job_id = fresh_id()
    async with opened(fresh_url()) as here, opened(fresh_url()) as there:
        task = begin(here, job_id)
        await there.store([job_record(job_id, value=b"there")])
        assert await here.wait(job_id, 0.2) is None
        assert not task.done()
        await here.store([job_record(job_id, value=b"here")])
        record = await task
        assert record is not None
        assert record.value == b"here"


@pytest.mark.parametrize("job_id", ["with spaces", "line\nline", "ünï:{code}", "camora:result:", "*"])
async def test_any_id_can_be_waited_for(job_id: str) -> None:
    async with opened(fresh_url()) as backend:
        waiters = [begin(backend, job_id) for _ in range(2)]
        assert await backend.wait("never-was", 0.1) is None
        await backend.store([job_record(job_id)])
        assert [record and record.id for record in await asyncio.gather(*waiters)] == [job_id, job_id]
        assert await backend.forget([job_id, job_id]) == 1


async def test_a_large_batch_is_stored_in_steps_and_in_order() -> None:
    async with opened(fresh_url()) as backend:
        twice = fresh_id()
        large = [job_record(fresh_id(), value=bytes(1024 * 1024)) for _ in range(9)]
        small = [job_record(fresh_id(), value=b"") for _ in range(1100)]
        first, last = job_record(twice, value=b"first"), job_record(twice, value=b"last")
        await backend.store([first, *large, *small, last])
        fetched = await backend.fetch([twice, *(record.id for record in [*large, *small])])
        assert list(fetched) == [first, *large, *small]
        assert await backend.forget([record.id for record in [*large, *small]]) == 1109


async def test_a_record_that_cannot_be_read_is_an_error_that_names_it(server: Server) -> None:
    async with opened(server.url) as backend:
        server.cli("SET", "camora:result:a-job", b"F\xc1")
        with pytest.raises(DecodeError, match="a-job"):
            await backend.fetch(["a-job"])
        with pytest.raises(DecodeError, match="a-job"):
            await backend.wait("a-job", PATIENCE)


async def test_records_end_by_themselves(server: Server) -> None:
    async with opened(server.url) as backend:
        await backend.store([job_record(fresh_id(), ttl=60.0), job_record(fresh_id(), Status.RUNNING, ttl=0.0001)])
        await until(lambda: server.cli("DBSIZE") == 1, "the end of the short one")
        [key] = server.cli("KEYS", "*")
        assert 50 < server.cli("TTL", key) <= 60


# Settlements, and the whole


async def test_a_settlement_wakes_those_who_wait(server: Server) -> None:
    broker = RedisBroker(url=server.url)
    await broker.open()
    async with opened(server.url) as backend:
        jobs = [envelope() for _ in range(50)]
        tasks = [begin(backend, job.id) for job in jobs]
        await subscribed(server)
        await broker.publish(jobs)
        consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="w", lease=30.0, prefetch=1))
        deliveries = await consumer.receive(50, PATIENCE)
        records = [job_record(delivery.id) for delivery in deliveries]
        settlements = [ack(one, record=record) for one, record in zip(deliveries, records, strict=True)]
        assert all(await consumer.settle(settlements))
        assert {record.id for record in await asyncio.gather(*tasks) if record} == {job.id for job in jobs}
        assert not any(await consumer.settle(settlements))
        await consumer.close()
    await broker.close()


async def test_dispatching_and_waiting_by_the_hundred() -> None:
    app = Camora(fresh_url())

    @app.task
    async def double(number: int) -> int:
        return 2 * number

    async def ask(number: int) -> int:
        job = await double.dispatch(number)
        return await job.result(timeout=PATIENCE)

    async with app.worker(concurrency=20), asyncio.timeout(60):
        assert await asyncio.gather(*(ask(number) for number in range(300))) == [2 * number for number in range(300)]
    await app.close()


# Its end


async def test_closing_closes_every_connection(server: Server) -> None:
    async with opened(server.url) as backend:
        task = begin(backend, "a-job")
        await subscribed(server)
    assert await task is None
    await until(lambda: int(server.info("clients")["connected_clients"]) == 1, "the end of all connections")
    with pytest.raises(BrokerUnavailable, match="closed"):
        await backend.wait("a-job", 1)


def test_a_backend_of_a_loop_that_is_gone_can_be_abandoned_in_another_thread(server: Server) -> None:
    backend = RedisResultBackend(server.url)

    async def use() -> None:
        await backend.open()
        assert await backend.wait("a-job", 0.05) is None

    loop = asyncio.new_event_loop()
    loop.run_until_complete(use())
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    thread = threading.Thread(target=backend.abandon)
    thread.start()
    thread.join()
    backend.abandon()
    deadline = time.monotonic() + PATIENCE
    while int(server.info("clients")["connected_clients"]) > 1:
        assert time.monotonic() < deadline


# In a cluster


async def test_in_a_cluster_a_record_is_found_by_its_id_alone() -> None:
    url = f"{shared_cluster().url}?prefix=results"
    async with opened(url) as backend:
        queues = ["", "a", "b", "c", "{d}", "a queue"]
        records = [msgspec.structs.replace(job_record(fresh_id()), queue=queue) for queue in queues]
        tasks = [begin(backend, record.id) for record in records]
        await store(url, *records[:3])
        await backend.store(records[3:])
        assert await asyncio.gather(*tasks) == records
        assert list(await backend.fetch([record.id for record in records])) == records
        assert await backend.forget([record.id for record in records]) == len(records)


async def test_a_dead_node_of_a_cluster_holds_up_its_own_results_only() -> None:
    with Cluster(need("redis"), full_coverage=False, appendonly=True) as cluster:
        listened = cluster.node_of("0")
        dead = next(node for node in cluster.nodes if node is not listened)
        keys = Keys(clustered=True)
        queues = [f"queue-{number}" for number in range(30)]
        gone = next(queue for queue in queues if cluster.node_of(keys.of_queue(queue)) is dead)
        left = next(queue for queue in queues if cluster.node_of(keys.of_queue(queue)) is not dead)
        here = [msgspec.structs.replace(job_record(fresh_id()), queue=left) for _ in range(3)]
        there = msgspec.structs.replace(job_record(fresh_id()), queue=gone)
        async with opened(f"{cluster.url}?timeout=1") as backend:
            await backend.store([here[0], msgspec.structs.replace(job_record(fresh_id()), queue=gone)])
            tasks = [begin(backend, record.id) for record in (*here[1:], there)]
            cluster.kill(dead)
            await backend.store([here[1]])
            assert await tasks[0] == here[1]
            assert await backend.fetch([here[0].id, here[1].id]) == here[:2]
            with pytest.raises(BrokerUnavailable):
                await backend.fetch([here[0].id, there.id])
            with pytest.raises(BrokerUnavailable):
                await backend.store([there])
            assert await backend.wait(here[0].id, PATIENCE) == here[0]
            await backend.store([here[2]])
            assert await tasks[1] == here[2]
            assert not tasks[2].done()
            dead.start()
            cluster.wait_ok()
            await backend.store([there])
            assert await tasks[2] == there
