"""arq: async jobs on Redis; a poll every half second by default."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from benchmarks.entrant import Entrant
from benchmarks.jobs import JOBS


def _function(job: Callable[..., Any]) -> Callable[..., Any]:
    async def run(ctx: dict[str, Any], *args: Any) -> Any:
        return await job(*args)

    return run


class Arq(Entrant):
    requires = ("arq",)
    distribution = "arq"
    package = "arq"
    server = "redis"
    slow = 8

    async def open(self) -> None:
        from arq import create_pool
        from arq.connections import RedisSettings

        self.pool = await create_pool(RedisSettings.from_dsn(self.place.url))

    async def dispatch(self, job: str, *args: Any) -> Any:
        return await self.pool.enqueue_job(job, *args)

    async def delay_many(self, job: str, seconds: float, count: int) -> None:
        for start in range(0, count, 100):
            batch = range(start, min(start + 100, count))
            await asyncio.gather(*(self.pool.enqueue_job(job, _defer_by=seconds) for _ in batch))

    async def roundtrip(self, value: int) -> int:
        job = await self.pool.enqueue_job("echo", value)
        assert job is not None
        result: int = await job.result(timeout=30, poll_delay=0.005)
        return result

    async def close(self) -> None:
        await self.pool.aclose()

    def work(self, concurrency: int) -> None:
        import uvloop
        from arq.connections import RedisSettings
        from arq.worker import Worker, func

        asyncio.set_event_loop(uvloop.new_event_loop())
        keep = 600 if self.place.keep_results else 0
        functions = [func(_function(job), name=name, keep_result=keep) for name, job in JOBS.items()]
        worker = Worker(
            functions, redis_settings=RedisSettings.from_dsn(self.place.url), max_jobs=concurrency, handle_signals=True
        )
        worker.run()


ENTRANT = Arq
