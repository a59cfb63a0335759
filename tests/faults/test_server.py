"""The server goes away and comes back: workers wait for it, and nothing that it had acknowledged is lost."""

from __future__ import annotations

import asyncio

import psutil
import pytest
from camora.errors import BrokerUnavailable, DispatchUncertain

from tests.faults.rig import LEASE, TIMEOUT, Rig, eventually, more, next_finish


@pytest.mark.parametrize("rig", ["redis", "postgresql", "psycopg", "mariadb", "rabbitmq", "servicebus"], indirect=True)
async def test_a_server_that_is_started_again_has_all_jobs(rig: Rig) -> None:
    """It is stopped in order, then killed; each time another worker is started before it is there again."""
    workers = [rig.worker("--concurrency", "3").ready() for _ in range(2)]
    async with rig.app() as app:
        for end in (rig.server.stop, rig.server.kill):
            await rig.load(app, 20)
            end()
            rig.faults += 1
            late = asyncio.create_task(more(rig, app, 10))
            newcomer = rig.worker("--concurrency", "3")
            await rig.noticed(*workers)
            await asyncio.to_thread(newcomer.wait_for, "broker away, connecting")
            await asyncio.to_thread(rig.server.start)
            await next_finish(rig)
            await late
            await asyncio.to_thread(newcomer.ready)
            await eventually(lambda: rig.idle(app.broker), "the end of what there was")
            await rig.recovered(*workers)
            workers.append(newcomer)
    # What was running when the server went could not be settled in time; it may have run again.
    await rig.balance(duplicates=2 * (2 * 6 + 3))
    rig.alive()
    for worker in workers:
        assert "Traceback" not in worker.text(), worker.text()


async def test_a_server_that_is_paused_for_shorter_and_longer_than_a_lease(rig: Rig) -> None:
    worker = rig.worker().ready()
    process = psutil.Process(worker.process.pid)
    async with rig.app() as app:
        for seconds in (LEASE / 2, 2 * LEASE + TIMEOUT):
            await rig.load(app, 20)
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
            await next_finish(rig)
            await late
    await rig.balance(duplicates=2 * 20)
    rig.alive()


async def test_a_dispatch_that_finds_no_server_says_so_in_time(rig: Rig) -> None:
    async with rig.app(patience=2.0) as app:
        await rig.dispatch(app, "work", number=1)
        again = "cannot double it" if app.broker.capabilities.dedup else "may run it twice"
        rig.server.pause()
        try:
            async with asyncio.timeout(60):
                with pytest.raises(DispatchUncertain, match=again):
                    await app.dispatch("work", number=2)
        finally:
            rig.server.resume()
        rig.server.kill()
        with pytest.raises(BrokerUnavailable, match=str(rig.server.port)):
            await app.dispatch("work", number=3)
        rig.server.start()
        await rig.dispatch(app, "work", number=4)
