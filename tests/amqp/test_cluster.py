"""A cluster of three nodes: any one may die or fall silent at any moment, and nothing is lost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from camora import Camora, Context
from camora.errors import CamoraError
from camora.testing.ledger import read

from tests.end_to_end.processes import until, workers
from tests.servers.process import ServerFailed
from tests.servers.rabbitmq import need
from tests.servers.rabbitmq_cluster import RabbitCluster, RabbitNode

pytestmark = pytest.mark.timeout(400)
_names = iter(range(1_000_000))
_LOAD = 300
_IN_TIME = 150.0


@pytest.fixture(scope="module")
def whole_cluster() -> Iterator[RabbitCluster]:
    with RabbitCluster(need(), tick=8) as made:
        yield made


@pytest.fixture
def cluster(whole_cluster: RabbitCluster) -> Iterator[RabbitCluster]:
    """The cluster of all these tests; what one of them has killed or paused is mended before the next one."""
    yield whole_cluster
    for node in whole_cluster.nodes:
        if node.running():
            node.resume()
    whole_cluster.start()


@pytest.fixture
def prefix() -> str:
    return f"c{next(_names)}."


def url_of(cluster: RabbitCluster, prefix: str, first: RabbitNode | None = None) -> str:
    """All nodes, this one first."""
    nodes = sorted(cluster.nodes, key=lambda node: node is not first)
    hosts = ",".join(f"{node.host}:{node.port}" for node in nodes)
    return f"amqp://guest:guest@{hosts}/?timeout=3&heartbeat=2&prefix={prefix}"


def shop(url: str) -> Any:
    app: Any = Camora(url, results=False)

    @app.task(name="work")
    async def work(ctx: Context, number: int) -> int:
        return number

    return app


class Load:
    """Dispatches one job after the other, and knows which of them were confirmed."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.confirmed: list[str] = []
        self.said: Counter[str] = Counter()
        """What went wrong."""

    async def run(self, count: int) -> None:
        while len(self.confirmed) < count:
            jobs = await asyncio.gather(
                *(self._app.tasks.by_name["work"].dispatch(number) for number in range(5)), return_exceptions=True
            )
            for job in jobs:
                if isinstance(job, CamoraError):
                    self.said[str(job)] += 1
                    await asyncio.sleep(0.05)
                elif isinstance(job, BaseException):
                    raise job
                else:
                    self.confirmed.append(job.id)


def ran(folder: Path) -> set[str]:
    """The jobs that the worker has finished, by the ledger."""
    return {entry.job_id for entry in read(folder / "ledger") if entry.kind == "finished"}


async def under_load(
    cluster: RabbitCluster, tmp_path: Path, prefix: str, fault: Callable[[], Any], first: RabbitNode | None = None
) -> None:
    """A fault in the middle of a stream of jobs: all that was confirmed runs."""
    url = url_of(cluster, prefix, first)
    with workers() as start:
        worker = start(tmp_path, url, SHOP_RESULTS="none").ready()
        async with shop(url) as app:
            load = Load(app)
            try:
                async with asyncio.timeout(_IN_TIME):
                    await load.run(_LOAD // 3)
                    loading = asyncio.create_task(load.run(_LOAD))
                    await asyncio.to_thread(fault)
                    await loading
                    while not set(load.confirmed) <= ran(tmp_path):
                        await asyncio.sleep(0.2)
            except TimeoutError:
                lost = set(load.confirmed) - ran(tmp_path)
                raise AssertionError(f"{len(load.confirmed)} confirmed, {len(lost)} of them not run; {load.said}\n"
                                     f"{worker.text()}") from None  # fmt: skip
        assert len(load.confirmed) >= _LOAD
        assert "Traceback" not in worker.text() and worker.process.poll() is None


async def test_the_nodes_know_each_other(cluster: RabbitCluster) -> None:
    names = {node.name for node in cluster.nodes}
    assert len(names) == 3 and all(node.members() == names for node in cluster.nodes)
    assert [url.rpartition("@")[2] for url in cluster.urls] == [
        f"{address}/" for address in cluster.url.rpartition("@")[2].rstrip("/").split(",")
    ]
    assert all(node.version == cluster.nodes[0].version for node in cluster.nodes)


async def test_a_queue_has_a_member_on_every_node(cluster: RabbitCluster, prefix: str) -> None:
    async with shop(url_of(cluster, prefix)) as app:
        await app.tasks.by_name["work"].dispatch(1)
        for queue in ("default", "camora.dead"):
            code = (
                f'{{ok, Queue}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{prefix}{queue}">>)),'
                "maps:get(nodes, amqqueue:get_type_state(Queue))"
            )
            members = cluster.nodes[0].eval(code)
            assert all(node.name in members for node in cluster.nodes), members


async def test_the_leader_is_killed_under_load(cluster: RabbitCluster, tmp_path: Path, prefix: str) -> None:
    killed: list[RabbitNode] = []

    def kill() -> None:
        killed.append(cluster.leader_of(f"{prefix}default"))
        cluster.kill(killed[0])
        cluster.wait_leader(f"{prefix}default", other_than=killed[0])

    await under_load(cluster, tmp_path, prefix, kill)


async def test_the_node_that_all_are_connected_to_is_killed(
    cluster: RabbitCluster, tmp_path: Path, prefix: str
) -> None:
    first = cluster.nodes[1]
    await under_load(cluster, tmp_path, prefix, lambda: cluster.kill(first), first)


async def test_a_node_falls_silent_and_comes_back(cluster: RabbitCluster, tmp_path: Path, prefix: str) -> None:
    first = cluster.nodes[2]

    def pause() -> None:
        first.pause()
        time.sleep(6.0)  # three heartbeats
        first.resume()

    await under_load(cluster, tmp_path, prefix, pause, first)


async def test_two_of_three_die_and_come_back(cluster: RabbitCluster, tmp_path: Path, prefix: str) -> None:
    """The third one stops serving, as it is told to, and all goes on when another one is there again."""
    alone, *others = cluster.nodes

    def most_die() -> None:
        for node in others:
            cluster.kill(node)
        until(lambda: not alone.answers(), "the end of service", _IN_TIME)
        assert alone.running()
        cluster.start()

    await under_load(cluster, tmp_path, prefix, most_die)


async def test_all_are_killed_and_come_back(cluster: RabbitCluster, tmp_path: Path, prefix: str) -> None:
    def all_die() -> None:
        for node in cluster.nodes:
            cluster.kill(node)
        with pytest.raises(LookupError, match=f"{prefix}default"):
            cluster.leader_of(f"{prefix}default")
        cluster.start()
        cluster.wait_leader(f"{prefix}default")

    await under_load(cluster, tmp_path, prefix, all_die)


async def test_a_silent_leader_is_replaced(cluster: RabbitCluster, tmp_path: Path, prefix: str) -> None:
    def silence() -> None:
        old = cluster.leader_of(f"{prefix}default")
        old.pause()
        cluster.wait_leader(f"{prefix}default", other_than=old)
        old.kill()
        cluster.start()

    await under_load(cluster, tmp_path, prefix, silence)


async def test_nodes_are_restarted_one_after_the_other(cluster: RabbitCluster, tmp_path: Path, prefix: str) -> None:
    def roll() -> None:
        for node in cluster.nodes:
            node.stop()
            node.start()
            with_members(cluster)

    await under_load(cluster, tmp_path, prefix, roll)


def with_members(cluster: RabbitCluster) -> None:
    for _ in range(3):
        try:
            cluster.wait_whole()
        except ServerFailed:
            continue
        return
