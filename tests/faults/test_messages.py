"""Messages that are repeated, and results that cannot be stored."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from camora import Camora

from tests.faults.rig import Rig, eventually
from tests.faults.rigs import RIGS


@pytest.mark.parametrize("rig", ["redis", "postgresql", "mariadb"], indirect=True)
async def test_an_id_that_is_dispatched_again_runs_once(rig: Rig) -> None:
    rig.worker().ready()
    async with rig.app() as app:
        for number in range(20):
            rig.noted(await app.options(job_id=f"id-{number}").dispatch("work", number=number))
            await app.options(job_id=f"id-{number}").dispatch("work", number=number)
        await eventually(lambda: rig.idle(app.broker), "the jobs' end")
        for number in range(20):
            await app.options(job_id=f"id-{number}").dispatch("work", number=number)
    await rig.balance(duplicates=0)


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("redis", "redis"),
        ("postgresql", "postgresql"),
        ("mariadb", "mariadb"),
        ("rabbitmq", "redis"),
        ("servicebus", "redis"),
    ],
)
async def test_jobs_are_settled_when_their_results_are_safe(tmp_path: Path, kind: str, other: str) -> None:
    """Results are kept on another server, which is away when jobs have ended."""
    with RIGS[kind](tmp_path / "broker") as rig, RIGS[other](tmp_path / "results") as kept:
        worker = rig.worker(SHOP_RESULTS=kept.url()).ready()
        async with Camora(rig.url(), results=kept.url()) as app:
            jobs = [rig.noted(await app.dispatch("work", number=number)) for number in range(10)]
            assert [await job.result(30) for job in jobs] == list(range(10))
            kept.server.kill()
            late = [rig.noted(await app.dispatch("work", number=number)) for number in range(10)]
            await asyncio.to_thread(worker.wait_for, "cannot settle")
            assert not await rig.idle(app.broker)
            kept.server.start()
            rig.faults += 1
            assert [await job.result(30) for job in late] == list(range(10))
            assert [await job.result(30) for job in jobs] == list(range(10))
            await eventually(lambda: rig.idle(app.broker), "the settlements")
        rig.alive()
