"""SAQ on Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from benchmarks.entrant import Entrant, run_uvloop
from benchmarks.jobs import JOBS


def _function(name: str, job: Callable[..., Any]) -> tuple[str, Callable[..., Any]]:
    async def run(ctx: dict[str, Any], *, args: list[Any]) -> Any:
        return await job(*args)

    return name, run


class SaqRedis(Entrant):
    requires = ("saq", "redis")
    distribution = "saq"
    package = "saq"
    server = "redis"
    slow = 4

    def _queue(self) -> Any:
        from redis.asyncio import Redis
        from saq.queue.redis import RedisQueue

        # redis-py 8 allows 100 connections, too few for SAQ's 100 processors and its own.
        return RedisQueue(Redis.from_url(self.place.url, max_connections=1_000))

    async def open(self) -> None:
        self.queue = self._queue()
        await self.queue.connect()

    async def dispatch(self, job: str, *args: Any) -> Any:
        return await self.queue.enqueue(job, args=list(args), timeout=0, ttl=600 if self.place.keep_results else -1)

    async def delay_many(self, job: str, seconds: float, count: int) -> None:
        due = time.time() + seconds
        for start in range(0, count, 100):
            batch = range(start, min(start + 100, count))
            await asyncio.gather(*(self.queue.enqueue(job, args=[], timeout=0, scheduled=due) for _ in batch))

    async def roundtrip(self, value: int) -> int:
        # It polls, every half second by default; and its sweep, when a worker starts, may end a job that is just taken.
        result: int = await self.queue.apply("echo", args=[value], timeout=30, poll_interval=0.005, retries=3)
        return result

    async def close(self) -> None:
        await self.queue.disconnect()

    def work(self, concurrency: int) -> None:
        from saq import Worker

        async def main() -> None:
            functions = [_function(name, job) for name, job in JOBS.items()]
            queue = self._queue()
            await queue.connect()  # as its own command line does
            await Worker(queue, functions=functions, concurrency=concurrency).start()

        run_uvloop(main)


ENTRANT = SaqRedis
