"""The way to the servers: deadlines, reconnecting, and nothing left behind."""

from __future__ import annotations

import asyncio
import gc
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from camora.errors import BrokerUnavailable, ConfigurationError, DispatchUncertain
from camora.interfaces.broker import ConsumerSettings
from camora.message import Envelope
from camora.outcome import Action, Settlement
from camora_redis.broker import RedisBroker
from camora_redis.errors import ConnectionLost, ServerError
from camora_redis.link import Link
from camora_redis.scripting import Script, script
from camora_redis.settings import RedisSettings
from camora_redis.store import Store

from tests.redis.loops import LOOPS, run, telling
from tests.servers.fixtures import fresh_url, private_server, shared, shared_cluster
from tests.servers.proxy import Proxy
from tests.servers.redis import Server

__all__ = ["private_server"]

_TIMEOUT = 0.3
_NUMBERS = Script("return tonumber(ARGV[1])", "0" * 40)


def envelope(job_id: str, queue: str = "default") -> Envelope:
    return Envelope(id=job_id, task="t", queue=queue, body=b"{}")


def store(url: str, **settings: Any) -> Store:
    return Store.of_url(url, RedisSettings(**settings))


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    server = shared()
    assert isinstance(server, Server)
    with Proxy((server.host, server.port)) as made:
        yield made


@pytest.fixture
async def link(proxy: Proxy) -> AsyncIterator[Link]:
    made = Link(store(f"redis://127.0.0.1:{proxy.port}/0", timeout=_TIMEOUT), "test")
    yield made
    await made.close()


def through(proxy: Proxy, url: str) -> str:
    return f"redis://127.0.0.1:{proxy.port}/{url.rpartition('/')[2]}?timeout={_TIMEOUT}"


@pytest.mark.parametrize("loop", list(LOOPS))
@pytest.mark.parametrize("protocol", [2, 3])
def test_calls_scripts_and_batches(loop: str, protocol: int) -> None:
    async def main() -> None:
        link = Link(store(fresh_url(), protocol=protocol), "test")
        assert await link.call("k", "SET", "k", "v") == b"OK"
        assert await link.calls([("k", ("GET", "k")), ("k", ("ECHO", "x"))]) == [b"v", b"x"]
        assert await link.calls([]) == []
        assert await link.run(_NUMBERS, ("k",), "7") == 7  # its digest is not the true one: NOSCRIPT
        with pytest.raises(ServerError):
            await link.call("k", "LPUSH", "k", "x")
        await link.close()
        await link.close()
        with pytest.raises(BrokerUnavailable, match="closed"):
            await link.call("k", "GET", "k")

    run(loop, main())


async def test_a_hundred_first_calls_make_one_connection(link: Link, proxy: Proxy) -> None:
    await asyncio.gather(*(link.call("", "PING") for _ in range(100)))
    assert proxy.connections == 1


async def test_a_cancelled_first_call_takes_the_connection_from_nobody(link: Link, proxy: Proxy) -> None:
    proxy.delay(0.02)
    first = asyncio.ensure_future(link.call("", "PING"))
    second = asyncio.ensure_future(link.call("", "PING"))
    await asyncio.sleep(0)
    first.cancel()
    assert await second in (b"PONG", "PONG")
    with pytest.raises(asyncio.CancelledError):
        await first


@pytest.mark.parametrize("connected", [True, False])
async def test_a_server_that_never_answers(link: Link, proxy: Proxy, connected: bool) -> None:
    if connected:
        await link.call("", "PING")
    proxy.hold()
    began = time.monotonic()
    with pytest.raises((BrokerUnavailable, ConnectionLost)):
        await link.call("", "PING")
    assert time.monotonic() - began < 40 * _TIMEOUT
    proxy.heal()
    await recovered(link)


async def recovered(link: Link) -> None:
    """It works again, by itself."""
    async with asyncio.timeout(60):
        while True:
            try:
                await link.call("", "PING")
            except (BrokerUnavailable, ConnectionLost):
                await asyncio.sleep(0.01)
            else:
                return


async def test_a_server_that_is_known_to_be_away_is_not_waited_for(link: Link, proxy: Proxy) -> None:
    await link.call("", "PING")
    proxy.hold()
    for _ in range(2):
        with pytest.raises((BrokerUnavailable, ConnectionLost)):
            await link.call("", "PING")
    # One attempt may be on its way at a time; callers hear at once what the last one has come to.
    began = time.monotonic()
    answers = await asyncio.gather(*(link.call("", "PING") for _ in range(50)), return_exceptions=True)
    assert all(isinstance(answer, BrokerUnavailable) for answer in answers)
    assert time.monotonic() - began < 40 * _TIMEOUT
    assert proxy.connections <= 4
    proxy.heal()
    await recovered(link)


@pytest.mark.parametrize("how", ["cut", "refuse", "kill"])
async def test_it_comes_back_by_itself(link: Link, proxy: Proxy, how: str) -> None:
    number = await link.call("", "CLIENT", "ID")
    match how:
        case "cut":
            proxy.cut()
        case "refuse":
            proxy.refuse()
            proxy.cut()
            with pytest.raises((BrokerUnavailable, ConnectionLost)):
                await link.call("", "PING")
            with pytest.raises(BrokerUnavailable):
                await link.call("", "PING")
            proxy.heal()
        case "kill":
            await asyncio.to_thread(shared().cli, "CLIENT", "KILL", "ID", number)
    await recovered(link)


async def test_a_server_that_closes_idle_connections(private_server: Callable[..., Server]) -> None:
    server = private_server(config=["timeout 1"])
    link = Link(store(server.url), "test")
    wire = await link.wire("")
    async with asyncio.timeout(60):
        await wire.ended()
    assert await link.call("", "ECHO", "again") == b"again"
    await link.close()


async def test_forgotten_scripts_are_told_again(link: Link) -> None:
    calls = [asyncio.ensure_future(link.run(script("count"), ("camora:x", "y"), "g")) for _ in range(20)]
    await asyncio.sleep(0)
    await asyncio.to_thread(shared().cli, "SCRIPT", "FLUSH")
    calls += [asyncio.ensure_future(link.run(script("count"), ("camora:x", "y"), "g")) for _ in range(20)]
    assert await asyncio.gather(*calls) == [[0, 0, 0, 0]] * 40


async def test_killed_at_any_moment_every_call_has_an_end_and_the_right_one(
    private_server: Callable[..., Server],
) -> None:
    server = private_server()
    link = Link(store(server.url), "test")

    async def caller(number: int) -> int:
        wrong = 0
        for turn in range(60):
            text = f"{number}-{turn}"
            try:
                assert await link.call("", "ECHO", text) == text.encode()
            except (BrokerUnavailable, ConnectionLost):
                wrong += 1
        return wrong

    async def killer() -> None:
        while True:
            await asyncio.sleep(0.002)
            await asyncio.to_thread(server.cli, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    killing = asyncio.create_task(killer())
    async with asyncio.timeout(30):
        await asyncio.gather(*(caller(number) for number in range(20)))
    killing.cancel()
    await asyncio.wait([killing])
    await recovered(link)
    await link.close()


@pytest.mark.parametrize("call", ["publish", "receive", "settle", "extend"])
async def test_every_call_of_a_broker_has_a_deadline(proxy: Proxy, call: str) -> None:
    broker = RedisBroker.from_url(through(proxy, fresh_url()))
    await broker.open()
    consumer = await broker.consumer(ConsumerSettings(queues=("default",), worker="w"))
    await broker.publish([envelope("a")])
    [delivery] = await consumer.receive(1, 1)
    leases = consumer.leases()
    calls: dict[str, Callable[[], Any]] = {
        "publish": lambda: broker.publish([envelope("b")]),
        "receive": lambda: consumer.receive(1, 1),
        "settle": lambda: consumer.settle([Settlement(delivery=delivery, action=Action.ACK)]),
        "extend": lambda: asyncio.to_thread(leases.extend, [delivery]),
    }
    assert await asyncio.to_thread(leases.extend, [delivery])
    proxy.hold()
    for _ in range(3):  # on the connection that is there, and on new ones
        began = time.monotonic()
        with pytest.raises((BrokerUnavailable, DispatchUncertain)):
            await calls[call]()
        assert time.monotonic() - began < 40 * _TIMEOUT
    proxy.heal()
    async with asyncio.timeout(60):
        while True:
            try:
                await calls[call]()
                break
            except (BrokerUnavailable, DispatchUncertain):
                await asyncio.sleep(0.05)
    await asyncio.to_thread(leases.close)
    await consumer.close()
    await broker.close()


async def test_a_publication_whose_answer_is_lost_is_stored_once(proxy: Proxy) -> None:
    broker = RedisBroker.from_url(through(proxy, fresh_url()))
    await broker.open()
    await broker.publish([envelope("first")])
    done = proxy.drop_next_reply(b"uncertain")
    with pytest.raises(DispatchUncertain) as caught:
        await broker.publish([envelope("uncertain")])
    assert caught.value.job_id == "uncertain"
    assert done.wait(60)
    await broker.publish([envelope("uncertain")])
    assert await broker.queues.counts() == {"default": {"ready": 2}}
    await broker.close()


@pytest.mark.parametrize("loop", list(LOOPS))
@pytest.mark.parametrize("what", ["nothing", "hello", "torn"])
def test_nothing_is_left_when_opening_fails_half_way(loop: str, what: str) -> None:
    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write({"nothing": b"", "hello": b"%1\r\n$5\r\nproto\r\n:3\r\n", "torn": b"%7\r\n$5\r\npro"}[what])
        await reader.read()

    async def main() -> None:
        async with telling(tell) as port:
            link = Link(store(f"redis://127.0.0.1:{port}/0", timeout=_TIMEOUT), "test")
            with pytest.raises(BrokerUnavailable):
                await link.call("", "PING")
            calling = asyncio.ensure_future(link.call("", "PING"))
            await asyncio.sleep(0.05)
            await link.close()  # while it is opening
            with pytest.raises(BrokerUnavailable):
                await calling

    run(loop, main())


@pytest.mark.parametrize("loop", list(LOOPS))
def test_abandoning_when_the_loop_is_gone(loop: str, private_server: Callable[..., Server]) -> None:
    server = private_server()
    made = LOOPS[loop]()

    async def main() -> Link:
        link = Link(store(server.url), "test")
        await link.call("", "PING")
        await link.new_wire("")
        return link

    link = made.run_until_complete(main())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if loop == "uvloop" else "error", ResourceWarning)
        made.close()
    with ThreadPoolExecutor() as threads:
        for _ in range(2):
            threads.submit(link.abandon).result()
    until = time.monotonic() + 10
    while len(server.cli("CLIENT", "LIST").splitlines()) > 1:
        assert time.monotonic() < until
    del link
    gc.collect()


async def test_a_node_of_a_cluster_is_no_single_server() -> None:
    cluster = shared_cluster()
    node = cluster.nodes[0]
    foreign = next(f"k{number}" for number in range(100) if cluster.node_of(f"k{number}") is not node)
    link = Link(store(node.url), "test")
    with pytest.raises(ConfigurationError, match=r"redis\+cluster://"):
        await link.call(foreign, "SET", foreign, "1")
    await link.close()


async def test_a_single_server_is_no_cluster() -> None:
    link = Link(store(fresh_url().replace("redis://", "redis+cluster://").rpartition("/")[0]), "test")
    with pytest.raises(ConfigurationError, match="redis://"):
        await link.call("k", "SET", "k", "1")
    await link.close()


async def test_too_few_replicas_are_told_and_the_job_is_stored_once() -> None:
    broker = RedisBroker.from_url(f"{fresh_url()}?wait_replicas=1&wait_timeout=0.05")
    await broker.open()
    for _ in range(2):
        with pytest.raises(DispatchUncertain, match=r"only 0 of 1 replicas .*job_id='a'"):
            await broker.publish([envelope("a")])
    assert await broker.queues.counts() == {"default": {"ready": 1}}
    await broker.close()


async def test_replicas_are_waited_for(private_server: Callable[..., Server]) -> None:
    server = private_server(config=["repl-diskless-sync-delay 0"])
    replica = private_server(config=[f"replicaof {server.host} {server.port}"])
    async with asyncio.timeout(60):
        while replica.info("replication")["master_link_status"] != "up":
            await asyncio.sleep(0.01)
    broker = RedisBroker.from_url(f"{server.url}?wait_replicas=1&wait_timeout=10")
    await broker.open()
    ids = [f"j{number}" for number in range(200)]
    for batch in (ids[:1], ids[1:100], ids[100:]):
        await asyncio.gather(*(broker.publish([envelope(one)]) for one in batch))
        # It has them already: nothing is awaited here.
        with replica.connection() as connection:
            held = connection.call("XLEN", "camora:default")
        assert held == ids.index(batch[-1]) + 1
    replica.pause()
    try:
        short = RedisBroker.from_url(f"{server.url}?wait_replicas=1&wait_timeout=0.1")
        await short.open()
        with pytest.raises(DispatchUncertain, match="only 0 of 1 replicas"):
            await short.publish([envelope("late")])
        # Who does not wait for replicas is not delayed by them.
        assert await short.queues.counts() == {"default": {"ready": 201}}
        await short.close()
    finally:
        replica.resume()
    await broker.publish([envelope("late")])
    assert await broker.queues.counts() == {"default": {"ready": 201}}
    await broker.close()
