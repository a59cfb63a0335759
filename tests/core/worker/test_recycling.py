"""When a process has done enough."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from camora import Camora, Context, WorkerSettings
from camora.errors import ConfigurationError
from camora.testing.clock import VirtualClock
from camora.worker.recycling import STUCK_AFTER, Recycling
from camora.worker.worker import Ending


class Held:
    def __init__(self) -> None:
        self.bytes = 100

    def __call__(self) -> int:
        return self.bytes


def recycling(told: list[str], held: Held, clock: VirtualClock, **settings: int) -> Recycling:
    return Recycling(WorkerSettings(**settings), enough=told.append, clock=clock, memory=held)


def test_without_limits_only_stuck_threads_are_enough() -> None:
    told: list[str] = []
    clock, held = VirtualClock(), Held()
    watch = recycling(told, held, clock)

    async def run(context: Context) -> None: ...

    assert watch.counting(run) is run
    held.bytes = 10**15
    for abandoned in (0, 3, 0, 2, 1):
        watch.look(abandoned)
        clock.advance(STUCK_AFTER - 1)
    assert told == []
    watch.look(1)
    assert told == ["1 abandoned calls still run after 60 s"]


def test_threads_that_end_are_no_reason() -> None:
    told: list[str] = []
    clock = VirtualClock()
    watch = recycling(told, Held(), clock)
    for _ in range(10):
        watch.look(1)
        clock.advance(STUCK_AFTER - 1)
        watch.look(0)
        clock.advance(STUCK_AFTER)
    assert told == []


async def test_jobs_are_counted_as_they_begin_and_it_is_told_once() -> None:
    told: list[str] = []
    watch = recycling(told, Held(), VirtualClock(), max_jobs=3)
    ran: list[Any] = []

    async def run(context: Any) -> None:
        ran.append(context)

    counted = watch.counting(run)
    for number in range(2):
        await counted(number)  # type: ignore[arg-type]
    assert told == []
    for number in range(2, 6):
        await counted(number)  # type: ignore[arg-type]
    assert ran == [0, 1, 2, 3, 4, 5]
    assert told == ["3 jobs begun, max_jobs is 3"]


def test_memory_is_enough_once() -> None:
    told: list[str] = []
    held = Held()
    watch = recycling(told, held, VirtualClock(), max_memory=1000)
    watch.look(0)
    assert told == []
    held.bytes = 1001
    watch.look(0)
    watch.look(0)
    assert told == ["1001 bytes held, max_memory is 1000"]


def test_too_little_memory_to_begin_with_is_a_mistake() -> None:
    with pytest.raises(ConfigurationError, match=r"max_memory = 99: the worker holds 100 bytes before its first job"):
        recycling([], Held(), VirtualClock(), max_memory=99)


async def test_a_run_ends_to_be_replaced_and_interrupts_nothing(
    broker_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    release, long_runs = asyncio.Event(), asyncio.Event()
    ran: list[int] = []
    async with Camora(broker_url) as app:

        @app.task
        async def long() -> str:
            long_runs.set()
            await release.wait()
            return "whole"

        @app.task
        async def short(number: int) -> None:
            ran.append(number)

        worker = app.make_worker(settings=WorkerSettings(max_jobs=4, concurrency=2, shutdown_timeout=0.001))
        left = asyncio.Event()
        ended = asyncio.create_task(worker.run(leaving=left.set))
        slow = await long.dispatch()
        await long_runs.wait()
        jobs = [await short.dispatch(number) for number in range(10)]
        for job in jobs[:3]:
            await job.result(60)
        # Longer than the shutdown timeout: nobody is in a hurry here.
        await asyncio.sleep(0.05)
        assert left.is_set()
        assert not ended.done()
        release.set()
        assert await ended is Ending.RECYCLED
        assert await slow.result(60) == "whole"
        assert "is replaced: 4 jobs begun" in caplog.text
        # Those that were not begun are others'.
        assert len(ran) < 10
        async with app.worker():
            for job in jobs:
                await job.result(60)
    assert sorted(ran) == list(range(10))


async def test_inside_another_program_limits_are_left_alone(broker_url: str) -> None:
    async with Camora(broker_url) as app:

        @app.task
        async def add(x: int, y: int) -> int:
            return x + y

        async with app.worker(settings=WorkerSettings(max_jobs=1, max_memory=1)) as worker:
            for number in range(5):
                assert await (await add.dispatch(number, 1)).result(60) == number + 1
            assert worker.state == "running"


async def test_a_run_that_nobody_would_replace_goes_on(broker_url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with Camora(broker_url) as app:

        @app.task
        async def add(x: int, y: int) -> int:
            return x + y

        worker = app.make_worker(settings=WorkerSettings(max_jobs=1))
        ended = asyncio.create_task(worker.run())
        for number in range(5):
            assert await (await add.dispatch(number, 1)).result(60) == number + 1
        assert "max_jobs and max_memory are for processes that Camora starts" in caplog.text
        worker.stop()
        assert await ended is Ending.STOPPED
