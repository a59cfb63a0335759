"""A server that is full refuses what is new, and lets workers drain it: it recovers by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from camora import Camora
from camora.errors import BrokerUnavailable

from tests.redis.faults.rig import Rig, eventually, rigged

_LARGE = "x" * 20_000


@pytest.fixture(params=["redis-6.2", "redis-7", "redis-8", "valkey-9"])
def full_rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    with rigged(tmp_path, request.param, appendonly=False, maxmemory="6mb", maxmemory_policy="noeviction") as rig:
        yield rig


async def fill(rig: Rig, app: Camora, task: str, *, delay: float = 0.0) -> int:
    """Dispatch until the server refuses; how many it took."""
    with pytest.raises(BrokerUnavailable, match="it is full"):
        for number in range(10_000):
            if delay:
                await rig.delayed(app, delay, task, number=number, text=_LARGE)
            else:
                await rig.dispatch(app, task, number=number, text=_LARGE)
    # The rest is filled with small ones, to the brim.
    with pytest.raises(BrokerUnavailable):
        for number in range(10_000):
            await rig.dispatch(app, "work", number=number)
    return len(rig.dispatched)


async def test_a_full_server_is_drained_and_takes_jobs_again(full_rig: Rig) -> None:
    rig = full_rig
    async with rig.app(patience=0.5) as app:
        assert await fill(rig, app, "weigh_again") > 50
    rig.worker().ready()
    await rig.balance(duplicates=0)
    async with rig.app() as app:
        await rig.load(app, 20)
    await rig.balance(duplicates=0)
    rig.alive()


async def test_a_server_full_of_dead_letters_is_emptied_by_who_purges_them(full_rig: Rig) -> None:
    rig = full_rig
    async with rig.app(patience=0.5) as app:
        await fill(rig, app, "weigh_in_vain")
        rig.worker().ready()
        found = await rig.balance(duplicates=0)
        assert found.dead > 50
        with pytest.raises(BrokerUnavailable, match="it is full"):
            await rig.dispatch(app, "work", number=1)
        assert await app.purge_dead_letters() == found.dead
    async with rig.app() as app:
        await app.dispatch("work", number=1)
        await eventually(lambda: rig.idle(app.broker), "the end of the new job")
    rig.alive()


async def test_what_is_due_later_starts_on_a_full_server(full_rig: Rig) -> None:
    rig = full_rig
    async with rig.app(patience=0.5) as app:
        await fill(rig, app, "weigh", delay=2.0)
    rig.worker().ready()
    await rig.balance(duplicates=0)
    async with rig.app() as app:
        await rig.load(app, 20)
    await rig.balance(duplicates=0)
    rig.alive()
