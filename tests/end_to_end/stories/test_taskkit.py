"""The story of taskkit: one handler for all names of a group, schedules of several schedulers, worker processes."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from camora import Camora, Discard, Message, Status, WorkerSettings, calendar
from camora.errors import JobDiscarded, JobFailed, ResultTimeout
from processes import workers

SOON = WorkerSettings(lease=2, shutdown_timeout=5, concurrency=20)


async def test_one_handler_for_every_name_of_a_group(broker_url: str) -> None:
    app = Camora(broker_url)
    tries: list[int] = []

    def interval(job: object, error: Exception) -> float | None:
        return 0.01 if isinstance(error, ConnectionError) else None

    @app.fallback(queue="group", retry_policy=interval)
    async def handle(message: Message) -> object:
        match message.task:
            case "product.get":
                return {"id": message.kwargs["product_id"]}
            case "product.flaky":
                tries.append(1)
                if len(tries) < 3:
                    raise ConnectionError
                return len(tries)
            case "product.gone":
                raise Discard("it is not sold any more")
        raise ValueError(message.task)

    async with app, app.worker(settings=SOON):
        send = app.options(queue="group").dispatch
        assert await (await send("product.get", product_id=7)).result(60) == {"id": 7}
        assert await (await send("product.flaky")).result(60) == 3
        with pytest.raises(JobDiscarded, match="not sold"):
            await (await send("product.gone")).result(60)
        with pytest.raises(JobFailed, match="ValueError"):
            await (await send("product.else")).result(60)


async def test_due_at_a_moment_in_batches_and_here_and_now(broker_url: str) -> None:
    app = Camora(broker_url)

    @app.task
    async def double(x: int) -> int:
        return x * 2

    async with app:
        later = await double.options(eta=datetime.now(UTC) + timedelta(hours=1), queue="other").dispatch(1)
        assert await later.status() is Status.SCHEDULED
        with pytest.raises(ResultTimeout):
            await later.result(timeout=0.05)
        assert await app.run_now(double.s(4)) == 8
        async with app.worker(settings=SOON):
            jobs = await app.dispatch_many(double.s(number) for number in range(100))
            assert [await job.result(60) for job in jobs] == [number * 2 for number in range(100)]


def test_from_plain_code_a_result_that_is_late_says_so(broker_url: str) -> None:
    app = Camora(broker_url)

    @app.task
    def double(x: int) -> int:
        return x * 2

    job = double.dispatch_sync(1)
    with pytest.raises(ResultTimeout):
        job.result_sync(timeout=0.05)
    app.close_sync()


async def test_several_named_schedulers_with_regular_schedules() -> None:
    app = Camora("memory://")

    @app.task
    async def ping(where: str) -> None: ...

    tokyo = ZoneInfo("Asia/Tokyo")
    app.schedule("jp", ping.s("jp"), calendar(seconds={0}, minutes={0, 30}, tz="Asia/Tokyo"), group="jp")
    app.schedule("utc", ping.s("utc"), calendar(seconds={0}, minutes={0}, hours={12}), group="utc")
    async with app:
        await app.schedules.sync()  # as a scheduler does when it starts
        listed = {schedule.key: schedule for schedule in await app.schedules.list()}
        assert {key: schedule.group for key, schedule in listed.items()} == {"jp": "jp", "utc": "utc"}
        runs = [moment.astimezone(tokyo) for moment in await app.schedules.preview("jp", 4)]
        assert all(run.minute in (0, 30) and run.second == 0 for run in runs)


async def test_four_processes_and_a_group_that_is_stopped_and_resumed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/camora.db"
    app = Camora(url)
    async with app:
        await app.queue_control.pause("default")
        jobs = [await app.dispatch("work", number=number) for number in range(40)]
        with workers() as start:
            start(tmp_path, url, "--processes", "4").ready(4)
            assert await jobs[0].status() is Status.QUEUED
            await app.queue_control.resume("default")
            assert [await job.result(60) for job in jobs] == list(range(40))


def test_what_is_stored_can_be_read_by_others(tmp_path: Path) -> None:
    assert json.loads(Camora().codec.encode(Message(id="1", task="t", kwargs={"x": 1})))["kwargs"] == {"x": 1}
