"""Huey on SQLite with `fsync=True`: durable on a power cut, as Camora's SQLite broker is."""

from __future__ import annotations

from benchmarks.entrants.huey_sqlite import HueySqlite


class HueySqliteFsync(HueySqlite):
    fsync = True
    slow = 4
    lacks = {"import": "as huey_sqlite"}  # noqa: RUF012


ENTRANT = HueySqliteFsync
