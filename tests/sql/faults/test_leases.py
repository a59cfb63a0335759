"""Leases under fire: workers that are killed at any step, owners that come back, wrong clocks."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import psutil
import pytest
from camora.interfaces.broker import ConsumerSettings, LeaseVerdict
from camora.message import Delivery, Envelope
from camora.outcome import Action, Settlement
from processes import WorkerProcess

from tests.sql.faults.rig import LEASE, Rig, begun, eventually

WRONG_CLOCK = Path(__file__).parent / "wrong_clock"


def children(supervisor: WorkerProcess) -> list[psutil.Process]:
    return [child for child in psutil.Process(supervisor.process.pid).children() if child.is_running()]


@pytest.mark.parametrize("step", ["received", "running", "ran", "before settle", "after settle"])
async def test_a_worker_killed_at_any_step_loses_nothing(rig: Rig, step: str) -> None:
    async with rig.app() as app:
        await rig.load(app, 16)
    first = rig.worker(SHOP_CRASH=step)
    assert await asyncio.to_thread(first.end) == -signal.SIGKILL
    rig.workers.remove(first)
    rig.faults += 1
    assert (rig.folder / f"crashed-{step}").exists()
    rig.worker(SHOP_CRASH=step).ready()
    # Those that had run and were not settled run again: at most what one worker holds.
    found = await rig.balance(duplicates=10)
    assert found.longest_recovery < 1.5 * LEASE + 15
    rig.alive()


async def test_workers_killed_under_load(rig: Rig) -> None:
    supervisor = rig.worker("--processes", "2", "--concurrency", "10").ready(2)
    async with rig.app() as app:
        for _ in range(2):
            await rig.load(app, 60)
            await eventually(lambda: len(children(supervisor)) == 2, "two child processes")
            children(supervisor)[0].kill()
            rig.faults += 1
            await asyncio.to_thread(supervisor.wait_for, "was killed by SIGKILL")
    await rig.balance(duplicates=2 * 20)
    rig.alive()


async def test_a_frozen_owner_settles_nothing_that_another_one_has(rig: Rig) -> None:
    """Whatever it wants of what was taken from it, it is refused, and the other one is not hindered."""
    async with rig.app() as app:
        consumers = [
            await app.broker.consumer(ConsumerSettings(queues=("q",), worker=name, lease=0.5))
            for name in ("old", "new")
        ]
        old, new = consumers
        await app.broker.publish([Envelope(id=name, task="t", queue="q", body=b"{}") for name in "abcd"])
        stale = await old.receive(4, 5.0)
        assert len(stale) == 4
        taken: dict[str, Delivery] = {}
        async with asyncio.timeout(60):
            while len(taken) < 4:
                taken.update({one.id: one for one in await new.receive(4, 5.0)})
        keeper = await asyncio.to_thread(old.leases)
        assert await asyncio.to_thread(keeper.extend, stale) == [LeaseVerdict.LOST] * 4
        await asyncio.to_thread(keeper.close)
        again = Envelope(id=stale[1].id, task="t", queue="elsewhere", body=b"{}")
        follows = Envelope(id="follows", task="t", queue="elsewhere", body=b"{}")
        refused = await old.settle(
            [
                Settlement(delivery=stale[0], action=Action.ACK, successors=(follows,)),
                Settlement(delivery=stale[1], action=Action.RETRY, envelope=again),
                Settlement(delivery=stale[2], action=Action.RELEASE),
                Settlement(delivery=stale[3], action=Action.ACK),
            ]
        )
        assert list(refused) == [False] * 4
        assert await app.broker.queues.find("follows") is None
        settled = await new.settle([Settlement(delivery=one, action=Action.ACK) for one in taken.values()])
        assert list(settled) == [True] * 4
        assert await rig.idle(app.broker)
        for consumer in consumers:
            await consumer.close()


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_worker_with_a_wrong_clock_starts_nothing_early_and_keeps_its_leases(rig: Rig, hours: int) -> None:
    path = f"{WRONG_CLOCK}:{rig.python_path()}"
    wrong = rig.worker(PYTHONPATH=path, WRONG_CLOCK=str(hours * 3600)).ready()
    async with rig.app() as app:
        for number in range(10):
            await rig.delayed(app, 1.0 + number / 10, "work", number=number)
        job = rig.noted(await app.dispatch("work_for", seconds=2 * LEASE))
        await eventually(lambda: rig.ran(job), "the start of the long one")
        rig.worker().ready()
    await rig.balance(duplicates=0)
    assert "lost its lease" not in wrong.text()


async def test_a_job_is_cancelled_while_it_runs_behind_a_network_that_was_cut(rig: Rig) -> None:
    rig.worker(through=True).ready()
    async with rig.app() as app:
        job = await app.dispatch("hold", name="a")
        await begun(rig, "a")
        rig.proxy.cut()
        await job.cancel()
        await eventually(lambda: rig.idle(app.broker), "the end")
        assert (await job.info()).status.value == "cancelled"
