"""Workflows over RabbitMQ: those that travel by themselves, and those that a store beside it keeps."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from camora import Camora
from camora.errors import JobFailed, UnsupportedCapability
from camora_workflows.compose import Chain, Chord, Group
from camora_workflows.failed_step import FailedStep

from tests.servers.rabbitmq import fresh_url

told: list[Any] = []


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
        raise ValueError("no")

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
    app, add, _total, bad, alert = app_of(fresh_url())
    async with app, app.worker():
        job = await Chain([add.s(1, 2), add.s(3), add.s(4)]).dispatch()
        assert await job.result(timeout=60) == 10
        failing = Chain([add.s(1, 2), bad.s(), add.s(4)])
        failing.on_failure = alert.s()
        job = await failing.dispatch()
        with pytest.raises(JobFailed, match="ValueError: no"):
            await job.result(timeout=60)
        assert (await told_one()).job_id == f"{job.id}.1"
        with pytest.raises(UnsupportedCapability, match="redis://"):
            await Group([add.s(1, 2), add.s(3, 4)]).dispatch()


async def test_with_a_store_beside_it_everything_works(tmp_path: Path) -> None:
    app, add, total, bad, alert = app_of(fresh_url(), f"sqlite:///{tmp_path}/results.db")
    async with app, app.worker():
        job = await Chain([add.s(1, 1), Group([add.s(number) for number in range(4)]), total.s()]).dispatch()
        assert await job.result(timeout=60) == 4 * 2 + 6
        failing = Chord(Group([add.s(1, 2), Chain([add.s(1, 2), bad.s()])]), total.s())
        failing.on_failure = alert.s()
        job = await failing.dispatch()
        with pytest.raises(JobFailed, match="ValueError: no"):
            await job.result(timeout=60)
        assert (await told_one()).task == "bad"
