"""The story of Kapusta: a durable queue inside the program itself, in its SQL database."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from camora import Camora, RetryPolicy, Status, WorkerSettings
from camora.errors import JobExpired, JobTimeout
from processes import shared

SOON = WorkerSettings(lease=2, shutdown_timeout=5, concurrency=20, poll_interval=0.5)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return shared(request.param, tmp_path)


def where() -> int:
    """Stands at the top of a module, as what runs in another process must."""
    return os.getpid()


async def test_inside_the_program_every_mode_of_execution(url: str) -> None:
    app = Camora(url)

    @app.task
    async def in_async(x: int) -> int:
        return x + 1

    def plain(x: int) -> int:
        return x + 1

    in_sync = app.register(plain, name="in_sync", execution="sync")
    in_thread = app.register(plain, name="in_thread", execution="thread")
    in_process = app.register(where, name="in_process", execution="process")
    async with app, app.worker(settings=SOON):
        for task in (in_async, in_sync, in_thread):
            assert await (await task.dispatch(1)).result(60) == 2
        assert await (await in_process.dispatch()).result(60) != os.getpid()


async def test_eta_delta_overdue_time_timeout_and_defaults_for_all(url: str) -> None:
    app = Camora(url, task_options={"*": {"timeout": 0.2, "retry_policy": RetryPolicy(max_tries=2, delay=0.01)}})
    tries: list[int] = []

    @app.task
    async def forever() -> None:
        tries.append(1)
        await asyncio.Event().wait()

    @app.task(expires=0.2)
    async def soon_over() -> None: ...

    async with app:
        overdue = await soon_over.options(delay=0.5).dispatch()
        later = await forever.options(delay=3600).dispatch()
        assert await later.status() is Status.SCHEDULED
        async with app.worker(settings=SOON):
            job = await forever.dispatch()
            with pytest.raises(JobTimeout):
                await job.result(60)
            with pytest.raises(JobExpired):
                await overdue.result(60)
        assert len(tries) == 2
        assert await (await app.job(job.id)).status() is Status.FAILED


async def test_launch_now_and_parameters_of_one_launch(url: str) -> None:
    app = Camora(url)
    tries: list[int] = []

    @app.task
    async def flaky() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise OSError
        return len(tries)

    configured = flaky.options(retry_policy=RetryPolicy(max_tries=5, delay=0.01))
    assert await app.run_now(configured.s()) == 3  # here and now: no broker is asked
    tries.clear()
    async with app, app.worker(settings=SOON):
        assert await (await configured.dispatch()).result(60) == 3
        assert await (await flaky.dispatch()).result(60) == 4


async def test_old_jobs_are_forgotten_on_request(url: str) -> None:
    app = Camora(url)

    @app.task
    async def work(x: int) -> int:
        if x == 2:
            raise ValueError(x)
        return x

    async with app:
        jobs = [await work.dispatch(number) for number in range(3)]
        await app.start(burst=True, settings=SOON)
    async with app:
        assert await app.forget_finished(older_than=3600) == 0
        assert await app.forget_finished(older_than=-1, only_successful=True) == 2
        assert [await job.status() for job in jobs] == [Status.UNKNOWN, Status.UNKNOWN, Status.FAILED]
