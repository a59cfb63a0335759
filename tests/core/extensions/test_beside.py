"""What extensions run beside a worker."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from camora import Camora
from camora.errors import BrokerUnavailable
from camora.interfaces import Extension

from tests.core.extensions.examples import app_with


class Sweeping(Extension):
    def __init__(self) -> None:
        self.begun = 0
        self.ended: list[str] = []
        self.trouble: list[Exception] = []

    async def beside(self) -> None:
        self.begun += 1
        if self.trouble:
            raise self.trouble.pop(0)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


async def test_it_runs_while_the_worker_does() -> None:
    extension = Sweeping()
    app = app_with(extension)
    async with app:
        assert extension.begun == 0
        for times in (1, 2):
            async with app.worker():
                await until(lambda times=times: extension.begun == times)
                assert len(extension.ended) == times - 1
            assert len(extension.ended) == times


async def test_one_that_fails_begins_anew(caplog: pytest.LogCaptureFixture) -> None:
    extension = Sweeping()
    extension.trouble = [ValueError("odd")]
    app = app_with(extension)
    with caplog.at_level(logging.ERROR, "camora"):
        async with app, app.worker():
            await until(lambda: extension.begun == 2)
    [record] = [one for one in caplog.records if "beside the worker" in one.getMessage()]
    assert record.getMessage().startswith("what the extension 'next' of following runs beside the worker failed; again")
    assert record.exc_info is not None


async def test_one_that_finds_its_server_away_says_so_in_a_line(caplog: pytest.LogCaptureFixture) -> None:
    extension = Sweeping()
    extension.trouble = [BrokerUnavailable("gone")]
    app = app_with(extension)
    with caplog.at_level(logging.WARNING, "camora"):
        async with app, app.worker():
            await until(lambda: extension.begun == 2)
    [record] = [one for one in caplog.records if "beside the worker" in one.getMessage()]
    assert record.getMessage().startswith("what the extension 'next' of following runs beside the worker has to wait")
    assert record.getMessage().endswith("gone")
    assert (record.levelname, record.exc_info) == ("WARNING", None)


async def test_a_job_that_cancels_every_task_does_not_end_it() -> None:
    extension = Sweeping()
    app = app_with(extension)
    async with app, app.worker():
        await until(lambda: extension.begun == 1)
        [task] = [one for one in asyncio.all_tasks() if one.get_name() == "the extension next"]
        task.cancel()
        await until(lambda: extension.begun == 2)
    assert extension.ended == ["cancelled", "cancelled"]


async def test_one_that_has_nothing_to_do_may_end(broker_url: str) -> None:
    class Short(Sweeping):
        async def beside(self) -> None:
            self.begun += 1

    extension = Short()
    app: Camora = app_with(extension, broker=broker_url)

    @app.task
    async def work() -> int:
        return 1

    async with app:
        job = await work.dispatch()
        await app.make_worker().run(burst=True)
        assert await job.result(timeout=0) == 1
    assert extension.begun == 1
