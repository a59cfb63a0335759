"""Camora on PostgreSQL, told not to remember for an hour the ids of jobs that have ended."""

from __future__ import annotations

from benchmarks.entrants.camora_postgres import CamoraPostgres


class CamoraPostgresForgetful(CamoraPostgres):
    settings = "dedup_window=0"
    lacks = dict.fromkeys(("import", "w2r", "w2rc", "w5"), "as camora_postgres")


ENTRANT = CamoraPostgresForgetful
