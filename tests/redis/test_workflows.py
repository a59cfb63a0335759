"""Workflows and journals in Redis: in old, full and killed servers, while slots move, and what stays behind."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import msgspec
import pytest
from camora.builtin.memory.workflows import MemoryWorkflowStore
from camora.errors import BrokerUnavailable, EncodeError
from camora.interfaces.journal import Journal
from camora.interfaces.workflows import START, Mark, Marked, Node, WorkflowRecord, WorkflowStore
from camora.testing.conformance import JournalConformance, WorkflowStoreConformance
from camora_redis.broker import RedisBroker
from camora_redis.keys import tag_of

from tests.redis.test_companions import Moving, moving, opened, or_away, steps_of
from tests.redis.test_halves import leave_room
from tests.servers.fixtures import fresh_url, private_server, shared_cluster
from tests.servers.redis import Server

T = TypeVar("T")
NewServer = Callable[..., Server]

__all__ = ["moving", "private_server"]  # fixtures

OK = "succeeded"
_prefixes = itertools.count()


class TestWorkflowsOfAnOldServer(WorkflowStoreConformance):
    @pytest.fixture
    def workflows_factory(self) -> Callable[[], WorkflowStore]:
        return lambda: RedisBroker(url=fresh_url("redis-6.2")).own_workflows()


class TestJournalsOfAnOldServer(JournalConformance):
    @pytest.fixture
    def journal_factory(self) -> Callable[[], Journal]:
        return lambda: RedisBroker(url=fresh_url("redis-6.2")).own_journal()


async def recorded(store: WorkflowStore, workflow_id: str, *nodes: Node) -> None:
    """A workflow that runs."""
    assert await store.create(WorkflowRecord(id=workflow_id, created=1))
    assert await store.add(workflow_id, nodes, 2)
    assert await store.start(workflow_id, b"plan", 3)


def group(size: int, spec: bytes = b"spec") -> list[Node]:
    """So many members, and the join that they feed."""
    members = [Node(index=index, spec=spec, feeds=(size,), gate=START) for index in range(size)]
    return [*members, Node(index=size, spec=b"join")]


def ends(workflow_id: str, *indexes: int, status: str = OK, outcome: bytes = b"value") -> list[Mark]:
    return [Mark(workflow=workflow_id, index=index, status=status, outcome=outcome) for index in indexes]


async def again(call: Callable[[], Awaitable[T]]) -> T:
    """The answer, asked for until the server is there."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return await call()
        except BrokerUnavailable:
            assert time.monotonic() < deadline, "the server does not come back"
            await asyncio.sleep(0.05)


def keys_of(*servers: Any) -> list[str]:
    return sorted(key for server in servers for key in server.cli("KEYS", "*"))


# What stays


async def test_what_has_expired_leaves_nothing_behind(private_server: NewServer) -> None:
    server = private_server()
    async with opened(RedisBroker(url=server.url).own_workflows()) as store:
        await recorded(store, "short", *group(3))
        await store.end(ends("short", 0, 1, 2, 3), 4)
        await store.passed("short", START, 2, 4)
        assert await store.reopen("short", {3: 0}, 4)
        await store.end([Mark(workflow="short", index=3, run=1, status=OK)], 4)
        assert await store.finish("short", OK, 0.2, 5)
        assert "{camora}:workflow:record:short" in keys_of(server)
        await again_until(lambda: "{camora}:workflow:record:short" not in keys_of(server))
        # The id is in the index until somebody looks there.
        assert list(await store.list()) == []
        assert keys_of(server) == []


async def again_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_ids_of_expired_ones_go_though_nobody_lists_them(private_server: NewServer) -> None:
    server = private_server()
    async with opened(RedisBroker(url=server.url).own_workflows()) as store:
        for number in range(20):
            await recorded(store, f"old-{number}")
            assert await store.finish(f"old-{number}", OK, 0.001, 5)
        turns = itertools.count()

        async def another() -> int:
            name = f"new-{next(turns)}"
            await recorded(store, name)
            assert await store.finish(name, OK, 3600, 5)
            return len([one for one in server.cli("ZRANGE", "{camora}:workflow:all", 0, -1) if one.startswith("old")])

        deadline = time.monotonic() + 60
        while await another():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        assert len(await store.list(limit=1000)) == next(turns)


async def test_reopening_keeps_what_was_to_expire(private_server: NewServer) -> None:
    server = private_server()
    async with opened(RedisBroker(url=server.url).own_workflows()) as store:
        await recorded(store, "w", *group(2))
        await store.end(ends("w", 0, 1, 2), 4)
        assert await store.finish("w", OK, 3600, 5)
        kept = [key for key in keys_of(server) if key.endswith(":w")]
        assert {server.cli("PTTL", key) > 0 for key in kept} == {True}
        assert await store.reopen("w", {0: 0}, 6)
        assert {server.cli("PTTL", key) for key in keys_of(server)} == {-1}
        assert [found.id for found in await store.list(state="running")] == ["w"]
        assert server.cli("ZCARD", "{camora}:workflow:ends") == 0


@pytest.mark.parametrize("begun", [False, True])
async def test_deleting_leaves_nothing_behind(private_server: NewServer, begun: bool) -> None:
    server = private_server()
    async with opened(RedisBroker(url=server.url).own_workflows()) as store:
        nodes = [Node(index=index, feeds=(index + 1, 1500), gate=START) for index in range(1500)]
        await recorded(store, "w", *nodes, Node(index=1500))
        if begun:
            await store.end(ends("w", 0, 7, 8), 4)
            assert await store.reopen("w", {7: 0}, 5)
        assert await store.delete(["w", "never-was", "w"]) == 1
        assert keys_of(server) == []


async def test_a_journal_is_kept_as_long_as_was_asked_for_at_most(private_server: NewServer) -> None:
    server = private_server()
    async with opened(RedisBroker(url=server.url).own_journal()) as journal:
        assert await journal.claim("job", 1, 0.2) == {}
        assert await journal.post("job", "ping", b"", 1000, "one") == 0
        assert await journal.write("job", 1, "step", b"x", 0.2) == b"x"
        [key] = keys_of(server)
        assert 990_000 < server.cli("PTTL", key) <= 1_000_000
        assert await journal.claim("other", 1, 0.2) == {}
        await again_until(lambda: len(keys_of(server)) == 1)
        assert await journal.write("other", 1, "step", b"x", float("inf")) == b"x"
        assert server.cli("PTTL", "{camora}:journal:other") > 10**12
        assert await journal.forget(["job", "other", "job"]) == 2
        assert keys_of(server) == []


# What is large, and what comes in odd order


@pytest.mark.parametrize("seed", range(5))
async def test_nodes_may_be_recorded_in_any_order(seed: int) -> None:
    chance = random.Random(seed)
    indexes = chance.sample(range(400), 150)
    nodes = [
        Node(
            index=index, feeds=tuple(chance.sample(range(400), chance.randint(0, 3))), gate=chance.choice([None, START])
        )
        for index in indexes
    ]
    async with opened(RedisBroker(url=fresh_url()).own_workflows()) as store:
        await store.create(WorkflowRecord(id="w", created=1))
        left = list(nodes)
        while left:
            size = chance.randint(1, 40)
            # Some come twice, as after an answer that was lost.
            assert await store.add("w", [*left[:size], *chance.sample(nodes, 3)], 2)
            left = left[size:]
        await store.start("w", b"", 3)
        ended = set(chance.sample(indexes, 60))
        await store.end(ends("w", *ended), 4)
        for name, belongs in (
            ({"feeding": 17}, lambda node: 17 in node.feeds),
            ({"gate": START}, lambda node: node.gate == START),
            ({}, lambda _: True),
        ):
            for unfinished in (False, True):
                wanted = sorted(
                    node.index for node in nodes if belongs(node) and not (unfinished and node.index in ended)
                )
                found: list[int] = []
                while page := await store.nodes(
                    "w", after=found[-1] if found else -1, limit=7, unfinished=unfinished, **name
                ):
                    found += [node.index for node in page]
                assert found == wanted
        record = await store.get("w")
        assert record is not None
        assert (record.nodes, record.open) == (150, 90)


async def test_what_is_too_large_for_one_answer_is_read_in_several() -> None:
    large = bytes(1_000_000)
    async with opened(RedisBroker(url=fresh_url()).own_workflows()) as store:
        # A failed source is told of all its targets, with all they are.
        await store.create(WorkflowRecord(id="w", created=1))
        assert await store.add("w", [Node(index=0, feeds=tuple(range(1, 61)))], 2)
        assert await store.add("w", [Node(index=index, spec=large) for index in range(1, 61)], 2)
        await store.start("w", b"", 3)
        [marked] = await store.end(ends("w", 0, status="failed"), 4)
        assert [target.index for target in marked.targets] == list(range(1, 61))
        assert {target.spec for target in marked.targets} == {large}
        assert {target.waiting for target in marked.targets} == {0}
        states = await store.read("w", [60, 0, 99, 1])
        assert [state and len(state.spec) for state in states] == [len(large), 0, None, len(large)]
        assert [state.index for state in await store.nodes("w", after=3, limit=50)] == list(range(4, 54))


async def test_marks_of_more_bytes_than_travel_at_once_complete_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camora_redis.workflows._LARGEST_END", 1000)
    async with opened(RedisBroker(url=fresh_url()).own_workflows()) as store:
        await recorded(store, "w", *group(50))
        marked = await store.end(ends("w", *range(50), outcome=bytes(300)), 4)
        assert [target.index for target in marked[-1].targets] == [50]
        assert marked[-1].open == 1


def comparable(marked: Marked) -> Marked:
    """For how many a node waited that had ended is as it was somewhere within the batch."""
    if marked.standing is None:
        return marked
    return msgspec.structs.replace(marked, standing=msgspec.structs.replace(marked.standing, waiting=0))


@pytest.mark.parametrize("clustered", [False, True])
async def test_marks_of_many_workflows_at_once_are_told_apart(clustered: bool) -> None:
    url = f"{shared_cluster().url}?prefix=many{next(_prefixes)}" if clustered else fresh_url()
    chance = random.Random(7)
    oracle = MemoryWorkflowStore()
    async with opened(RedisBroker(url=url).own_workflows()) as store:
        ids = [f"w{number}" for number in range(250)]
        for workflow_id in ids:
            nodes = group(chance.randint(1, 4), spec=workflow_id.encode())
            await recorded(store, workflow_id, *nodes)
            await recorded(oracle, workflow_id, *nodes)
        for turn in range(4):
            marks = [
                Mark(workflow=workflow_id, index=index, status=chance.choice([OK, OK, "failed"]), outcome=b"%d" % turn)
                for workflow_id in [*ids, "never-was", *chance.sample(ids, 50)]
                for index in chance.sample(range(5), 2)
            ]
            chance.shuffle(marks)
            told, wanted = await store.end(marks, 10 + turn), await oracle.end(marks, 10 + turn)
            assert [comparable(one) for one in told] == [comparable(one) for one in wanted]
        assert list(await store.list(limit=500)) == list(await oracle.list(limit=500))
        assert await store.delete(ids) == 250


async def test_an_index_beyond_four_bytes_is_refused() -> None:
    async with opened(RedisBroker(url=fresh_url()).own_workflows()) as store:
        await store.create(WorkflowRecord(id="w", created=1))
        assert await store.add("w", [Node(index=2**32 - 1)])
        with pytest.raises(EncodeError, match="workflow w has a node 4294967296"):
            await store.add("w", [Node(index=2**32)])
        assert [node.index for node in await store.nodes("w")] == [2**32 - 1]


@pytest.mark.parametrize("protocol", [2, 3])
async def test_both_protocols_say_the_same(protocol: int) -> None:
    broker = RedisBroker(url=f"{fresh_url()}?protocol={protocol}")
    async with opened(broker.own_workflows()) as store, opened(broker.own_journal()) as journal:
        await recorded(store, "w", *group(2))
        await store.passed("w", START, 1, 4)
        [listed] = await store.list()
        assert (listed.passed, listed.nodes, listed.open) == ({START: 1}, 3, 3)
        assert [node.feeds for node in await store.nodes("w")] == [(2,), (2,), ()]
        await journal.write("job", 2**70, "step", b"x", 60)
        assert await journal.write("job", 2**70 - 1, "step", b"y", 60) is None
        assert await journal.read("job") == {"step": b"x"}
        assert await journal.claim("job", 2**70 + 1, 60) == {"step": b"x"}


# Trouble with the server


async def test_a_server_that_forgot_its_scripts_is_told_them_again(private_server: NewServer) -> None:
    server = private_server()
    broker = RedisBroker(url=server.url)
    async with opened(broker.own_workflows()) as store, opened(broker.own_journal()) as journal:
        for workflow_id in ("a", "b"):
            server.cli("SCRIPT", "FLUSH")
            await recorded(store, workflow_id, *group(2))
            [_, marked] = await store.end(ends(workflow_id, 0, 1), 4)
            assert [target.index for target in marked.targets] == [2]
            assert await journal.post(workflow_id, "ping", b"", 60, "one") == 0
            server.cli("SCRIPT", "FLUSH")
            assert await journal.claim(workflow_id, 1, 60) == {"ping/0": b""}
            assert [node.index for node in await store.nodes(workflow_id, feeding=2)] == [0, 1]
            await store.end(ends(workflow_id, 2), 5)
            assert await store.finish(workflow_id, OK, 60, 6)


async def test_a_full_server_records_nothing_new_and_goes_on_with_the_rest(private_server: NewServer) -> None:
    server = private_server(maxmemory_policy="noeviction")
    broker = RedisBroker(url=server.url)
    async with opened(broker.own_workflows()) as store, opened(broker.own_journal()) as journal:
        await recorded(store, "w", *group(40))
        await store.create(WorkflowRecord(id="late", created=1))
        assert await journal.claim("job", 1, 60) == {}
        leave_room(server, -1_000_000)
        with pytest.raises(BrokerUnavailable, match="it is full"):
            await store.create(WorkflowRecord(id="new", created=1))
        with pytest.raises(BrokerUnavailable, match="it is full"):
            await store.add("late", group(3), 2)
        await store.passed("w", START, 39, 4)
        for index in range(40):
            [marked] = await store.end(ends("w", index), 5)
        assert [target.index for target in marked.targets] == [40]
        assert await journal.write("job", 1, "step", b"x", 60) == b"x"
        await store.end(ends("w", 40), 6)
        assert await store.finish("w", OK, 60, 7)
        assert await store.reopen("w", {3: 0}, 8)
        await store.end([Mark(workflow="w", index=3, run=1, status=OK)], 9)
        assert await store.finish("w", OK, 60, 10)
        assert [found.id for found in await store.list(state="recording")] == ["late"]
        assert await store.delete(["late", "w"]) == 2
        server.cli("CONFIG", "SET", "maxmemory", 0)
        assert await store.create(WorkflowRecord(id="new", created=1))


async def test_a_join_is_completed_once_though_the_server_is_killed_again_and_again(private_server: NewServer) -> None:
    server = private_server(appendonly=True, appendfsync="always")
    size, kills = 300, 4
    completed: list[int] = []
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(opened(RedisBroker(url=server.url).own_workflows())) for _ in "abc"]
        await recorded(stores[0], "w", *group(size))
        left = list(range(size))
        beat = asyncio.Event()

        async def work(store: WorkflowStore) -> None:
            while left:
                some = [left.pop() for _ in range(min(3, len(left)))]
                # What is not answered is told again, as a worker does.
                marked = await again(lambda some=some: store.end(ends("w", *some), 4))  # type: ignore[misc]
                completed.extend(target.index for one in marked for target in one.targets)
                beat.set()
                await asyncio.sleep(0)

        workers = [asyncio.create_task(work(store)) for store in stores]
        for _ in range(kills):
            beat.clear()
            async with asyncio.timeout(60):
                await beat.wait()
            server.kill()
            server.start()
        await asyncio.gather(*workers)
        record = await again(lambda: stores[0].get("w"))
        assert record is not None
        assert (record.nodes, record.open) == (size + 1, 1)
        # Whoever told the last of them is told of the join, and nobody before.
        assert set(completed) == {size}
        states = await stores[0].read("w", range(size))
        assert {state.status for state in states if state is not None} == {OK}


async def test_a_start_waits_for_as_many_replicas_as_a_dispatch() -> None:
    alone = RedisBroker(url=f"{fresh_url()}?wait_replicas=1&wait_timeout=0.05")
    async with opened(alone.own_workflows()) as store:
        assert await store.create(WorkflowRecord(id="w", created=1))
        for _ in range(2):
            with pytest.raises(BrokerUnavailable, match="only 0 of 1 replicas had it"):
                await store.start("w", b"plan", 2)
        record = await store.get("w")
        assert record is not None
        assert (record.state, record.plan) == ("running", b"plan")


# In a cluster


async def test_the_keys_of_a_workflow_are_in_one_slot_and_those_of_several_in_several() -> None:
    cluster = shared_cluster()
    prefix = f"graphs{next(_prefixes)}"
    broker = RedisBroker(url=f"{cluster.url}?prefix={prefix}")
    ids = [f"w{number:02}" for number in range(30)]
    async with opened(broker.own_workflows()) as store, opened(broker.own_journal()) as journal:
        for workflow_id in ids:
            await recorded(store, workflow_id, *group(2))
            await store.end(ends(workflow_id, 0), 4)
        for number in range(10):
            await journal.claim(f"job-{number}", 1, 60)
        found = [key for node in cluster.masters for key in node.cli("KEYS", f"*{prefix}*")]
        tags = {workflow_id: {tag_of(key) for key in found if key.endswith(f":{workflow_id}")} for workflow_id in ids}
        assert {len(some) for some in tags.values()} == {1}
        assert len({cluster.slot_of(key) for key in found if ":record:" in key}) > 5
        assert len({cluster.slot_of(key) for key in found if ":journal:" in key}) > 3
        # All of them are in one list, in order.
        listed: list[str] = []
        while page := await store.list(after=listed[-1] if listed else "", limit=7, state="running"):
            listed += [record.id for record in page]
        assert listed == ids
        assert await store.delete(ids) == 30
        assert [key for node in cluster.masters for key in node.cli("KEYS", f"*{prefix}*workflow*")] == []


async def test_no_mark_is_lost_while_the_slot_moves(moving: Moving, monkeypatch: pytest.MonkeyPatch) -> None:
    broker, _ = moving
    cluster, keys = shared_cluster(), broker.database.keys
    key = keys.shard("w", "")
    source = cluster.node_of(key)
    async with opened(broker.own_workflows()) as store:
        await recorded(store, "w", *group(40))
        left, completed = list(range(40)), []
        for _ in steps_of(cluster.migration(key, next(node for node in cluster.masters if node is not source))):
            some = left[:3]
            marked = await or_away(store.end(ends("w", *some), 4))
            if marked is not None:
                assert all(one.known for one in marked)
                completed += [target.index for one in marked for target in one.targets]
                del left[:3]
            record = await or_away(store.get("w"))
            assert record is None or record.open == 41 - (40 - len(left))
            # An id is not taken twice, and nothing is found by halves.
            assert not await or_away(store.create(WorkflowRecord(id="w", created=1)))
            listed = await or_away(store.list())
            assert listed is None or [found.id for found in listed] == ["w"]
        while left:
            marked = await store.end(ends("w", left.pop()), 5)
            completed += [target.index for one in marked for target in one.targets]
        assert set(completed) == {40}
        assert await store.delete(["w"]) == 1
