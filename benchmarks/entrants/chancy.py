"""chancy with its asynchronous executor; it asks for more as soon as a job is done.

It notes once a second which jobs have ended.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

from benchmarks.entrant import Entrant, run_uvloop
from benchmarks.jobs import JOBS


class ChancyPostgres(Entrant):
    requires = ("chancy",)
    distribution = "chancy"
    package = "chancy"
    server = "postgresql"
    slow = 4
    lacks: ClassVar = {"w5": "keeps no results"}

    def _make(self) -> Any:
        from chancy import Chancy

        return Chancy(self.place.url, max_connection_pool_size=20)

    def _job(self, job: str, args: Sequence[Any]) -> Any:
        from chancy import Job

        names = inspect.signature(JOBS[job]).parameters
        return Job.from_func(JOBS[job], kwargs=dict(zip(names, args, strict=True)))

    async def open(self) -> None:
        from chancy import Chancy, Queue

        self.chancy = self._make()
        await self.chancy.pool.open()
        await self.chancy.migrate()
        await self.chancy.declare(
            Queue("default", concurrency=100, executor=Chancy.Executor.Async, polling_interval=1, eager_polling=True)
        )

    async def dispatch(self, job: str, *args: Any) -> Any:
        return await self.chancy.push(self._job(job, args))

    async def dispatch_many(self, job: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        async for _ in self.chancy.push_many([self._job(job, args) for args in arguments]):
            pass

    async def delay_many(self, job: str, seconds: float, count: int) -> None:
        later = self._job(job, ()).with_scheduled_at(datetime.now(tz=UTC) + timedelta(seconds=seconds))
        async for _ in self.chancy.push_many([later] * count):
            pass

    async def close(self) -> None:
        await self.chancy.pool.close()

    def work(self, concurrency: int) -> None:
        async def main() -> None:
            from chancy import Worker

            async with self._make() as chancy, Worker(chancy) as worker:
                await worker.wait_for_shutdown()

        run_uvloop(main)


ENTRANT = ChancyPostgres
