"""The server goes away and comes back: workers wait for it, and nothing that it had acknowledged is lost."""

from __future__ import annotations

import asyncio
import time

import psutil
import pytest
from camora.errors import BrokerUnavailable, DispatchUncertain

from tests.faults.rig import LEASE, TIMEOUT, Rig, eventually, more, next_finish


@pytest.mark.parametrize(
    ("rig", "how"),
    [
        ("redis", "stop"),
        ("redis", "kill"),
        ("postgresql", "stop"),
        ("psycopg", "kill"),
        ("mariadb", "stop"),
        ("mariadb", "kill"),
        ("rabbitmq", "stop"),
        ("rabbitmq", "kill"),
        ("servicebus", "stop"),
        ("servicebus", "kill"),
    ],
    indirect=["rig"],
)
async def test_a_server_that_is_started_again_has_all_jobs(rig: Rig, how: str) -> None:
    workers = [rig.worker("--concurrency", "3").ready() for _ in range(2)]
    async with rig.app() as app:
        await rig.load(app, 20)
        for _ in range(2):
            await rig.load(app, 40)
            getattr(rig.server, how)()
            rig.faults += 1
            late = asyncio.create_task(more(rig, app, 20))
            await rig.noticed(*workers)
            await asyncio.to_thread(rig.server.start)
            assert await next_finish(rig) < 6
            await late
            await eventually(lambda: rig.idle(app.broker), "the end of what there was")
            await rig.recovered(*workers)
    # What was running when the server went could not be settled in time; it may have run again.
    await rig.balance(duplicates=2 * 2 * 6)
    rig.alive()
    for worker in workers:
        assert "Traceback" not in worker.text(), worker.text()


@pytest.mark.parametrize("seconds", [LEASE / 2, 2 * LEASE + TIMEOUT], ids=["shorter", "longer"])
async def test_a_server_that_is_paused_for_shorter_and_longer_than_a_lease(rig: Rig, seconds: float) -> None:
    worker = rig.worker().ready()
    process = psutil.Process(worker.process.pid)
    async with rig.app() as app:
        await rig.load(app, 40)
        await next_finish(rig)
        threads = process.num_threads()
        rig.server.pause()
        rig.faults += 1
        try:
            late = asyncio.create_task(more(rig, app, 10))
            await asyncio.sleep(seconds)  # that is the fault
            assert process.num_threads() <= threads + 1
        finally:
            rig.server.resume()
        assert await next_finish(rig) < 6
        await late
    await rig.balance(duplicates=20)
    rig.alive()


async def test_a_dispatch_that_finds_no_server_says_so_in_time(rig: Rig) -> None:
    async with rig.app(patience=2.0) as app:
        await rig.dispatch(app, "work", number=1)
        again = "cannot double it" if app.broker.capabilities.dedup else "may run it twice"
        rig.server.pause()
        began = time.monotonic()
        try:
            with pytest.raises(DispatchUncertain, match=again):
                await app.dispatch("work", number=2)
        finally:
            rig.server.resume()
        assert time.monotonic() - began < 20
        rig.server.kill()
        with pytest.raises(BrokerUnavailable, match=str(rig.server.port)):
            await app.dispatch("work", number=3)
        rig.server.start()
        await rig.dispatch(app, "work", number=4)


async def test_a_worker_may_be_started_before_the_server(rig: Rig) -> None:
    rig.server.stop()
    worker = rig.worker()
    await asyncio.to_thread(worker.wait_for, "broker away, connecting")
    rig.server.start()
    async with rig.app() as app:
        await rig.load(app, 20)
    await rig.balance(duplicates=0)
    rig.alive()
