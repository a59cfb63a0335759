"""SAQ on PostgreSQL."""

from __future__ import annotations

from typing import Any

from benchmarks.entrants.saq_redis import SaqRedis


class SaqPostgres(SaqRedis):
    requires = ("saq", "psycopg_pool")
    server = "postgresql"
    slow = 10

    def _queue(self) -> Any:
        from saq.queue.postgres import PostgresQueue

        return PostgresQueue.from_url(self.place.url)


ENTRANT = SaqPostgres
