"""Other stores beside RabbitMQ: the result is stored first, and the acknowledgement comes last."""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from camora import Camora, Context, Status, every
from camora.connections import companion_of
from camora.outcome import Progress
from camora.testing.ledger import read
from camora_amqp.schedules import AmqpScheduleStore

from tests.end_to_end.processes import WorkerProcess
from tests.servers.fixtures import fresh_url as fresh_redis_url
from tests.servers.rabbitmq import fresh_url

PATIENCE = 60.0


@pytest.fixture(params=["sqlite", "redis"])
def beside(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where results are."""
    return fresh_redis_url() if request.param == "redis" else f"sqlite:///{tmp_path}/results.db"


@pytest.fixture
def processes() -> Iterator[list[WorkerProcess]]:
    started: list[WorkerProcess] = []
    yield started
    for process in started:
        process.destroy()


def with_task(url: str, results: str) -> Any:
    app: Any = Camora(url, results=results)

    @app.task(name="work")
    async def work(ctx: Context, number: int) -> int:
        await ctx.progress(1, 2, "half")
        return number

    return app


async def test_results_progress_and_schedules_beside_are_everybodys(beside: str) -> None:
    url = fresh_url()
    worker, app, other = (with_task(url, beside) for _ in range(3))
    seen: list[Progress | None] = []

    @worker.task(name="look")
    async def look(ctx: Context) -> None:
        await ctx.progress(1, 2, "half")
        seen.append((await (await other.job(ctx.id)).info()).progress)

    async with app, other, worker, worker.worker():
        job = await app.tasks.by_name["work"].dispatch(7)
        assert await job.result(PATIENCE) == 7
        assert await (await other.job(job.id)).result(PATIENCE) == 7, "any process may ask"
        looking = await app.options(queue="default").dispatch("look")
        assert await looking.result(PATIENCE) is None
        assert seen == [Progress(done=1, total=2, text="half")]
        await app.schedules.add("nightly", worker.tasks.by_name["work"].s(1), every(seconds=3600))
        assert [record.key for record in await other.schedules.list()] == ["nightly"]
        kept = companion_of(app.broker, app.results, "own_schedules")
        assert not isinstance(kept, AmqpScheduleStore), "a database is the better place for them"
    assert isinstance(companion_of(app.broker, None, "own_schedules"), AmqpScheduleStore)


@pytest.mark.parametrize("step", ["running", "ran", "before settle", "after settle"])
async def test_a_worker_is_killed_around_result_and_acknowledgement(
    beside: str, tmp_path: Path, processes: list[WorkerProcess], step: str
) -> None:
    """`before settle` lies between the two: the result is there, and the job comes again."""
    url = fresh_url()
    app = with_task(url, beside)
    async with app:
        job = await app.tasks.by_name["work"].dispatch(7)
        processes.append(WorkerProcess(tmp_path, url, SHOP_CRASH=step, SHOP_RESULTS=beside))
        assert await asyncio.to_thread(processes[0].end) != 0
        if step in ("before settle", "after settle"):
            assert await job.status() is Status.SUCCEEDED, "the result came before the acknowledgement"
        processes.append(WorkerProcess(tmp_path, url, "--burst", SHOP_RESULTS=beside))
        assert await asyncio.to_thread(processes[1].end) == 0
        assert await job.result(PATIENCE) == 7
        assert await app.queue_control.counts() == {}, "it is acknowledged"
        starts = [entry for entry in read(tmp_path / "ledger") if entry.kind == "started"]
        # An acknowledgement is sent, and not answered: one that was on its way may have died, too.
        assert len(starts) == 2 or (step == "after settle" and len(starts) == 1)
