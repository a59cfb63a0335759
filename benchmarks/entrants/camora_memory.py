"""Camora in one process: memory broker, results stored, arguments validated, the whole chain."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, ClassVar

from benchmarks.entrant import InProcessEntrant
from benchmarks.jobs import JOBS


class CamoraMemory(InProcessEntrant):
    distribution = "camora"
    package = "camora:Camora"  # names are imported when they are first used: `import camora` alone loads nothing
    lacks: ClassVar = {"w3": "one process"}

    async def open(self) -> None:
        from camora import Camora

        self.app = Camora("memory://")
        self.tasks = {name: self.app.task(name=name)(job) for name, job in JOBS.items()}

    async def dispatch(self, job: str, *args: Any) -> Any:
        return await self.tasks[job].dispatch(*args)

    async def dispatch_many(self, job: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        task = self.tasks[job]
        async for _ in self.app.dispatch_many(task.s(*args) for args in arguments):
            pass

    async def roundtrip(self, value: int) -> int:
        job = await self.tasks["echo"].dispatch(value)
        result: int = await job.result(timeout=30)
        return result

    async def drain(self, count: int, done: Callable[[], None]) -> None:
        async with self.app.worker(concurrency=100) as worker:
            while worker.settled < count:
                await asyncio.sleep(0.0005)
            done()

    @contextlib.asynccontextmanager
    async def serving(self, concurrency: int) -> AsyncIterator[None]:
        async with self.app.worker(concurrency=concurrency):
            yield

    async def close(self) -> None:
        await self.app.close()


ENTRANT = CamoraMemory
