"""`durable_sleep`: hours without a slot, a worker or a test's time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from camora import Camora, RetryPolicy, Status
from camora.errors import JobFailed
from camora.testing import TestWorker
from camora_workflows import durable_sleep, step, wait_for_signal

NAMES = ["memory", "sqlite", "redis"]


@pytest.fixture
def app() -> Camora:
    return Camora()


async def test_a_day_passes_in_no_time(app: Camora) -> None:
    done: list[str] = []

    def note(what: str) -> None:
        done.append(what)

    @app.task
    async def remind() -> str:
        await step("before", note, "before")
        await durable_sleep(hours=24)
        await step("after", note, "after")
        await durable_sleep(timedelta(days=2))
        return "reminded"

    async with TestWorker(app) as worker:
        job = await remind.dispatch()
        await worker.advance(hours=23, minutes=59)
        assert done == ["before"]
        assert await job.status() is Status.SCHEDULED
        await worker.advance(minutes=1)
        assert done == ["before", "after"]
        await worker.advance(days=2)
        assert await job.result() == "reminded"
        assert (await job.info()).attempts == 1
    assert done == ["before", "after"]


async def test_until_a_moment(app: Camora) -> None:
    async with TestWorker(app) as worker:
        moment = worker.now + timedelta(hours=5)

        @app.task
        async def remind() -> None:
            await durable_sleep(until=moment)
            await durable_sleep(until=datetime(2020, 1, 1, tzinfo=UTC))  # long ago
            await durable_sleep(seconds=0)

        job = await remind.dispatch()
        await worker.advance(hours=4)
        assert await job.status() is Status.SCHEDULED
        await worker.advance(hours=1)
        assert await job.status() is Status.SUCCEEDED


async def test_retries_and_sleeps_are_counted_apart(app: Camora) -> None:
    """What fails after a sleep is tried again from there: the sleep is over, and an attempt is an attempt."""
    runs: list[int] = []

    @app.task(retry_policy=RetryPolicy(max_tries=2, delay=60, jitter=False))
    async def remind() -> int:
        runs.append(1)
        await durable_sleep(hours=1)
        if len(runs) == 2:
            raise OSError("away")
        await durable_sleep(hours=1)
        return len(runs)

    async with TestWorker(app) as worker:
        job = await remind.dispatch()
        await worker.advance(hours=1)
        assert await job.status() is Status.RETRYING
        await worker.advance(minutes=1)
        assert await job.status() is Status.RETRYING or await job.status() is Status.SCHEDULED
        await worker.advance(hours=1)
        assert await job.result() == 4
        assert (await job.info()).attempts == 2


async def test_a_sleep_outlives_its_workers(app: Camora) -> None:
    runs: list[int] = []

    @app.task
    async def remind() -> int:
        runs.append(1)
        await durable_sleep(hours=1)
        return 1

    async with TestWorker(app) as worker:
        worker.crash(remind, at="started")
        job = await remind.dispatch()
        await worker.advance(minutes=30)
        worker.crash(remind, at="finished")
        await worker.run_all()
        assert await job.result() == 1
    assert len(runs) >= 3


async def test_an_expiry_is_for_the_first_start(app: Camora) -> None:
    @app.task(expires=60)
    async def remind() -> str:
        await durable_sleep(hours=1)
        return "reminded"

    async with TestWorker(app) as worker:
        job = await remind.dispatch()
        await worker.run_all()
        assert await job.result() == "reminded"


async def test_a_timeout_is_for_each_run(app: Camora) -> None:
    @app.task(timeout=60)
    async def remind() -> str:
        await durable_sleep(hours=1)
        return "reminded"

    async with TestWorker(app) as worker:
        job = await remind.dispatch()
        await worker.run_all()
        assert await job.result() == "reminded"


async def test_sleeps_by_name(app: Camora) -> None:
    @app.task
    async def remind(twice: bool) -> None:
        for number in range(3):
            await durable_sleep(hours=1, name="pause" if twice else f"pause-{number}")

    async with TestWorker(app) as worker:
        started = worker.now
        good, bad = await remind.dispatch(False), await remind.dispatch(True)
        await worker.run_all()
        assert await good.status() is Status.SUCCEEDED
        assert worker.now - started >= timedelta(hours=3)
        with pytest.raises(JobFailed, match="there are two sleeps 'pause' in one run"):
            await bad.result()


async def test_a_text_is_no_duration(app: Camora) -> None:
    @app.task
    async def sleep() -> None:
        await durable_sleep("3d")  # type: ignore[arg-type]

    @app.task
    async def wait() -> None:
        await wait_for_signal("go", timeout="7d")  # type: ignore[call-overload]

    async with TestWorker(app) as worker:
        sleeping, waiting = await sleep.dispatch(), await wait.dispatch()
        await worker.run_all()
        with pytest.raises(JobFailed, match=r"durable_sleep\('3d'\): give seconds, a timedelta, days=…"):
            await sleeping.result()
        with pytest.raises(JobFailed, match=r"timeout='7d'\): give seconds or a timedelta"):
            await waiting.result()


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"hours": -1}, "-3600 seconds; it takes a duration from 0"),
        ({"seconds": float("inf")}, "duration"),
        ({"hours": 1, "until": datetime(2030, 1, 1, tzinfo=UTC)}, "not several of them"),
        ({"until": datetime(2030, 1, 1)}, "has no time zone"),  # noqa: DTZ001
    ],
)
async def test_what_is_no_duration(app: Camora, given: dict[str, Any], text: str) -> None:
    @app.task
    async def remind() -> None:
        await durable_sleep(**given)

    async with TestWorker(app) as worker:
        job = await remind.dispatch()
        await worker.run_all()
        with pytest.raises(JobFailed, match=text):
            await job.result()


async def test_in_a_task_beside_the_function(app: Camora) -> None:
    @app.task
    async def remind() -> None:
        await asyncio.gather(durable_sleep(hours=1), durable_sleep(hours=2))

    async with TestWorker(app) as worker:
        job = await remind.dispatch()
        await worker.run_all()
        with pytest.raises(JobFailed, match=r"was awaited in another asyncio task \(gather, TaskGroup"):
            await job.result()


async def test_a_function_that_catches_every_exception_sleeps_all_the_same(app: Camora) -> None:
    caught: list[BaseException] = []

    @app.task
    async def remind() -> str:
        try:
            await durable_sleep(hours=1)
        except Exception as error:
            caught.append(error)
        return "reminded"

    async with TestWorker(app) as worker:
        job = await remind.dispatch()
        await worker.advance(minutes=1)
        assert await job.status() is Status.SCHEDULED
        await worker.advance(hours=1)
        assert await job.result() == "reminded"
    assert caught == []


async def test_run_now_waits(app: Camora) -> None:
    runs: list[int] = []

    @app.task
    async def remind() -> int:
        runs.append(1)
        await durable_sleep(0.01)
        return len(runs)

    assert await app.run_now(remind.s()) == 2


async def test_the_slot_is_free_meanwhile(broker_url: str) -> None:
    """Concurrency 1: while one job sleeps, others run; in threads, too."""
    app = Camora(broker_url)
    order: list[str] = []
    woken = asyncio.Event()

    async def sleeping(name: str) -> None:
        order.append(name)
        if order.count(name) > 1:
            woken.set()
        await durable_sleep(seconds=0.3)

    @app.task
    async def sleeps() -> str:
        await sleeping("sleeps")
        return "slept"

    @app.task(execution="thread")
    async def sleeps_in_a_thread() -> str:
        await sleeping("thread")
        return "slept"

    @app.task
    async def works() -> str:
        order.append("works")
        return "worked"

    async with app, app.worker(concurrency=1):
        for task in (sleeps, sleeps_in_a_thread):
            order.clear()
            sleeper = await task.dispatch()
            worker = await works.dispatch()
            assert await worker.result(60) == "worked"
            assert await sleeper.result(60) == "slept"
            assert order.index("works") < len(order) - 1, "the other ran before the sleeper's second run"
            assert order[0] != "works"
            assert (await sleeper.info()).attempts == 1
