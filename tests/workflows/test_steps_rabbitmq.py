"""Steps with a store beside RabbitMQ: that cannot wake a job, so the job looks by itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

from camora import Camora, RetryPolicy
from camora_workflows import durable_sleep, step, wait_for_signal

from tests.servers.rabbitmq import fresh_url


async def test_steps_sleeps_and_signals(tmp_path: Path) -> None:
    app = Camora(fresh_url(), results=f"sqlite:///{tmp_path}/results.db")
    done: list[str] = []
    waits = asyncio.Event()

    @app.task(retry_policy=RetryPolicy(max_tries=2, delay=0))
    async def order() -> list[str]:
        await step("charge", done.append, "charged")
        if done.count("tried") == 0:
            done.append("tried")
            raise OSError
        await durable_sleep(seconds=0.2)
        found = [await wait_for_signal("part", type=str)]
        waits.set()
        found.append(await wait_for_signal("part", type=str))
        return found

    async with app, app.worker(concurrency=1):
        job = await order.dispatch()
        assert not await app.signal(job.id, "part", "one")
        async with asyncio.timeout(60):
            await waits.wait()
        assert not await app.signal(job.id, "part", "two")
        assert await job.result(60) == ["one", "two"]
        assert (await job.info()).attempts == 2
    assert done == ["charged", "tried"]
