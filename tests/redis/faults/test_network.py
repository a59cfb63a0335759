"""The network loses single answers, and wake-ups."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import pytest
from camora_redis.scripting import script

from tests.redis.faults.rig import LEASE, Rig, eventually

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
    rig.worker(through=True).ready()
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
    assert found.longest_recovery < 1.5 * LEASE + 15
    rig.alive()


async def test_a_missed_wake_up_costs_seconds(rig: Rig) -> None:
    rig.worker().ready()
    bell = "{camora:default}:bell"
    async with rig.app() as app:
        with rig.server.connection() as thief:
            # It waits for the bell as well, longer than the worker, hears it, and does nothing.
            thief.send("XREADGROUP", "GROUP", "camora", "thief", "BLOCK", 30_000, "STREAMS", bell, ">")
            await rig.dispatch(app, "work", number=1)
            await eventually(lambda: rig.finished() == 1, "the first job")
            began = time.monotonic()
            rig.noted(await app.options(priority=2).dispatch("work", number=2))
            await eventually(lambda: rig.finished() == 2, "the second job")
            assert time.monotonic() - began < 5 + 15
    await rig.balance(duplicates=0)
