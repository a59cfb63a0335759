"""Huey on SQLite: its own storage settings, and the best of its worker types and counts."""

from __future__ import annotations

from typing import Any, ClassVar

from benchmarks.entrant import SyncEntrant
from benchmarks.jobs import PLAIN_JOBS


class HueySqlite(SyncEntrant):
    requires: ClassVar[tuple[str, ...]] = ("huey",)
    distribution = "huey"
    package = "huey"
    guarantee = "at most once"
    fsync = False  # its default: SQLite with `synchronous=off`
    variants: ClassVar = {
        "1 thread": {"type": "thread", "workers": 1},
        "2 threads": {"type": "thread", "workers": 2},
        "4 threads": {"type": "thread", "workers": 4},
        "100 threads": {"type": "thread", "workers": 100},
    }

    async def open(self) -> None:
        self._make()

    def _make(self) -> None:
        from huey import SqliteHuey

        self.huey = SqliteHuey("bench", filename=str(self.place.folder / "huey.db"), fsync=self.fsync)
        self.tasks = {name: self.huey.task(name=name)(job) for name, job in PLAIN_JOBS.items()}

    def send(self, job: str, *args: Any) -> Any:
        return self.tasks[job](*args)

    def send_and_wait(self, value: int) -> int:
        result: int = self.tasks["echo"](value).get(blocking=True, timeout=30, backoff=1.0, max_delay=0.005)
        return result

    def work(self, concurrency: int) -> None:
        self._make()
        options = self.place.options
        # The poll between 1 and 5 ms: as often as the raw entrant looks.
        consumer = self.huey.create_consumer(
            worker_type=options["type"],
            workers=options["workers"],
            initial_delay=0.001,
            max_delay=0.005,
            periodic=False,
        )
        consumer.run()


ENTRANT = HueySqlite
