"""Procrastinate, with psycopg's pool. It fetches and ends one job at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from benchmarks.entrant import Entrant, run_uvloop
from benchmarks.jobs import JOBS

BULK = 1_000


class ProcrastinatePostgres(Entrant):
    requires = ("procrastinate", "psycopg_pool")
    distribution = "procrastinate"
    package = "procrastinate"
    server = "postgresql"
    slow = 10
    lacks: ClassVar = {"w5": "keeps no results"}

    def _make(self) -> None:
        from procrastinate import App, PsycopgConnector

        self.app = App(connector=PsycopgConnector(conninfo=self.place.url, min_size=4, max_size=20))
        self.tasks: dict[str, Any] = {name: self.app.task(name=name)(_task(job)) for name, job in JOBS.items()}

    async def open(self) -> None:
        self._make()
        await self.app.open_async()
        await self.app.schema_manager.apply_schema_async()

    async def dispatch(self, job: str, *args: Any) -> Any:
        return await self.tasks[job].defer_async(args=list(args))

    async def dispatch_many(self, job: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        for start in range(0, len(arguments), BULK):
            await self.tasks[job].batch_defer_async(*({"args": list(args)} for args in arguments[start : start + BULK]))

    async def delay_many(self, job: str, seconds: float, count: int) -> None:
        later = self.tasks[job].configure(schedule_in={"seconds": int(seconds)})
        for start in range(0, count, BULK):
            await later.batch_defer_async(*({"args": []} for _ in range(min(BULK, count - start))))

    async def close(self) -> None:
        await self.app.close_async()

    def work(self, concurrency: int) -> None:
        self._make()

        async def main() -> None:
            async with self.app.open_async():
                await self.app.run_worker_async(concurrency=concurrency, delete_jobs="always")

        run_uvloop(main)


def _task(job: Callable[..., Any]) -> Callable[..., Any]:
    async def run(args: list[Any]) -> None:
        await job(*args)

    return run


ENTRANT = ProcrastinatePostgres
