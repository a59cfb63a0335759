"""The limit: sqlite3 without a framework; claims and deletes by 100, polls every 5 ms."""

from __future__ import annotations

import json
import signal
import sqlite3
import sys
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from benchmarks.entrant import SyncEntrant
from benchmarks.jobs import PLAIN_JOBS

BATCH, POLL, LEASE = 100, 0.005, 30


class RawSqlite(SyncEntrant):
    lacks: ClassVar = {
        "w4": "runs one job at a time",
        "w5": "keeps no results",
        "import": "no package",
    }

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.place.folder / "raw.db", isolation_level=None, timeout=30)
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma synchronous=normal")
        connection.execute(
            "create table if not exists jobs (id integer primary key, name text, args text, lease real default 0)"
        )
        return connection

    async def open(self) -> None:
        self.connection = self._connect()

    def send(self, job: str, *args: Any) -> None:
        self.connection.execute("insert into jobs (name, args) values (?, ?)", (job, json.dumps(args)))

    async def dispatch_many(self, job: str, arguments: Sequence[tuple[Any, ...]]) -> None:
        rows = [(job, json.dumps(args)) for args in arguments]
        self.connection.execute("begin immediate")
        self.connection.executemany("insert into jobs (name, args) values (?, ?)", rows)
        self.connection.execute("commit")

    def work(self, concurrency: int) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        connection = self._connect()
        while True:
            rows = connection.execute(
                "update jobs set lease = ? where id in (select id from jobs where lease < ? order by id limit ?) "
                "returning id, name, args",
                (time.time() + LEASE, time.time(), BATCH),
            ).fetchall()
            for _, name, args in rows:
                PLAIN_JOBS[name](*json.loads(args))
            if rows:
                connection.execute("begin immediate")
                connection.executemany("delete from jobs where id = ?", [(row[0],) for row in rows])
                connection.execute("commit")
                continue
            # Nothing: sleep until somebody has written.
            version = connection.execute("pragma data_version").fetchone()
            while connection.execute("pragma data_version").fetchone() == version:
                time.sleep(POLL)


ENTRANT = RawSqlite
