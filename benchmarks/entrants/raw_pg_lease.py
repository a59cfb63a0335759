"""The limit to compare with: asyncpg without a framework, 100 rows leased, run, and deleted by their ids.

Two commits for each 100; no transaction is open while jobs run.
"""

from __future__ import annotations

from typing import Any

from benchmarks.entrants.raw_pg import BATCH, QUEUE, READY, RawPg

LEASE = f"""
UPDATE raw_jobs SET lease = now() + interval '30 seconds' WHERE id = ANY (ARRAY({READY})) RETURNING id, name, args
"""
LAPSE = "UPDATE raw_jobs SET lease = NULL WHERE lease < now()"
DELETE = "DELETE FROM raw_jobs WHERE id = ANY ($1::bigint[])"


class RawPgLease(RawPg):
    async def _work(self, connection: Any) -> int:
        rows = await connection.fetch(LEASE, QUEUE, BATCH)
        if not rows:
            await connection.execute(LAPSE)
            return 0
        await self._run(rows)
        await connection.execute(DELETE, [row[0] for row in rows])
        return len(rows)


ENTRANT = RawPgLease
