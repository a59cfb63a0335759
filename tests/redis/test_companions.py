"""Limits, schedules and workers in Redis: in old servers, over processes and restarts, and what they leave behind."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
import pytest
from camora.builtin.memory.counters import Counters
from camora.errors import BrokerUnavailable, ConfigurationError
from camora.interfaces.limits import Ask, Limit, Limits
from camora.interfaces.schedule import ScheduleRecord, ScheduleStore
from camora.interfaces.workers import WorkerDirectory, WorkerInfo
from camora.testing.conformance import LimitsConformance, ScheduleStoreConformance, WorkerDirectoryConformance
from camora_redis import plugin
from camora_redis.broker import RedisBroker
from camora_redis.link import Link
from camora_redis.scripting import Script, script

from tests.servers.cluster import Migration
from tests.servers.fixtures import fresh_url, private_server, shared_cluster
from tests.servers.redis import Server
from tests.sql.processes import Process

T = TypeVar("T", bound=Any)
R = TypeVar("R")

__all__ = ["private_server"]  # a fixture

KINDS = ["redis", "valkey"]
OLD = ["redis-6.2", "redis-7"]
Moving = tuple[RedisBroker, Callable[[], Migration]]

_prefixes = itertools.count()


@pytest.fixture(params=OLD)
def old(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(params=KINDS)
def broker(request: pytest.FixtureRequest) -> RedisBroker:
    """A broker on an empty database."""
    return RedisBroker(url=fresh_url(request.param))


def url_of(broker: RedisBroker) -> str:
    return broker.database.label


@asynccontextmanager
async def opened(companion: T) -> AsyncIterator[T]:
    """Open it, and close it in the end."""
    await companion.open()
    try:
        yield companion
    finally:
        await companion.close()


async def eventually(what: Callable[[], bool], text: str) -> None:
    """Look until the server says so."""
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline, f"there is no {text}"
        await asyncio.sleep(0.01)


@pytest.fixture
async def link(broker: RedisBroker) -> AsyncIterator[Link]:
    """Another way to the same data."""
    link = Link(broker.database, "a test")
    yield link
    await link.close()


class TestLimitsOfOldServers(LimitsConformance):
    @pytest.fixture
    def limits_factory(self, old: str) -> Callable[[], Limits]:
        return lambda: RedisBroker(url=fresh_url(old)).own_limits()


class TestSchedulesOfOldServers(ScheduleStoreConformance):
    @pytest.fixture
    def schedules_factory(self, old: str) -> Callable[[], ScheduleStore]:
        return lambda: RedisBroker(url=fresh_url(old)).own_schedules()


class TestWorkersOfOldServers(WorkerDirectoryConformance):
    @pytest.fixture
    def directory_factory(self, old: str) -> Callable[[], WorkerDirectory]:
        return lambda: RedisBroker(url=fresh_url(old)).own_workers()


# Limits


def slot(name: str = "slot") -> Limit:
    return Limit(name=name, most=1)


async def ask(limits: Limits, *wanted: Limit, holder: str = "here", lease: float = 60.0) -> float:
    [answer] = await limits.take([Ask(holder=holder, limits=wanted)], lease=lease)
    return answer


def at(moment: int, name: str) -> Script:
    """A script for which it is this moment (ms)."""
    original = script(name)
    text = original.text.replace("local clock\n", f"local clock = {moment}\n")
    assert text != original.text
    return Script(text, "0" * 40)  # a digest that no server knows: the text is sent


class Stopped:
    """A link for whose scripts it is always the same moment (ms), until the test moves it."""

    def __init__(self, link: Link, moment: int) -> None:
        self._link = link
        self.moment = moment
        self.who = link.who

    async def run(self, what: Script, keys: Sequence[str], *arguments: Any) -> Any:
        name = next(name for name in ("limits_take", "limits_usage") if script(name) == what)
        return await self._link.run(at(self.moment, name), keys, *arguments)


@pytest.mark.parametrize(("broker", "seed"), [(KINDS[seed // 2 % 2], seed) for seed in range(8)], indirect=["broker"])
async def test_the_scripts_count_as_memory_does(
    broker: RedisBroker, link: Link, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    seconds, _ = await link.call("", "TIME")
    stopped = Stopped(link, int(seconds) * 1000)
    limits, oracle = broker.own_limits(), Counters()
    monkeypatch.setattr(limits, "_link", stopped)
    # Long ones: keys expire by the real clock, which goes on.
    lengths = {"a": 60.0, "b": 600.0, "c": 3600.5, "d": 123.4567}
    slots = [Limit(name=name, most=most) for name, most in (("one", 1), ("two", 2), ("five", 5))]
    steps = [0, 0, 1, 250, 3000, 40_000, 700_000]
    if seed % 2:
        # The clock is set back now and then. Memory forgets lapsed slots at other moments: it cannot be compared.
        slots, steps = [], [*steps, -2000]
    for _ in range(100):
        rates = [Limit(name=name, most=chance.randint(1, 6), per=per) for name, per in lengths.items()]
        asks = [
            Ask(holder=f"h{chance.randint(1, 12)}", limits=tuple(chance.sample(rates + slots, chance.randint(0, 3))))
            for _ in range(chance.randint(1, 6))
        ]
        lease = chance.choice([60.0, 300.0])
        until = stopped.moment + int(lease * 1000) + 1
        assert await limits.take(asks, lease=lease) == [oracle.take(ask, stopped.moment, until) for ask in asks]
        names = [limit.name for limit in rates + slots]
        for use, name in zip(await limits.usage(names), names, strict=True):
            assert use.used == oracle.use(name, stopped.moment).used
        if chance.random() < 0.1:
            lengths[chance.choice("abcd")] = chance.choice([60.0, 61.7, 7200.0])
        stopped.moment += chance.choice(steps)


async def test_processes_share_a_limit_and_the_slots_of_a_killed_one_lapse(broker: RedisBroker) -> None:
    process = Process("hold_a_slot", url_of(broker))
    async with opened(broker.own_limits()) as limits:
        try:
            assert process.hears() == "ready"
            process.go()
            assert process.hears() == [0.0]
            assert await ask(limits, slot()) > 0
            process.go()
            assert process.hears() == "given back"
            assert await ask(limits, slot()) == 0.0
            await limits.give_back(["here"])
            process.go()
            assert process.hears() == [0.0]
        finally:
            process.kill()
            process.close()
        # Nobody keeps its slot any more; it is free when its lease is over, and no sooner.
        [use] = await limits.usage(["slot"])
        assert use.holders == ("there",)
        assert 0 < await ask(limits, slot()) <= 1.0


async def test_a_wrong_clock_of_a_client_changes_nothing(broker: RedisBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    rate = Limit(name="rate", most=1, per=600.0)
    right = time.time
    async with opened(broker.own_limits()) as limits, opened(broker.own_workers()) as workers:
        monkeypatch.setattr(time, "time", lambda: right() - 86_400)
        assert await ask(limits, slot(), rate, holder="slow") == 0.0
        await workers.report(WorkerInfo(name="slow"), ttl=60)
        monkeypatch.setattr(time, "time", lambda: right() + 86_400)
        assert 0 < await ask(limits, slot(), holder="fast") <= 1.0
        assert 500 < await ask(limits, rate, holder="fast") <= 606
        assert list(await limits.keep(["slow"], lease=60)) == [True]
        assert [info.name for info in await workers.list()] == ["slow"]


async def test_a_server_that_forgot_its_scripts_is_told_them_again(private_server: Callable[..., Server]) -> None:
    server = private_server()
    broker = RedisBroker(url=server.url)
    companions = opened(broker.own_limits()), opened(broker.own_workers()), opened(broker.own_schedules())
    async with companions[0] as limits, companions[1] as workers, companions[2] as schedules:
        for _ in range(2):
            server.cli("SCRIPT", "FLUSH")
            assert await ask(limits, slot()) == 0.0
            assert list(await limits.keep(["here"], lease=60)) == [True]
            assert [use.used for use in await limits.usage(["slot"])] == [1]
            await limits.give_back(["here"])
            assert list(await workers.report(WorkerInfo(name="w"), ttl=60)) == []
            await schedules.put([ScheduleRecord(key="a", next=1)])
            assert len(await schedules.list()) == 1
            await schedules.remove(["a"])


async def test_what_has_lapsed_leaves_nothing_behind(broker: RedisBroker, link: Link) -> None:
    schedules = broker.own_schedules()
    async with opened(broker.own_limits()) as limits, opened(broker.own_workers()) as workers, opened(schedules):
        many = [Limit(name=f"of {number}", most=1, per=0.2) for number in range(100)]
        assert await ask(limits, *many, slot(), lease=0.2) == 0.0
        assert await ask(limits, slot("given back"), holder="other") == 0.0
        assert list(await limits.keep(["here"], lease=0.3)) == [True]
        await limits.give_back(["other"])
        for name in ("silent", "removed"):
            await workers.report(WorkerInfo(name=name), ttl=0.2)
            assert await workers.order(name, "stop")
        await workers.remove("removed")
        await schedules.put([ScheduleRecord(key="a", next=1), ScheduleRecord(key="b", next=1)])
        assert len(await schedules.claim(1, holder="h", lease=5)) == 2
        assert await schedules.remove(["a", "b"]) == 2
        deadline = time.monotonic() + 20
        while left := await link.call("", "KEYS", "*"):
            assert time.monotonic() < deadline, f"these stay: {left}"
            await asyncio.sleep(0.05)


def test_what_outlived_its_loop_can_be_abandoned(broker: RedisBroker) -> None:
    companions = (broker.own_limits(), broker.own_workers(), broker.own_schedules())

    async def use() -> None:
        limits, workers, schedules = companions
        for companion in companions:
            await companion.open()
        assert await ask(limits, slot()) == 0.0
        await workers.report(WorkerInfo(name="w"), ttl=60)
        await schedules.changed(0.2)

    asyncio.run(use())
    for companion in companions:
        companion.abandon()
        companion.abandon()

    async def use_twins() -> None:
        async with opened(companions[0].twin()) as limits, opened(companions[1].twin()) as workers:
            assert await ask(limits, slot(), holder="other") > 0
            assert [info.name for info in await workers.list()] == ["w"]

    asyncio.run(use_twins())


# Schedules


async def test_each_tick_is_fired_once_whoever_is_killed(broker: RedisBroker) -> None:
    keys, last = [f"key-{number}" for number in range(8)], 12
    async with opened(broker.own_schedules()) as store, opened(broker):
        await store.put([ScheduleRecord(key=key, next=1) for key in keys])
        processes = [Process("fire", url_of(broker), last) for _ in range(3)]
        try:
            for process in processes:
                assert process.hears() == "ready"
                process.go()
            # One is killed wherever it is; the others repeat what it began.
            assert processes[0].hears()
            processes[0].kill()
            processes[0].close()
            for process in processes[1:]:
                while process.hears() != "done":
                    pass
                assert process.close() == 0
        finally:
            for process in processes:
                process.kill()
        jobs = [job.id for job in await broker.queues.list("work", limit=1000)]
        assert jobs == sorted(f"{key}@{tick}" for key in keys for tick in range(1, last + 1))
        assert [(record.last, record.next) for record in await store.list()] == [(last, None)] * len(keys)


async def test_a_trigger_that_comes_back_as_a_list_is_no_other_trigger(broker: RedisBroker) -> None:
    async with opened(broker.own_schedules()) as store:
        await store.put([ScheduleRecord(key="a", trigger={"use": "calendar", "minutes": (0, 30)}, next=5)])
        [before] = await store.list()
        [fire] = await store.claim(5, holder="me", lease=60)
        # As each deploy does.
        await store.put([ScheduleRecord(key="a", trigger={"minutes": (0, 30), "use": "calendar"}, next=99)])
        assert list(await store.list()) == [before]
        assert await store.advance(fire, last=5, next_tick=6)


async def test_one_batch_may_name_a_key_twice(broker: RedisBroker) -> None:
    async with opened(broker.own_schedules()) as store:
        for _ in range(2):
            first = ScheduleRecord(key="a", trigger={"use": "every"}, message=b"1", next=1)
            await store.put([first, msgspec.structs.replace(first, message=b"2", next=2)])
            [found] = await store.list()
            assert (found.message, found.next) == (b"2", 1)


async def test_what_another_one_puts_in_between_is_not_overwritten(
    broker: RedisBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(broker.own_schedules()) as store, opened(broker.own_schedules()) as other:
        await store.put([ScheduleRecord(key="a", app="shop")])
        real = store._link.call  # type: ignore[attr-defined]
        meanwhile = [ScheduleRecord(key="a", app="shop", origin="runtime", message=b"theirs")]

        async def call(*words: Any) -> Any:
            answer = await real(*words)
            if meanwhile:
                await other.remove(["a"])
                await other.put([meanwhile.pop()])
            return answer

        monkeypatch.setattr(store._link, "call", call)  # type: ignore[attr-defined]
        # It was looked at before; when it is to be written it is another one.
        with pytest.raises(ConfigurationError, match="'runtime'"):
            await store.put([ScheduleRecord(key="a", app="shop", message=b"ours")])
        assert not meanwhile
        [found] = await store.list()
        assert found.message == b"theirs"


@pytest.mark.parametrize("protocol", [2, 3])
async def test_who_waits_asks_nothing(private_server: Callable[..., Server], protocol: int) -> None:
    server = private_server()
    async with opened(RedisBroker(url=f"{server.url}?protocol={protocol}").own_schedules()) as store:
        await store.changed(0.05)
        server.cli("CONFIG", "RESETSTAT")
        await store.changed(1.0)
        asked = {name for name in server.info("commandstats") if not name.startswith("cmdstat_config")}
        # Whether something has changed before, and then nothing any more.
        assert asked <= {"cmdstat_get", "cmdstat_info"}, asked
        assert server.info("commandstats")["cmdstat_get"].startswith("calls=1,")


@pytest.mark.parametrize("protocol", [2, 3])
async def test_a_listener_that_is_cut_off_listens_again(private_server: Callable[..., Server], protocol: int) -> None:
    server = private_server()
    broker = RedisBroker(url=f"{server.url}?protocol={protocol}")
    async with opened(broker.own_schedules()) as store, opened(broker.own_schedules()) as other:
        for number in range(3):
            waiting = asyncio.create_task(store.changed(60))
            await eventually(lambda: server.cli("PUBSUB", "CHANNELS") == ["camora:schedules"], "a listener")
            assert server.cli("CLIENT", "KILL", "TYPE", "pubsub") == 1
            await other.put([ScheduleRecord(key=f"{number}")])
            async with asyncio.timeout(60):
                await waiting


async def test_a_server_that_is_restarted_is_told_and_waited_for_again(private_server: Callable[..., Server]) -> None:
    server = private_server(appendonly=True, appendfsync="always")
    async with opened(RedisBroker(url=server.url).own_schedules()) as store:
        await store.put([ScheduleRecord(key="a", next=7)])
        await store.changed(0.5)
        waiting = asyncio.create_task(store.changed(60))
        await eventually(lambda: server.cli("PUBSUB", "CHANNELS") == ["camora:schedules"], "a listener")
        server.kill()
        with pytest.raises(BrokerUnavailable, match="RedisScheduleStore"):
            await waiting
        with pytest.raises(BrokerUnavailable):
            await store.next_due()
        server.start()
        assert await store.next_due() == 7
        waiting = asyncio.create_task(store.changed(60))
        await eventually(lambda: server.cli("PUBSUB", "CHANNELS") == ["camora:schedules"], "a listener")
        await store.put([ScheduleRecord(key="b")])
        async with asyncio.timeout(60):
            await waiting


@pytest.mark.parametrize("begun", [False, True])
async def test_closing_ends_waiting(broker: RedisBroker, link: Link, begun: bool) -> None:
    store = broker.own_schedules()
    await store.open()
    waiting = asyncio.create_task(store.changed(60))
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        while begun and await link.call("", "PUBSUB", "CHANNELS", "camora:schedules") == []:
            await asyncio.sleep(0.01)
    await store.close()
    with pytest.raises(BrokerUnavailable, match="RedisScheduleStore"):
        await waiting


async def test_the_provider_makes_one_by_url(broker: RedisBroker) -> None:
    [provider] = plugin.camora_schedule_stores()
    assert "valkey" in provider.schemes
    async with opened(provider.make(f"{url_of(broker)}?timeout=2", {"prefix": "shop"})) as store:
        await store.put([ScheduleRecord(key="a", app="shop")])
        assert [record.key for record in await store.list()] == ["a"]
    async with opened(broker.own_schedules()) as other:
        assert list(await other.list()) == []


# In a Cluster, while the slot of them all moves to another node


@pytest.fixture
async def moving(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Moving]:
    """A broker, and the move of its companions' slot, not begun."""
    monkeypatch.setattr("camora_redis.link._PATIENCE", 0.1)
    cluster = shared_cluster()
    broker = RedisBroker(url=f"{cluster.url}?prefix=moving-{next(_prefixes)}")
    key = broker.database.keys.own("")
    to = next(node for node in cluster.masters if node is not cluster.node_of(key))
    yield broker, lambda: cluster.migration(key, to)
    cluster.wait_ok()


def steps_of(migration: Migration) -> Iterator[None]:
    """Before it, after it, and after every key."""
    yield
    migration.begin()
    yield
    while migration.move(1):
        yield
    migration.finish()
    yield


async def or_away(call: Awaitable[R]) -> R | None:
    """The answer, or None while the keys cannot be reached together."""
    try:
        return await call
    except BrokerUnavailable:
        return None


async def test_no_limit_is_exceeded_while_the_slot_moves(moving: Moving) -> None:
    broker, migration = moving
    rate = Limit(name="rate", most=1, per=600.0)
    async with opened(broker.own_limits()) as limits:
        assert await ask(limits, slot(), slot("second"), holder="one") == 0.0
        assert await ask(limits, rate) == 0.0
        waits: list[Any] = []
        for _ in steps_of(migration()):
            waits += [
                await or_away(ask(limits, slot(), holder="two")),
                await or_away(ask(limits, rate, slot("free"), holder="two")),
                await or_away(ask(limits, rate)),
            ]
            kept = await or_away(limits.keep(["one"], lease=60.0))
            assert kept is None or list(kept) == [True]
        assert 0.0 not in waits
        assert None not in (*waits[:3], *waits[-3:])
        assert list(await limits.keep(["one"], lease=60.0)) == [True]
        await limits.give_back(["one"])
        assert await ask(limits, slot(), slot("second"), holder="two") == 0.0


async def test_no_schedule_is_lent_twice_while_the_slot_moves(moving: Moving) -> None:
    broker, migration = moving
    async with opened(broker.own_schedules()) as store, opened(broker.own_schedules()) as other:
        await store.put([ScheduleRecord(key=key, next=1) for key in ("a", "b")])
        [a] = await store.claim(1, holder="one", lease=60, limit=1)
        [b] = await store.claim(1, holder="one", lease=60)
        await store.changed(0.5)
        waiting = asyncio.create_task(store.changed(60))
        for _ in steps_of(migration()):
            assert not await or_away(other.claim(2, holder="two", lease=60))
            assert await or_away(other.next_due()) in (60_001, None)
        assert await other.advance(a, last=1, next_tick=5)
        assert await other.pause(["b"]) == 1
        async with asyncio.timeout(60):
            await waiting
        assert await other.advance(b, last=1, next_tick=None)
        assert [(found.key, found.next, found.version) for found in await store.list()] == [("a", 5, 2), ("b", None, 3)]
