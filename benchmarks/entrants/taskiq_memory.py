"""taskiq's InMemoryBroker: a dispatch runs the job as an asyncio task; no queue in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from benchmarks.entrant import InProcessEntrant
from benchmarks.jobs import JOBS


class TaskiqMemory(InProcessEntrant):
    requires = ("taskiq",)
    distribution = "taskiq"
    package = "taskiq"
    guarantee = "none: nothing is stored"
    lacks: ClassVar = {"w1": "dispatching runs the job", "w3": "one process", "w4": "no concurrency limit"}

    async def open(self) -> None:
        from taskiq import InMemoryBroker

        self.broker = InMemoryBroker(await_inplace=True)
        self.tasks = {name: self.broker.task(task_name=name)(job) for name, job in JOBS.items()}
        await self.broker.startup()

    async def dispatch(self, job: str, *args: Any) -> Any:
        return await self.tasks[job].kiq(*args)

    async def fill(self, count: int) -> None:
        """Dispatching is running here."""

    async def drain(self, count: int, done: Callable[[], None]) -> None:
        kiq = self.tasks["noop"].kiq
        for number in range(count):
            await kiq()
            if number % 100 == 0:
                await asyncio.sleep(0)
        done()

    async def roundtrip(self, value: int) -> int:
        sent = await self.tasks["echo"].kiq(value)
        result = await sent.wait_result(timeout=30)
        answer: int = result.return_value
        return answer

    async def close(self) -> None:
        await self.broker.shutdown()


ENTRANT = TaskiqMemory
