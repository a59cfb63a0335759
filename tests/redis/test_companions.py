"""Limits, schedules and workers in Redis: in old servers, over processes and restarts, and what they leave behind."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from camora.builtin.memory.counters import Counters
from camora.interfaces.limits import Ask, Limit, Limits
from camora.interfaces.workers import WorkerDirectory
from camora.testing.conformance import LimitsConformance, WorkerDirectoryConformance
from camora_redis.broker import RedisBroker
from camora_redis.link import Link, Script, script

from tests.servers.fixtures import fresh_url

KINDS = ["redis", "valkey"]
OLD = ["redis-6.2", "redis-7"]


@pytest.fixture(params=OLD)
def old(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture(params=KINDS)
def broker(request: pytest.FixtureRequest) -> RedisBroker:
    """A broker on an empty database."""
    return RedisBroker(url=fresh_url(request.param))


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


class TestWorkersOfOldServers(WorkerDirectoryConformance):
    @pytest.fixture
    def directory_factory(self, old: str) -> Callable[[], WorkerDirectory]:
        return lambda: RedisBroker(url=fresh_url(old)).own_workers()


# Limits


@pytest.fixture
async def limits(broker: RedisBroker) -> AsyncIterator[Limits]:
    limits = broker.own_limits()
    await limits.open()
    yield limits
    await limits.close()


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


@pytest.mark.parametrize("seed", range(8))
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
    for _ in range(150):
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
