"""repid on Redis streams, with a batch as large as the raw limit's."""

from __future__ import annotations

from typing import Any, ClassVar

from benchmarks.entrant import Entrant, run_uvloop
from benchmarks.jobs import JOBS

_PARAMETER = {"stamp": "sent", "nap": "seconds", "echo": "value"}


class RepidRedis(Entrant):
    requires = ("repid", "redis")
    distribution = "repid"
    package = "repid"
    server = "redis"
    lacks: ClassVar = {"w5": "keeps no results"}

    def _make(self) -> None:
        from repid import RedisServer, Repid, Router

        self.server_ = RedisServer(self.place.url, batch_size=100)
        self.app = Repid()
        self.app.servers.register_server("default", self.server_, is_default=True)
        router = Router()
        for name, job in JOBS.items():
            router.actor(job, name=name, channel=name)
        self.app.include_router(router)

    async def open(self) -> None:
        self._make()
        await self.server_.connect()

    async def dispatch(self, job: str, *args: Any) -> Any:
        payload = {_PARAMETER[job]: args[0]} if args else {}
        await self.app.send_message_json(channel=job, payload=payload, headers={"topic": job})

    async def close(self) -> None:
        await self.server_.disconnect()

    def work(self, concurrency: int) -> None:
        self._make()

        async def main() -> None:
            async with self.server_.connection():
                await self.app.run_worker(tasks_limit=concurrency)

        run_uvloop(main)


ENTRANT = RepidRedis
