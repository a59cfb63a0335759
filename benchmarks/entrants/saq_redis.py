"""SAQ on Redis."""

from __future__ import annotations

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
        return await self.queue.enqueue(job, args=list(args), timeout=0)

    async def roundtrip(self, value: int) -> int:
        result: int = await self.queue.apply("echo", args=[value], timeout=30)
        return result

    async def close(self) -> None:
        await self.queue.disconnect()

    def work(self, concurrency: int) -> None:
        from saq import Worker

        async def main() -> None:
            functions = [_function(name, job) for name, job in JOBS.items()]
            await Worker(self._queue(), functions=functions, concurrency=concurrency).start()

        run_uvloop(main)


ENTRANT = SaqRedis
