"""PgQueuer on asyncpg. It reads a batch after the other, and settles as many at a time."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, ClassVar

from benchmarks.entrant import Entrant, run_uvloop
from benchmarks.jobs import JOBS

BULK = 1_000


class PgQueuerPostgres(Entrant):
    requires = ("pgqueuer", "asyncpg")
    distribution = "pgqueuer"
    package = "pgqueuer"
    server = "postgresql"
    slow = 0.5
    lacks: ClassVar = {"w5": "keeps no results"}
    variants: ClassVar = {
        "batches of 100, pool": {"batch": 100, "pool": True},
        "batches of 100, one connection": {"batch": 100, "pool": False},
        "batches of 50, one connection": {"batch": 50, "pool": False},
    }

    async def open(self) -> None:
        import asyncpg
        from pgqueuer.queries import Queries

        self.connection = await asyncpg.connect(self.place.url)
        self.queries = Queries.from_asyncpg_connection(self.connection)
        await self.queries.install()

    async def dispatch(self, job: str, *args: Any) -> Any:
        return await self.queries.enqueue(job, json.dumps(args).encode())

    async def dispatch_many(self, job: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        for start in range(0, len(arguments), BULK):
            bodies: list[bytes | None] = [json.dumps(args).encode() for args in arguments[start : start + BULK]]
            await self.queries.enqueue([job] * len(bodies), bodies, [0] * len(bodies))

    async def delay_many(self, job: str, seconds: float, count: int) -> None:
        for start in range(0, count, BULK):
            many = min(BULK, count - start)
            delays: list[timedelta | None] = [timedelta(seconds=seconds)] * many
            await self.queries.enqueue([job] * many, [b"[]"] * many, [0] * many, delays)

    async def close(self) -> None:
        await self.connection.close()

    def work(self, concurrency: int) -> None:
        async def main() -> None:
            import asyncpg
            from pgqueuer import PgQueuer

            options = self.place.options
            if options["pool"]:
                queuer = PgQueuer.from_asyncpg_pool(await asyncpg.create_pool(self.place.url))
            else:
                queuer = PgQueuer.from_asyncpg_connection(await asyncpg.connect(self.place.url))
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, queuer.shutdown.set)
            # Its own limit, in the query that takes jobs, makes it slower: so jobs that take time are held here.
            slots = asyncio.Semaphore(concurrency)
            for name, job in JOBS.items():
                queuer.entrypoint(name)(_waiting(job, slots) if name == "nap" else _plain(job))
            await queuer.run(batch_size=options["batch"])

        run_uvloop(main)


def _plain(job: Callable[..., Any]) -> Any:
    async def run(taken: Any) -> None:
        await job(*json.loads(taken.payload))

    return run


def _waiting(job: Callable[..., Any], slots: asyncio.Semaphore) -> Any:
    async def run(taken: Any) -> None:
        async with slots:
            await job(*json.loads(taken.payload))

    return run


ENTRANT = PgQueuerPostgres
