"""Workflows over RabbitMQ: those that travel by themselves, and those that a store beside it keeps."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from camora import Camora, Status
from camora.errors import JobFailed, UnsupportedCapability
from camora_workflows.compose import Chain, Chord, Graph, Group
from camora_workflows.failed_step import FailedStep

from tests.servers.fixtures import fresh_url as fresh_redis_url
from tests.servers.rabbitmq import fresh_url

told: list[Any] = []
mended: list[bool] = []


def app_of(url: str, results: str | None = None) -> tuple[Camora, Any, Any, Any, Any]:
    app = Camora(url, results=results, name="beside")

    @app.task(name="add")
    async def add(a: int, b: int) -> int:
        return a + b

    @app.task(name="total")
    async def total(values: list[int]) -> int:
        return sum(values)

    @app.task(name="bad")
    async def bad(value: int) -> int:
        if not mended:
            raise ValueError("no")
        return value

    @app.task(name="alert")
    async def alert(failed: FailedStep) -> None:
        told.append(failed)

    return app, add, total, bad, alert


async def told_one() -> Any:
    for _ in range(6000):
        if told:
            return told.pop()
        await asyncio.sleep(0.01)
    raise AssertionError("nothing was told")


async def test_without_a_store_a_chain_travels_and_its_result_comes_back() -> None:
    """To the process that dispatched it, from one that knows nothing but the messages."""
    url = fresh_url()
    app, add, total, bad, alert = app_of(url)
    elsewhere, *_ = app_of(url)
    async with app, elsewhere, elsewhere.worker():
        following = Chain([add.s(1, 2), add.s(3), add.s(4)])
        following.on_success = add.s(5)
        job = await following.dispatch()
        assert await job.result(timeout=60) == 10
        assert await job.status() is Status.SUCCEEDED
        assert await (await app.job(f"{job.id}.1")).result(timeout=60) == 6, "each link's result, too"
        assert await (await app.job(f"{job.id}.3")).result(timeout=60) == 15, "and its callback's"
        failing = Chain([add.s(1, 2), bad.s(), add.s(4)])
        failing.on_failure = alert.s()
        job = await failing.dispatch()
        with pytest.raises(JobFailed, match="ValueError: no"):
            await job.result(timeout=60)
        assert await job.status() is Status.FAILED
        assert (await told_one()).job_id == f"{job.id}.1"
        members = Group([add.s(1, 2), add.s(3, 4)])
        for refused in (members, Chord(members, total.s())):
            with pytest.raises(UnsupportedCapability, match=r"results='redis://"):
                await refused.dispatch()


@pytest.mark.parametrize("store", ["redis", "sqlite"])
async def test_with_a_store_beside_it_everything_works(tmp_path: Path, store: str) -> None:
    results = fresh_redis_url() if store == "redis" else f"sqlite:///{tmp_path}/results.db"
    await everything(*app_of(fresh_url(), results))


async def everything(app: Camora, add: Any, total: Any, bad: Any, alert: Any) -> None:
    """What needs a store: fan-in, graphs, running again what has failed."""
    async with app, app.worker():
        job = await Chain([add.s(1, 1), Group([add.s(number) for number in range(4)]), total.s()]).dispatch()
        assert await job.result(timeout=60) == 4 * 2 + 6
        graph = Graph().add("a", add.s(1, 2)).add("b", add.s(4), after=["a"]).add("c", add.s(5), after=["a"])
        job = await graph.add("d", total.s(), after=["b", "c"]).dispatch()
        assert await job.result(timeout=60) == {"a": 3, "b": 7, "c": 8, "d": 15}
        failing = Chord(Group([add.s(1, 2), Chain([add.s(1, 2), bad.s()])]), total.s())
        failing.on_failure = alert.s()
        job = await failing.dispatch()
        with pytest.raises(JobFailed, match="ValueError: no"):
            await job.result(timeout=60)
        assert (await told_one()).task == "bad"
        mended.append(True)
        try:
            assert await job.retry() == 1
            assert await job.result(timeout=60) == 3 + 3
        finally:
            mended.clear()
        assert [letter.id async for letter in app.dead_letters()] == [], "what was run again is no dead letter"
