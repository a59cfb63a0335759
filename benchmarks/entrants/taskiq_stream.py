"""taskiq on Redis streams; with a result backend where the scenario looks at results."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.entrant import Entrant, run_uvloop
from benchmarks.jobs import JOBS


class TaskiqStream(Entrant):
    requires = ("taskiq_redis",)
    distribution = "taskiq-redis"
    package = "taskiq_redis"
    server = "redis"
    slow = 2

    def _broker(self) -> Any:
        from taskiq_redis import RedisStreamBroker

        return RedisStreamBroker(self.place.url)

    def _make(self) -> None:
        from taskiq_redis import RedisAsyncResultBackend

        self.broker = self._broker()
        if self.place.keep_results:
            self.broker.with_result_backend(RedisAsyncResultBackend(self.place.url, result_ex_time=600))
        self.tasks = {name: self.broker.task(task_name=name)(job) for name, job in JOBS.items()}

    async def open(self) -> None:
        self._make()
        await self.broker.startup()

    async def dispatch(self, job: str, *args: Any) -> Any:
        return await self.tasks[job].kiq(*args)

    async def roundtrip(self, value: int) -> int:
        sent = await self.tasks["echo"].kiq(value)
        result: int = (await sent.wait_result(check_interval=0.005, timeout=30)).return_value
        return result

    async def close(self) -> None:
        await self.broker.shutdown()

    def work(self, concurrency: int) -> None:
        self._make()

        async def main() -> None:
            from taskiq.api import run_receiver_task

            await run_receiver_task(self.broker, max_async_tasks=concurrency, run_startup=True)
            await asyncio.Event().wait()

        run_uvloop(main)


ENTRANT = TaskiqStream
