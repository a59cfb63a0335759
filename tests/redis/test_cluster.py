"""A Cluster: keys move, nodes die and come back, and the queues of other nodes go on."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs
import pytest
from camora import Camora
from camora.errors import BrokerUnavailable, DispatchUncertain
from camora.interfaces.broker import Broker, Consumer, ConsumerSettings, LeaseVerdict
from camora.message import Delivery, Envelope
from camora.outcome import Action, Settlement
from camora.testing.conformance import BrokerConformance
from camora_redis.broker import RedisBroker
from camora_redis.link import Link
from camora_redis.scripting import Script
from camora_redis.settings import RedisSettings
from camora_redis.store import Store

from tests.servers.binaries import need
from tests.servers.cluster import Cluster, Node
from tests.servers.fixtures import shared_cluster

pytestmark = pytest.mark.timeout(120)

_prefixes = itertools.count()
_AWAY = (BrokerUnavailable, DispatchUncertain)


def envelope(job_id: str, queue: str) -> Envelope:
    return Envelope(id=job_id, task="t", queue=queue, body=b"{}")


class Rig:
    """A broker on a cluster, and a queue for each master: `queues[node.port]`."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.prefix = f"cluster{next(_prefixes)}"
        self.broker = RedisBroker(url=cluster.url, settings=RedisSettings(prefix=self.prefix, timeout=1.0))
        self.queues: dict[int, str] = {}
        for number in itertools.count():
            queue = f"q{number}"
            self.queues.setdefault(self.node_of(queue).port, queue)
            if len(self.queues) == len(cluster.masters):
                break

    def node_of(self, queue: str) -> Node:
        return self.cluster.node_of(f"{self.prefix}:{queue}")

    def move(self, queue: str) -> Node:
        """Move a queue to another node; that node."""
        source = self.node_of(queue)
        target = next(node for node in self.cluster.masters if node is not source)
        self.cluster.move_slot(f"{self.prefix}:{queue}", target)
        return target

    async def consumer(self, *queues: str, lease: float = 5.0) -> Consumer:
        return await self.broker.consumer(ConsumerSettings(queues=queues or self.all, worker="w", lease=lease))

    @property
    def all(self) -> tuple[str, ...]:
        return tuple(self.queues.values())


@pytest.fixture
async def rig() -> Any:
    made = Rig(shared_cluster())
    await made.broker.open()
    yield made
    await made.broker.close()


@pytest.fixture
def private_cluster() -> Iterator[Callable[..., Cluster]]:
    made: list[Cluster] = []

    def new(**options: Any) -> Cluster:
        made.append(Cluster(need("redis"), node_timeout=1000, full_coverage=False, **options))
        return made[-1].start()

    yield new
    for cluster in made:
        for node in cluster.nodes:
            if node.running():
                node.resume()
        cluster.close()


async def taken(consumer: Consumer, count: int, seconds: float = 20) -> list[Delivery]:
    found: list[Delivery] = []
    async with asyncio.timeout(seconds):
        while len(found) < count:
            try:
                found += await consumer.receive(count - len(found), 1.0)
            except BrokerUnavailable:
                await asyncio.sleep(0.05)
    return found


async def published(broker: Broker, envelopes: Sequence[Envelope], seconds: float = 20) -> None:
    """As the core does it: what is uncertain is tried again."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                await broker.publish(envelopes)
            except _AWAY:
                await asyncio.sleep(0.05)
            else:
                return


async def test_each_queue_lies_on_its_node(rig: Rig) -> None:
    await rig.broker.publish([envelope(f"{queue}-{n}", queue) for queue in rig.all for n in range(5)])
    for port, queue in rig.queues.items():
        node = next(node for node in rig.cluster.nodes if node.port == port)
        assert node.cli("XLEN", f"{rig.prefix}:{queue}") == 5
    consumer = await rig.consumer()
    found = await taken(consumer, 15)
    assert await consumer.settle([Settlement(delivery=one, action=Action.ACK) for one in found]) == [True] * 15
    assert await rig.broker.queues.counts() == {}
    await consumer.close()


async def test_homes_name_a_key_of_each_node(rig: Rig) -> None:
    link = Link(Store.of_url(rig.cluster.url), "test")
    await link.call("", "PING")
    ports = {rig.cluster.node_of(key).port for key in link.topology.homes()}
    assert ports == {node.port for node in rig.cluster.masters}
    await link.close()


async def test_a_queue_that_has_moved_is_found(rig: Rig) -> None:
    queue = rig.all[0]
    consumer = await rig.consumer()
    await rig.broker.publish([envelope("a", queue)])
    [first] = await taken(consumer, 1)
    target = await asyncio.to_thread(rig.move, queue)
    assert await consumer.settle([Settlement(delivery=first, action=Action.ACK)]) == [True]
    await rig.broker.publish([envelope("b", queue)])
    assert [one.id for one in await taken(consumer, 1)] == ["b"]
    assert rig.node_of(queue) is target
    await consumer.close()


async def test_a_consumer_that_waits_goes_after_its_queue(rig: Rig) -> None:
    queue = rig.all[1]
    consumer = await rig.consumer(queue)
    waiting = asyncio.ensure_future(taken(consumer, 1))
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(_blocked, rig.node_of(queue)):
            await asyncio.sleep(0.01)
    target = await asyncio.to_thread(rig.move, queue)
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(_blocked, target):
            await asyncio.sleep(0.01)
    await rig.broker.publish([envelope("a", queue)])
    assert [one.id for one in await waiting] == ["a"]
    await consumer.close()


def _blocked(node: Node) -> bool:
    return int(node.info("clients")["blocked_clients"]) > 0


async def test_a_queue_that_is_moving_is_used_all_the_while(rig: Rig) -> None:
    queue = rig.all[2]
    key = f"{rig.prefix}:{queue}"
    await rig.broker.publish([envelope(f"before-{n}", queue) for n in range(5)])
    target = next(node for node in rig.cluster.masters if node is not rig.node_of(queue))
    migration = rig.cluster.migration(key, target)
    await asyncio.to_thread(migration.begin)
    # The stream has gone ahead, its index has not: whoever looked now would find half of a queue.
    await asyncio.to_thread(migration.move_keys, key)
    meanwhile = [asyncio.ensure_future(published(rig.broker, [envelope("between", queue)]))]
    await refused(migration.target)
    while await asyncio.to_thread(migration.move):
        pass
    meanwhile.append(asyncio.ensure_future(published(rig.broker, [envelope("asked", queue)])))
    await refused(migration.target)
    assert not any(one.done() for one in meanwhile)
    await asyncio.to_thread(migration.finish)
    await asyncio.gather(*meanwhile)
    await rig.broker.publish([envelope("after", queue)])
    consumer = await rig.consumer(queue)
    found = {one.id for one in await taken(consumer, 8)}
    assert found == {*(f"before-{n}" for n in range(5)), "between", "asked", "after"}
    await consumer.close()


async def refused(node: Node) -> None:
    """Wait until this node has said TRYAGAIN to somebody who comes from now on."""

    def count() -> int:
        return int(node.info("errorstats").get("errorstat_TRYAGAIN", "count=0").partition("=")[2])

    before = await asyncio.to_thread(count)
    async with asyncio.timeout(60):
        while await asyncio.to_thread(count) == before:
            await asyncio.sleep(0.01)


async def test_forgotten_scripts_are_told_to_a_node_that_is_asked(rig: Rig) -> None:
    queue = rig.all[0]
    await rig.broker.publish([envelope("a", queue)])
    target = next(node for node in rig.cluster.masters if node is not rig.node_of(queue))
    migration = rig.cluster.migration(f"{rig.prefix}:{queue}", target)
    await asyncio.to_thread(migration.begin)
    while await asyncio.to_thread(migration.move):
        pass
    await asyncio.to_thread(target.cli, "SCRIPT", "FLUSH")
    publishing = asyncio.ensure_future(published(rig.broker, [envelope("b", queue)]))
    await asyncio.to_thread(migration.finish)
    await publishing
    assert await rig.broker.queues.counts() == {queue: {"ready": 2}}


@pytest.mark.parametrize("how", ["killed", "paused"])
async def test_a_node_that_is_gone_stops_its_own_queues_only(private_cluster: Callable[..., Cluster], how: str) -> None:
    rig = Rig(private_cluster())
    await rig.broker.open()
    consumer = await rig.consumer()
    twin = rig.broker.twin()
    await twin.open()
    # The list of all queues is on the node that dies, and nobody needs it to go on.
    dead = rig.cluster.node_of(rig.broker.database.keys.queues)
    gone = rig.queues[dead.port]
    others = [queue for queue in rig.all if queue != gone]
    await published(rig.broker, [envelope(f"before-{queue}", queue) for queue in rig.all])
    held = await taken(consumer, 3)
    leases = consumer.leases()
    dead.kill() if how == "killed" else dead.pause()

    begun = time.monotonic()
    with pytest.raises(_AWAY):
        await rig.broker.publish([envelope("refused", gone)])
    assert time.monotonic() - begun < 15

    # Nor is it needed by somebody who meets a queue for the first time, and by new consumers.
    await twin.publish([envelope("new", others[0])])
    newcomer = await twin.consumer(ConsumerSettings(queues=rig.all, worker="n"))
    assert [one.id for one in await taken(newcomer, 1)] == ["new"]
    await newcomer.close()
    await twin.close()

    # One worker takes from the others, and settles.
    await published(rig.broker, [envelope(f"first-{queue}", queue) for queue in others])
    found = await taken(consumer, 2)
    for turn in range(5):
        await rig.broker.publish([envelope(f"{turn}-{queue}", queue) for queue in others])
        begun = time.monotonic()
        found += await taken(consumer, 2)
        assert time.monotonic() - begun < 15
    alive = [one for one in held if one.queue != gone]
    assert await consumer.settle([Settlement(delivery=one, action=Action.ACK) for one in found + alive[:1]])

    # Leases of the others are extended, though nothing is known of those of the dead node.
    verdicts = await asyncio.to_thread(leases.extend, held)
    assert [verdict for one, verdict in zip(held, verdicts, strict=True) if one is alive[1]] == [LeaseVerdict.HELD]

    dead.start() if how == "killed" else dead.resume()
    await asyncio.to_thread(rig.cluster.wait_ok)
    await published(rig.broker, [envelope("back", gone)])
    found = []
    async with asyncio.timeout(60):
        while "back" not in [one.id for one in found]:
            found += await taken(consumer, 1)
    await asyncio.to_thread(leases.close)
    await consumer.close()
    await rig.broker.close()


async def test_a_replica_takes_over(private_cluster: Callable[..., Cluster]) -> None:
    rig = Rig(private_cluster(replicas=1))
    settings = RedisSettings(prefix=rig.prefix, timeout=1.0, wait_replicas=1, wait_timeout=5.0)
    broker = RedisBroker(url=rig.cluster.url, settings=settings)
    await broker.open()
    consumer = await broker.consumer(ConsumerSettings(queues=rig.all, worker="w", lease=5.0))
    for port, queue in rig.queues.items():
        await published(broker, [envelope(f"before-{port}", queue)])
    dead = rig.cluster.nodes[0]
    queue = rig.queues[dead.port]
    waiting = asyncio.ensure_future(taken(consumer, 4, seconds=40))
    dead.kill()
    new = await asyncio.to_thread(rig.cluster.wait_taken_over, dead, f"{rig.prefix}:{queue}")
    with pytest.raises(DispatchUncertain, match="only 0 of 1 replicas"):
        short = attrs.evolve(settings, wait_timeout=0.1)
        waiter = RedisBroker(url=rig.cluster.url, settings=short)
        await waiter.open()
        try:
            await waiter.publish([envelope("after", queue)])
        finally:
            await waiter.close()
    found = {one.id for one in await waiting}
    assert {f"before-{port}" for port in rig.queues} <= found | {"after"}
    assert rig.node_of(queue) is new
    await consumer.close()
    await broker.close()
    await rig.broker.close()


class TestKeysOfScripts(BrokerConformance):
    """The whole exam with scripts to which the server refuses every key outside of the slot of those they declare."""

    lease = 0.5

    @pytest.fixture
    def broker_factory(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Broker]:
        strict: dict[str, Script] = {}
        run = Link.run

        async def run_strictly(link: Link, what: Script, keys: Sequence[str], *arguments: Any) -> Any:
            text = f"#!lua\n{what.text}"
            return await run(link, strict.setdefault(what.digest, Script(text, "0" * 40)), keys, *arguments)

        monkeypatch.setattr(Link, "run", run_strictly)
        cluster = shared_cluster()
        return lambda: RedisBroker.from_url(f"{cluster.url}?prefix=strict{next(_prefixes)}")


async def test_a_worker_settles_with_living_nodes_while_one_does_not_answer(
    private_cluster: Callable[..., Cluster],
) -> None:
    rig = Rig(private_cluster())
    dead = rig.cluster.masters[1]
    gone = rig.queues[dead.port]
    others = [queue for queue in rig.all if queue != gone]
    app = Camora(broker=rig.broker, queues=rig.all)
    started, let_go = asyncio.Semaphore(0), asyncio.Event()

    @app.task
    async def hold(name: str) -> str:
        started.release()
        await let_go.wait()
        return name

    async with app, app.worker():
        jobs = {queue: await hold.options(queue=queue).dispatch(queue) for queue in rig.all}
        for _ in jobs:
            await asyncio.wait_for(started.acquire(), 60)
        waiting = {queue: asyncio.create_task(jobs[queue].result(90)) for queue in others}
        async with asyncio.timeout(60):
            while not any(node.cli("PUBSUB", "CHANNELS") for node in rig.cluster.masters):
                await asyncio.sleep(0.02)
        dead.pause()
        let_go.set()
        # All three end in the same moment, in one batch.
        for queue in others:
            assert await waiting[queue] == queue
        dead.resume()
        await asyncio.to_thread(rig.cluster.wait_ok)
        assert await jobs[gone].result(30) == gone


@pytest.mark.parametrize("which", range(3))
async def test_a_cluster_of_which_any_node_is_gone_can_be_opened(
    private_cluster: Callable[..., Cluster], which: int
) -> None:
    rig = Rig(private_cluster())
    dead = rig.cluster.masters[which]
    dead.kill()
    await rig.broker.open()
    queue = next(queue for port, queue in rig.queues.items() if port != dead.port)
    consumer = await rig.consumer(queue)
    await published(rig.broker, [envelope("one", queue)])
    assert [one.id for one in await taken(consumer, 1)] == ["one"]
    await consumer.close()
    await rig.broker.close()
