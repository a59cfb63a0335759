"""streaq: Redis streams and functions; results only where the scenario looks at them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.entrant import Entrant
from benchmarks.jobs import JOBS

BATCH = 1_000


class StreaqRedis(Entrant):
    requires = ("streaq",)
    distribution = "streaq"
    package = "streaq"
    server = "redis"
    slow = 4

    def _make(self, concurrency: int) -> None:
        from streaq import Worker

        self.worker: Any = Worker(
            redis_url=self.place.url, concurrency=concurrency, anyio_kwargs={"use_uvloop": True}, handle_signals=True
        )
        ttl = 300 if self.place.keep_results else 0
        self.tasks = {name: self.worker.task(name=name, ttl=ttl, silent=True)(job) for name, job in JOBS.items()}

    async def open(self) -> None:
        self._make(1)
        await self.worker.__aenter__()

    async def dispatch(self, job: str, *args: Any) -> Any:
        return await self.tasks[job].enqueue(*args)

    async def dispatch_many(self, job: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        task = self.tasks[job]
        for start in range(0, len(arguments), BATCH):
            await self.worker.enqueue_many([task.enqueue(*args) for args in arguments[start : start + BATCH]])

    async def delay_many(self, job: str, seconds: float, count: int) -> None:
        task = self.tasks[job]
        for start in range(0, count, BATCH):
            batch = range(start, min(start + BATCH, count))
            await self.worker.enqueue_many([task.enqueue().start(delay=int(seconds)) for _ in batch])

    async def roundtrip(self, value: int) -> int:
        sent = await self.tasks["echo"].enqueue(value)
        result: int = (await sent.result(timeout=30)).result
        return result

    async def close(self) -> None:
        await self.worker.__aexit__(None, None, None)

    def work(self, concurrency: int) -> None:
        self._make(concurrency)
        self.worker.run_sync()


ENTRANT = StreaqRedis
