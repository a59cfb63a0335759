"""The network between workers, dispatchers and the server fails: it cuts, swallows, delays, loses single answers."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import psutil
import pytest
from camora import Camora
from camora.errors import BrokerUnavailable, DispatchUncertain
from camora_redis.scripting import script

from tests.redis.faults.rig import LEASE, TIMEOUT, Rig, eventually


async def test_connections_that_are_cut_again_and_again(rig: Rig) -> None:
    rig.worker("--concurrency", "5", through=True).ready()
    async with rig.app(through=True) as app:
        for _ in range(10):
            await rig.load(app, 20)
            rig.proxy.cut()
            rig.faults += 1
    await rig.balance(duplicates=10 * 10)
    rig.alive()


async def test_a_network_that_refuses_connections_for_a_while(rig: Rig) -> None:
    worker = rig.worker(through=True).ready()
    async with rig.app(through=True) as app:
        await rig.load(app, 40)
        rig.proxy.refuse()
        rig.proxy.cut()
        rig.faults += 1
        late = asyncio.create_task(rig.load(app, 40))
        await rig.noticed(worker)
        rig.proxy.heal()
        await late
    await rig.balance(duplicates=10)
    rig.alive()


async def test_a_worker_behind_a_silent_network_loses_its_jobs_to_others_and_comes_back(rig: Rig) -> None:
    silent = rig.worker(through=True).ready()
    async with rig.app() as app:
        await app.dispatch("hold", name="a")
        await eventually(lambda: list(rig.folder.glob("started-a-*")), "the job's start")
        rig.proxy.hold()
        rig.faults += 1
        began = time.monotonic()
        rig.worker().ready()
        # By its own clock: nobody can tell it.
        await asyncio.to_thread(silent.wait_for, "lost its lease")
        assert time.monotonic() - began < LEASE + TIMEOUT + 5
        await eventually(lambda: len(list(rig.folder.glob("started-a-*"))) == 2, "its second start")
        jobs = await rig.load(app, 40)
        await eventually(lambda: rig.finished() >= len(jobs), "the work of the other one")
        rig.proxy.heal()
        await asyncio.to_thread(silent.wait_for, "broker is back")
        (rig.folder / "release-a").touch()
        await rig.load(app, 40)
    await rig.balance(duplicates=10)
    rig.alive()


async def test_a_dispatch_into_a_silent_network_ends_in_time(rig: Rig) -> None:
    async with rig.app(through=True, patience=2.5) as app:
        await rig.dispatch(app, "work", number=1)
        rig.proxy.hold()
        began = time.monotonic()
        with pytest.raises((BrokerUnavailable, DispatchUncertain)):
            await app.dispatch("work", number=2)
        assert time.monotonic() - began < 6
        rig.proxy.heal()
        await rig.dispatch(app, "work", number=3)
        assert (await app.broker.queues.counts())["default"]["ready"] == 2


async def test_a_worker_that_may_open_no_more_files_waits_until_it_may(rig: Rig) -> None:
    worker = rig.worker("--concurrency", "5", through=True).ready()
    process = psutil.Process(worker.process.pid)
    usual = process.rlimit(psutil.RLIMIT_NOFILE)
    async with rig.app() as app:
        await rig.load(app, 20)
        await eventually(lambda: rig.idle(app.broker), "the first jobs")
        process.rlimit(psutil.RLIMIT_NOFILE, (3, usual[1]))
        rig.proxy.cut()
        rig.faults += 1
        await rig.load(app, 20)
        await asyncio.to_thread(worker.wait_for, "Too many open files")
        process.rlimit(psutil.RLIMIT_NOFILE, usual)
    await rig.balance(duplicates=10)
    rig.alive()


async def test_work_goes_on_over_a_slow_network(rig: Rig) -> None:
    rig.worker(through=True).ready()
    async with rig.app(through=True) as app:
        rig.proxy.delay(0.1)
        await asyncio.gather(*(rig.load(app, 10) for _ in range(4)))
    await rig.balance(duplicates=0)
    rig.alive()


_SORTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "urgent": {"priority": 3},
    "delayed": {"delay": 0.5},
    "keyed": {"key": "k"},
}


@pytest.mark.parametrize("sort", _SORTS)
async def test_a_dispatch_whose_answer_is_lost_makes_one_job(rig: Rig, sort: str) -> None:
    rig.worker().ready()
    async with rig.app(through=True) as app:
        for options in ({}, {"priority": 1}):
            await rig.dispatch(app, "work", how=options, number=0)  # so that the server knows the scripts
        used = script("publish" if _SORTS[sort] else "publish_one").digest.encode()
        for number in range(5):
            lost = rig.proxy.drop_next_reply(used)
            options = {name: f"{value}{number}" if name == "key" else value for name, value in _SORTS[sort].items()}
            rig.noted(await app.options(**options).dispatch("work", number=number))  # type: ignore[arg-type]
            assert lost.is_set()
            rig.faults += 1
    await rig.balance(duplicates=0)


async def test_a_batch_whose_answer_is_lost_is_there_once(rig: Rig) -> None:
    async with rig.app(through=True) as app:

        @app.task(name="work")
        async def work(number: int) -> None:
            """What the workers have under this name."""

        await rig.dispatch(app, "work", how={"key": "first"}, number=0)  # so that the server knows the script
        lost = rig.proxy.drop_next_reply(script("publish").digest.encode())
        for job in await app.dispatch_many(work.s(number=number) for number in range(700)):
            rig.noted(job)
        assert lost.is_set()
        rig.faults += 1
        assert (await app.broker.queues.counts())["default"] == {"ready": 701}
    rig.worker().ready()
    await rig.balance(duplicates=0)


@pytest.mark.parametrize("name", ["take", "settle", "extend", "XREADGROUP", "enroll"])
async def test_a_workers_call_whose_answer_is_lost_is_made_good(rig: Rig, name: str) -> None:
    text = name.encode() if name.isupper() else script(name).digest.encode()
    lost = rig.proxy.drop_next_reply(text)
    rig.worker("--concurrency", "5", through=True).ready()
    async with rig.app() as app:
        for round_ in itertools.count():
            await rig.load(app, 8)
            if name == "extend":  # only what lasts is extended
                rig.noted(await app.dispatch("work_for", seconds=LEASE))
            if lost.is_set() or round_ > 20:
                break
            await asyncio.sleep(0.1)
        assert lost.is_set()
        rig.faults = 1
    # What was done and not heard of: taken and run after a lease, or settled once and asked again.
    found = await rig.balance(duplicates=0)
    assert found.longest_recovery < 1.5 * LEASE + 5
    rig.alive()


async def test_a_cancelled_dispatch_does_no_harm_to_others_on_the_connection(rig: Rig) -> None:
    async with rig.app(through=True) as app:
        await rig.dispatch(app, "work", number=0)
        rig.proxy.delay(0.05)
        for number in range(20):
            given = asyncio.create_task(app.options(job_id=f"other-{number}").dispatch("work", number=number))
            mine = asyncio.create_task(app.options(job_id=f"mine-{number}").dispatch("work", number=number))
            await asyncio.sleep(0.01 * (number % 10))
            given.cancel()
            # The answer that comes is the one to this call, and not to the one before it.
            assert rig.noted(await mine).id == f"mine-{number}"
            await asyncio.wait([given])
            if not given.cancelled():
                rig.noted(await given)
        rig.proxy.heal()
        await settle_strangers(rig, app)
    rig.worker().ready()
    await rig.balance(duplicates=0)


async def settle_strangers(rig: Rig, app: Camora) -> None:
    """A dispatch that was cancelled may have been done all the same."""
    known = set(rig.dispatched)
    listed = await app.broker.queues.list("default", limit=1000)
    rig.dispatched += [job.id for job in listed if job.id not in known]


async def test_a_missed_wake_up_costs_seconds(rig: Rig) -> None:
    rig.worker("--concurrency", "5").ready()
    bell = "{camora:default}:bell"
    async with rig.app() as app:
        with rig.server.connection() as thief:
            # It waits for the bell as well, longer than the worker, hears it, and does nothing.
            thief.send("XREADGROUP", "GROUP", "camora", "thief", "BLOCK", 30_000, "STREAMS", bell, ">")
            await rig.dispatch(app, "work", number=1)
            await eventually(lambda: rig.finished() == 1, "the first job")
            began = time.monotonic()
            rig.noted(await app.options(priority=2).dispatch("work", number=2))
            await eventually(lambda: rig.finished() == 2, "the second job", timeout=10)
            assert time.monotonic() - began < 5 + 2
    await rig.balance(duplicates=0)
