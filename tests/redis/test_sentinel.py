"""Sentinels: the master changes, and everything goes on at the new one."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from camora.errors import BrokerUnavailable, ConfigurationError, DispatchUncertain
from camora.interfaces.broker import ConsumerSettings
from camora.message import Envelope
from camora.outcome import Action, Settlement
from camora_redis.broker import RedisBroker
from camora_redis.link import Link
from camora_redis.settings import RedisSettings
from camora_redis.store import Store
from camora_redis.topology import Sentinels as Named

from tests.servers.fixtures import private_server, shared_sentinels
from tests.servers.redis import Server
from tests.servers.sentinel import Sentinels

__all__ = ["private_server"]

pytestmark = pytest.mark.timeout(120)
_AWAY = (BrokerUnavailable, DispatchUncertain)


@pytest.fixture
def servers(request: pytest.FixtureRequest) -> Iterator[Sentinels]:
    """The shared ones, put in order again."""
    made = shared_sentinels()
    made.wait_settled()
    yield made
    for node in made.nodes:
        if not node.running():
            node.start()
    for sentinel in made.sentinels:
        if not sentinel.running():
            sentinel.start()
    made.wait_settled()


def envelope(job_id: str) -> Envelope:
    return Envelope(id=job_id, task="t", queue="default", body=b"{}")


class Ledger:
    """Publishes without a pause, and takes and settles what comes; errors in between are tried again, as the core does.

    `lost` are the jobs that were acknowledged and never came.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.published: set[str] = set()
        self.ran: set[str] = set()
        self.troubles: list[Exception] = []
        self._ended = False

    @property
    def lost(self) -> set[str]:
        return self.published - self.ran

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        broker = RedisBroker.from_url(self.url)
        await broker.open()
        consumer = await broker.consumer(ConsumerSettings(queues=("default",), worker="w", lease=2.0))
        tasks = [asyncio.create_task(self._publish(broker)), asyncio.create_task(self._consume(consumer))]
        try:
            await self.goes_on()
            yield
            await self.goes_on()
            self._ended = True
            await tasks[0]
            async with asyncio.timeout(60):
                while self.lost:
                    await asyncio.sleep(0.05)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await consumer.close()
            await broker.close()

    async def goes_on(self) -> None:
        """Wait until something that is published from now on has come."""
        before = set(self.published)
        async with asyncio.timeout(30):
            while not (self.ran - before):
                await asyncio.sleep(0.01)

    async def _publish(self, broker: RedisBroker) -> None:
        number = 0
        while not self._ended:
            number += 1
            one = envelope(f"j{number}")
            while True:
                try:
                    async with asyncio.timeout(60):
                        await broker.publish([one])
                    break
                except _AWAY as error:
                    self.troubles.append(error)
                    await asyncio.sleep(0.05)
            self.published.add(one.id)
            await asyncio.sleep(0.002)

    async def _consume(self, consumer: Any) -> None:
        while True:
            try:
                taken = await consumer.receive(20, 1.0)
                self.ran.update(delivery.id for delivery in taken)
                if taken:
                    await consumer.settle([Settlement(delivery=one, action=Action.ACK) for one in taken])
            except _AWAY as error:
                self.troubles.append(error)
                await asyncio.sleep(0.05)


def url_of(servers: Sentinels, prefix: str, **query: Any) -> str:
    return f"{servers.url}?prefix={prefix}&timeout=1&" + "&".join(f"{name}={value}" for name, value in query.items())


async def test_a_forced_failover_under_load(servers: Sentinels) -> None:
    # Both replicas have what is acknowledged: the one that becomes the master, too.
    ledger = Ledger(url_of(servers, "forced", wait_replicas=2, wait_timeout="2s"))
    async with ledger.going_on():
        await asyncio.to_thread(servers.failover)
    assert not ledger.lost


async def test_the_master_is_killed_under_load(servers: Sentinels) -> None:
    ledger = Ledger(url_of(servers, "killed", wait_replicas=1, wait_timeout="2s"))
    async with ledger.going_on():
        old = await asyncio.to_thread(servers.kill_master)
        await asyncio.to_thread(servers.wait_failed_over, old)
    assert not ledger.lost
    assert ledger.troubles


async def test_a_master_that_stood_still_and_goes_on_is_not_believed(servers: Sentinels) -> None:
    ledger = Ledger(url_of(servers, "stopped", wait_replicas=1, wait_timeout="2s"))
    old = servers.master
    async with ledger.going_on():
        old.pause()
        try:
            await asyncio.to_thread(servers.wait_failed_over, old)
        finally:
            old.resume()
        await ledger.goes_on()
        before = len(ledger.troubles)
        await asyncio.to_thread(old.cli, "REPLICAOF", servers.master.host, servers.master.port)
        await ledger.goes_on()
        assert len(ledger.troubles) - before <= 2
    assert not ledger.lost


async def test_connections_leave_a_master_that_the_sentinels_replace(servers: Sentinels) -> None:
    """Before anybody tells the old one, which goes on taking writes that will be lost."""
    link = Link(Store.of_url(url_of(servers, "leave")), "test")
    old = servers.master
    wire = await link.wire("")
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(_listened_to, servers):
            await asyncio.sleep(0.01)
    await asyncio.to_thread(servers.failover)
    async with asyncio.timeout(30):
        await wire.ended()
    port = int((await link.call("", "CONFIG", "GET", "port"))[b"port"])
    assert port == servers.master.port != old.port
    await link.close()


def _listened_to(servers: Sentinels) -> bool:
    """Whether somebody listens to a Sentinel; they do not listen to each other in this way."""
    return any(" sub=1 " in sentinel.cli("CLIENT", "LIST") for sentinel in servers.sentinels)


async def test_a_demoted_master_is_left_at_once(servers: Sentinels) -> None:
    broker = RedisBroker.from_url(url_of(servers, "demoted"))
    await broker.open()
    await broker.publish([envelope("a")])
    old = servers.master
    await asyncio.to_thread(servers.failover)
    await asyncio.to_thread(servers.wait_settled)
    assert old.info("replication")["role"] == "slave"
    await broker.publish([envelope("b")])
    assert await broker.queues.counts() == {"default": {"ready": 2}}
    await broker.close()


async def test_two_sentinels_are_enough_and_the_rest_may_be_dead_or_mute(servers: Sentinels) -> None:
    first, second, third = servers.sentinels
    broker = RedisBroker.from_url(url_of(servers, "sentinels"))
    first.kill()
    await broker.open()
    await broker.publish([envelope("a")])
    await broker.close()
    first.start()
    second.pause()
    try:
        broker = RedisBroker.from_url(url_of(servers, "sentinels"))
        async with asyncio.timeout(30):
            await broker.open()
        third.pause()
        try:
            twin = broker.twin()
            async with asyncio.timeout(30):
                await twin.open()
            await twin.close()
        finally:
            third.resume()
        await broker.close()
    finally:
        second.resume()


async def test_without_any_sentinel_it_says_so() -> None:
    broker = RedisBroker.from_url("redis+sentinel://127.0.0.1:1,127.0.0.1:2/camora/0?timeout=1")
    with pytest.raises(BrokerUnavailable, match="no Sentinel answers"):
        await broker.open()
    await broker.close()


async def test_an_unknown_service(servers: Sentinels) -> None:
    broker = RedisBroker.from_url(servers.url.replace("/camora/", "/nosuch/"))
    with pytest.raises(ConfigurationError, match="nosuch"):
        await broker.open()
    await broker.close()


async def test_sentinels_with_a_password_of_their_own(
    servers: Sentinels, private_server: Callable[..., Server]
) -> None:
    for sentinel in servers.sentinels:
        sentinel.cli("ACL", "SETUSER", "watch", "on", ">hidden", "+@all", "allchannels")
        sentinel.cli("ACL", "SETUSER", "default", "resetpass", ">other")
    try:
        settings = RedisSettings(prefix="secret", timeout=2)
        refused = RedisBroker(url=servers.url, settings=settings)
        with pytest.raises(ConfigurationError, match="sentinel_password"):
            await refused.open()
        await refused.close()
        broker = RedisBroker.from_url(
            f"{servers.url}?prefix=secret&sentinel_username=watch&sentinel_password=hidden&timeout=2"
        )
        await broker.open()
        await broker.publish([envelope("a")])
        topology = broker.database.topology
        assert isinstance(topology, Named)
        assert "hidden" not in repr(broker)
        await broker.close()
    finally:
        for sentinel in servers.sentinels:
            with sentinel.connection(user="watch", password="hidden") as connection:
                connection.call("ACL", "SETUSER", "default", "nopass")
                connection.call("ACL", "DELUSER", "watch")
