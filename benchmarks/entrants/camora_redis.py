"""Camora on Redis, one worker process: at least once, leases, validation, the whole chain.

Results are on where the scenario looks at them, and else off, as with the peers. The worker is set up as
`camora worker` does for a single process.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from benchmarks.entrant import Entrant
from benchmarks.jobs import JOBS


class CamoraRedis(Entrant):
    requires: ClassVar[tuple[str, ...]] = ("camora_redis", "camora_workflows")
    distribution = "camora-redis"
    server = "redis"
    slow = 0.2
    results = False
    settings: ClassVar[str] = ""
    """Of the broker, as in the query of a URL."""
    lacks: ClassVar = {"import": "as camora_memory: its plugin is imported when it is used"}

    def _make(self) -> None:
        from camora import Camora

        keep = self.place.keep_results
        url = self.place.url
        if self.settings:
            url += ("&" if "?" in url else "?") + self.settings
        self.app = Camora(url, results=None if self.results or keep else False)
        self.tasks = {name: self.app.task(name=name, keep_result=keep)(job) for name, job in JOBS.items()}

    async def open(self) -> None:
        self._make()

    async def dispatch(self, job: str, *args: Any) -> Any:
        return await self.tasks[job].dispatch(*args)

    async def dispatch_many(self, job: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        task = self.tasks[job]
        async for _ in self.app.dispatch_many(task.s(*args) for args in arguments):
            pass

    async def delay_many(self, job: str, seconds: float, count: int) -> None:
        later = self.tasks[job].options(delay=seconds)
        async for _ in self.app.dispatch_many(later.s() for _ in range(count)):
            pass

    async def roundtrip(self, value: int) -> int:
        job = await self.tasks["echo"].dispatch(value)
        result: int = await job.result(timeout=30)
        return result

    async def chord(self, count: int) -> None:
        from camora_workflows import chord

        noop = self.tasks["noop"]
        await chord((noop.si() for _ in range(count)), self.tasks["body"].s()).dispatch()

    async def chain(self, count: int) -> None:
        from camora_workflows import chain

        answer = self.tasks["answer"]
        await chain(answer.s(1), *(answer.s() for _ in range(count - 1))).dispatch()

    async def close(self) -> None:
        await self.app.close()

    def work(self, concurrency: int) -> None:
        from camora.worker.order import WorkOrder
        from camora.worker.process import run_worker

        self._make()
        run_worker(self.app, WorkOrder(given={"concurrency": concurrency}))


ENTRANT = CamoraRedis
