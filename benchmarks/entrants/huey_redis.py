"""Huey on a Redis list: blocking reads, results told and not polled, and the best of its worker counts."""

from __future__ import annotations

from benchmarks.entrants.huey_sqlite import HueySqlite
from benchmarks.jobs import PLAIN_JOBS


class HueyRedis(HueySqlite):
    requires = ("huey", "redis")
    server = "redis"
    lacks = {"import": "as huey_sqlite"}  # noqa: RUF012

    def _make(self) -> None:
        from huey import RedisHuey

        self.huey = RedisHuey("bench", url=self.place.url, notify_result=True)
        self.tasks = {name: self.huey.task(name=name)(job) for name, job in PLAIN_JOBS.items()}


ENTRANT = HueyRedis
