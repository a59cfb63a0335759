"""Limits on Redis, where the server's clock does not only go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from camora.interfaces.limits import Ask, Limit, Limits
from camora_redis import RedisBroker

from tests.servers.fixtures import fresh_url

ONE = Limit(name="one", most=1)


@pytest.fixture
async def broker() -> AsyncIterator[RedisBroker]:
    broker = RedisBroker.from_url(fresh_url("redis"))
    await broker.open()
    yield broker
    await broker.close()


@pytest.fixture
async def limits(broker: RedisBroker) -> AsyncIterator[Limits]:
    limits = broker.own_limits()
    assert limits is not None
    await limits.open()
    yield limits
    await limits.close()


async def test_a_slot_of_the_dead_lapses_though_the_clock_was_set_back(broker: RedisBroker, limits: Limits) -> None:
    assert await limits.take([Ask(holder="dead", limits=(ONE,))], lease=0.3) == [0.0]
    # What a clock leaves behind that is set back by an hour: the same moments, an hour ahead.
    [slots] = await broker._link.call("x", "KEYS", "*slots:one")
    await broker._link.call(slots, "ZINCRBY", slots, 3_600_000, "dead")
    await broker._link.call(slots, "PEXPIRE", slots, 3_700_000)
    async with asyncio.timeout(60):
        while (waits := await limits.take([Ask(holder="next", limits=(ONE,))], lease=0.3)) != [0.0]:
            await asyncio.sleep(waits[0])


async def test_a_slot_of_the_living_is_kept_though_the_clock_was_set_back(broker: RedisBroker, limits: Limits) -> None:
    assert await limits.take([Ask(holder="alive", limits=(ONE,))], lease=60.0) == [0.0]
    [slots] = await broker._link.call("x", "KEYS", "*slots:one")
    await broker._link.call(slots, "ZINCRBY", slots, 3_600_000, "alive")
    assert await limits.take([Ask(holder="next", limits=(ONE,))], lease=60.0) != [0.0]
    assert await limits.keep(["alive"], lease=60.0) == [True]
    assert await limits.take([Ask(holder="next", limits=(ONE,))], lease=60.0) != [0.0]
