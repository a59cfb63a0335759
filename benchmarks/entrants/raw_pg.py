"""The limit: asyncpg without a framework, rows deleted by 100 and committed after they have run.

It holds a transaction open while jobs run, which no queue can afford: a limit, not a design.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from collections.abc import Sequence
from typing import Any, ClassVar

from benchmarks.entrant import Entrant, run_uvloop
from benchmarks.jobs import JOBS

BATCH, BULK, FLOOR = 100, 1_000, 2.0
QUEUE = "default"
TABLE = """
CREATE TABLE raw_jobs (
    id bigserial PRIMARY KEY, queue text NOT NULL, name text NOT NULL, args text NOT NULL, lease timestamptz
);
CREATE INDEX raw_jobs_ready ON raw_jobs (queue, id) WHERE lease IS NULL;
"""
INSERT = """
WITH put AS (INSERT INTO raw_jobs (queue, name, args) VALUES ($1, $2, $3)) SELECT pg_notify('raw_jobs', '')
"""
INSERT_MANY = """
WITH put AS (INSERT INTO raw_jobs (queue, name, args) SELECT $1, $2, unnest($3::text[]))
SELECT pg_notify('raw_jobs', '')
"""
READY = "SELECT id FROM raw_jobs WHERE queue = $1 AND lease IS NULL ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED"
TAKE = f"DELETE FROM raw_jobs WHERE id = ANY (ARRAY({READY})) RETURNING id, name, args"


class RawPg(Entrant):
    requires = ("asyncpg",)
    distribution = "asyncpg"
    server = "postgresql"
    slow = 0.2
    lacks: ClassVar = {
        "w4": "runs one job at a time",
        "w5": "keeps no results",
        "import": "no framework",
    }

    async def _connect(self) -> Any:
        import asyncpg

        return await asyncpg.connect(self.place.url)

    async def open(self) -> None:
        self.connection = await self._connect()
        await self.connection.execute(TABLE)

    async def dispatch(self, job: str, *args: Any) -> Any:
        return await self.connection.execute(INSERT, QUEUE, job, json.dumps(args))

    async def dispatch_many(self, job: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        for start in range(0, len(arguments), BULK):
            texts = [json.dumps(args) for args in arguments[start : start + BULK]]
            await self.connection.execute(INSERT_MANY, QUEUE, job, texts)

    async def close(self) -> None:
        await self.connection.close()

    async def _serve(self) -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)  # type: ignore[union-attr]
        connection, woken = await self._connect(), asyncio.Event()
        await connection.add_listener("raw_jobs", lambda *_: woken.set())
        while True:
            woken.clear()
            if not await self._work(connection):
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), FLOOR)

    async def _work(self, connection: Any) -> int:
        """One batch; how many there were."""
        async with connection.transaction():
            return await self._run(await connection.fetch(TAKE, QUEUE, BATCH))

    async def _run(self, rows: Sequence[Any]) -> int:
        for _, name, args in rows:
            await JOBS[name](*json.loads(args))
        return len(rows)

    def work(self, concurrency: int) -> None:
        run_uvloop(self._serve)


ENTRANT = RawPg
