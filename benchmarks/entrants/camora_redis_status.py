"""Camora on Redis with `keep_result=False`: how each job ended is remembered, but not what it returned."""

from __future__ import annotations

from benchmarks.entrants.camora_redis import CamoraRedis


class CamoraRedisStatus(CamoraRedis):
    results = True
    lacks = dict.fromkeys(("import", "w2r", "w2rc", "w5"), "as camora_redis")


ENTRANT = CamoraRedisStatus
