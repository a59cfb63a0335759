"""Camora on PostgreSQL, one worker process: as on Redis, with nothing but the address changed."""

from __future__ import annotations

from benchmarks.entrants.camora_redis import CamoraRedis


class CamoraPostgres(CamoraRedis):
    requires = ("camora_sql", "asyncpg", "greenlet")
    distribution = "camora-sql"
    server = "postgresql"


ENTRANT = CamoraPostgres
