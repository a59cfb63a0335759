"""The network between workers, dispatchers and the server fails: it cuts, refuses, swallows, delays."""

from __future__ import annotations

import asyncio

import psutil
import pytest
from camora.errors import BrokerUnavailable, DispatchUncertain

from tests.faults.rig import Rig, begun, eventually


async def test_connections_that_are_cut_again_and_again(rig: Rig) -> None:
    rig.worker(through=True).ready()
    async with rig.app(through=True) as app:
        for _ in range(6):
            await rig.load(app, 12)
            rig.proxy.cut()
            rig.faults += 1
    await rig.balance(duplicates=6 * 10)
    rig.alive()


async def test_a_network_that_refuses_connections_for_a_while_and_is_slow_before(rig: Rig) -> None:
    worker = rig.worker(through=True).ready()
    async with rig.app(through=True) as app:
        rig.proxy.delay(0.05)
        await asyncio.gather(*(rig.load(app, 8) for _ in range(3)))
        rig.proxy.refuse()
        rig.proxy.cut()
        rig.faults += 1
        late = asyncio.create_task(rig.load(app, 16))
        await rig.noticed(worker)
        rig.proxy.heal()
        await late
    await rig.balance(duplicates=10)
    rig.alive()


async def test_a_worker_behind_a_silent_network_loses_its_jobs_to_others_and_comes_back(rig: Rig) -> None:
    silent = rig.worker(through=True).ready()
    async with rig.app() as app:
        await app.dispatch("hold", name="a")
        await begun(rig, "a")
        rig.proxy.hold()
        rig.faults += 1
        rig.worker().ready()
        # By its own clock: nobody can tell it.
        await asyncio.to_thread(silent.wait_for, "lost its lease")
        await begun(rig, "a", 2)
        jobs = await rig.load(app, 12)
        await eventually(lambda: rig.finished() >= len(jobs), "the work of the other one")
        rig.proxy.heal()
        await asyncio.to_thread(silent.wait_for, "broker is back")
        (rig.folder / "release-a").touch()
        await rig.load(app, 12)
    await rig.balance(duplicates=10)
    rig.alive()
    assert "Task was destroyed" not in silent.text()
    assert "Traceback" not in silent.text()


@pytest.mark.parametrize("rig", ["redis", "postgresql", "psycopg", "mariadb", "rabbitmq", "servicebus"], indirect=True)
async def test_a_dispatch_into_a_silent_network_ends_in_time(rig: Rig) -> None:
    async with rig.app(through=True, patience=2.5) as app:
        await rig.dispatch(app, "work", number=1)
        rig.proxy.hold()
        async with asyncio.timeout(60):
            with pytest.raises((BrokerUnavailable, DispatchUncertain)):
                await app.dispatch("work", number=2)
        rig.proxy.heal()
        await rig.dispatch(app, "work", number=3)
        counts = await app.broker.queues.counts()
        assert counts["default"]["ready"] in (2, 3)  # it may have been enqueued: that is what uncertain means


async def test_a_worker_that_may_open_no_more_files_waits_until_it_may(rig: Rig) -> None:
    worker = rig.worker(through=True).ready()
    process = psutil.Process(worker.process.pid)
    usual = process.rlimit(psutil.RLIMIT_NOFILE)
    async with rig.app() as app:
        await rig.load(app, 8)
        await eventually(lambda: rig.idle(app.broker), "the first jobs")
        process.rlimit(psutil.RLIMIT_NOFILE, (3, usual[1]))
        rig.proxy.cut()
        rig.faults += 1
        await rig.load(app, 8)
        await asyncio.to_thread(worker.wait_for, "Too many open files")
        process.rlimit(psutil.RLIMIT_NOFILE, usual)
    await rig.balance(duplicates=10)
    rig.alive()


async def test_a_cancelled_dispatch_does_no_harm_to_others(rig: Rig) -> None:
    async with rig.app(through=True) as app:
        await rig.dispatch(app, "work", number=0)
        rig.proxy.delay(0.02)
        for number in range(8):
            given = asyncio.create_task(app.options(job_id=f"other-{number}").dispatch("work", number=number))
            # A dispatch that was cancelled may have been done all the same.
            rig.possible.add(f"other-{number}")
            mine = asyncio.create_task(app.options(job_id=f"mine-{number}").dispatch("work", number=number))
            await asyncio.sleep(0.01 * number)
            given.cancel()
            # The answer that comes is the one to this call, and not to the one before it.
            assert rig.noted(await mine).id == f"mine-{number}"
            await asyncio.wait([given])
            if not given.cancelled():
                rig.noted(await given)
        rig.proxy.heal()
    rig.worker().ready()
    await rig.balance(duplicates=0)
