"""Oxalis on a Redis list, with as many consumers of it as jobs may run at once."""

from __future__ import annotations

import asyncio
import signal
from typing import Any, ClassVar

from benchmarks.entrant import Entrant
from benchmarks.jobs import JOBS


class OxalisRedis(Entrant):
    requires = ("oxalis",)
    distribution = "oxalis"
    package = "oxalis"
    server = "redis"
    guarantee = "at most once"
    lacks: ClassVar = {"w5": "keeps no results"}

    def _make(self, concurrency: int) -> None:
        from oxalis.pool import Pool
        from oxalis.redis import Oxalis, Queue
        from redis.asyncio import Redis

        pool = Pool(name="default", concurrency=concurrency)
        self.oxalis = Oxalis(Redis.from_url(self.place.url), pool=pool, worker_num=1)
        # By default they are in /tmp, shared by all workers of the machine.
        self.oxalis.READY_FILE_PATH = str(self.place.folder / "ready")
        self.oxalis.HEARTBEAT_FILE_PATH = str(self.place.folder / "alive")
        queue = Queue("bench", consumer_count=concurrency)
        self.tasks: dict[str, Any] = {
            name: self.oxalis.register(task_name=name, queue=queue)(job) for name, job in JOBS.items()
        }

    async def open(self) -> None:
        self._make(1)
        await self.oxalis.connect()

    async def dispatch(self, job: str, *args: Any) -> Any:
        await self.tasks[job].delay(*args)

    async def close(self) -> None:
        await self.oxalis.disconnect()

    def work(self, concurrency: int) -> None:
        import uvloop

        asyncio.set_event_loop(uvloop.new_event_loop())
        self._make(concurrency)
        signal.signal(signal.SIGTERM, self.oxalis.close)
        self.oxalis.run_worker()  # its command line forks one such process for each worker


ENTRANT = OxalisRedis
