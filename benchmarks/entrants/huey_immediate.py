"""Huey's immediate mode: a dispatch runs the job there and then; no queue in between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from benchmarks.entrant import InProcessEntrant
from benchmarks.jobs import PLAIN_JOBS


class HueyImmediate(InProcessEntrant):
    requires = ("huey",)
    distribution = "huey"
    guarantee = "none: nothing is stored"
    lacks: ClassVar = {
        "w1": "dispatching runs the job",
        "w3": "one process",
        "w4": "one job at a time",
        "idle": "no worker",
        "import": "as huey_sqlite",
    }

    async def open(self) -> None:
        from huey import MemoryHuey

        self.huey = MemoryHuey("bench", immediate=True)
        self.tasks = {name: self.huey.task(name=name)(job) for name, job in PLAIN_JOBS.items()}

    async def dispatch(self, job: str, *args: Any) -> Any:
        return self.tasks[job](*args)

    async def fill(self, count: int) -> None:
        """Dispatching is running here."""

    async def drain(self, count: int, done: Callable[[], None]) -> None:
        noop = self.tasks["noop"]
        for _ in range(count):
            noop()
        done()

    async def roundtrip(self, value: int) -> int:
        answer: int = self.tasks["echo"](value).get()
        return answer


ENTRANT = HueyImmediate
