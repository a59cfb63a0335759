"""What PostgreSQL says it has done, and the CPU time of its processes, if they are on this machine."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from benchmarks.meter import Meter, Reading
from benchmarks.processes import cpu_ns, ended_ns, parent

__all__ = ["PostgresMeter"]


class PostgresMeter(Meter):
    """Counts the transactions of the database, `xact_commit` and `xact_rollback` of `pg_stat_database`.

    A statement outside of a transaction is one by itself; one that only reads counts, too. A connection's newest are
    added up to a second late while it works, and at the latest when it ends; the meter's own are among them.

    CPU time is that of the postmaster and all below it: of those that live, to the nanosecond; of those that have
    ended, in ticks of the clock.
    """

    prompt = False

    def __init__(self, url: str) -> None:
        import psycopg

        self._connection: Any = psycopg.connect(url, autocommit=True)
        backend = self._connection.info.backend_pid
        self._postmaster = parent(backend) if _is_postgres(backend) else 0

    def read(self) -> Reading:
        """Now. Blocks for a round trip."""
        [[executed]] = self._connection.execute(
            "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
        ).fetchall()
        pid = self._postmaster
        return Reading((cpu_ns(pid) + ended_ns(pid)) / 1e3 if pid else None, int(executed))

    def rest(self) -> None:
        """A checkpoint; not where that is not allowed, as with a server that was given."""
        import psycopg

        with contextlib.suppress(psycopg.errors.InsufficientPrivilege):
            self._connection.execute("CHECKPOINT")

    def close(self) -> None:
        """Disconnect."""
        self._connection.close()


def _is_postgres(pid: int) -> bool:
    """A server elsewhere has processes of other numbers, or in a container has them under another name."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().startswith("postgres")
    except OSError:
        return False
