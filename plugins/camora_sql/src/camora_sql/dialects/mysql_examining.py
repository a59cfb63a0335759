"""What can be wrong with a MySQL or MariaDB, found before it hurts. Reads only, over connections of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from camora.errors import CamoraError, ConfigurationError
from camora.interfaces import CheckResult
from sqlalchemy.util.concurrency import greenlet_spawn

from camora_sql.dialects.base import Driver
from camora_sql.dialects.schema_found import schema_found
from camora_sql.drivers.errors import ServerError
from camora_sql.schema import WORKS_WITH

__all__ = ["Examined", "examinations"]

_FEW = 10
"""Connections left that are too few to count on."""
_LONG = 600
"""Seconds after which an open transaction is a sign of somebody who has forgotten it."""
_PACKET = 16 * 2**20
"""Bytes of one text; less of it is less than a batch of jobs may need."""


@attrs.frozen(kw_only=True)
class Examined:
    """The database: its name in texts and settings, how many connections a process wants, its revision."""

    label: str
    section: str
    facts_table: str
    migrate: str
    connections: int
    connect: Callable[[], Driver]
    revision: Callable[[Driver], str | None]
    explain: Callable[[ServerError], CamoraError]


def examinations(database: Examined) -> Mapping[str, Callable[[], CheckResult]]:
    """By name; each answers for this database."""
    looks = {"place": _place, "room": _room, "log": _log, "schema": _schema, "integrity": _integrity}
    return {name: _blocking(database, look) for name, look in looks.items()}


def _blocking(database: Examined, look: Callable[[Examined, Driver], CheckResult]) -> Any:
    def work() -> CheckResult:
        try:
            driver = database.connect()
        except ServerError as error:
            return _failed(str(database.explain(error)), f"start the server, or mend {database.section}.url")
        except ConfigurationError as error:
            return _failed(str(error), f"upgrade the server, or mend {database.section}.url")
        try:
            return look(database, driver)
        except ServerError as error:
            return _failed(str(database.explain(error)), "mend what this says; then  camora doctor  again")
        finally:
            driver.close()

    return lambda: asyncio.run(greenlet_spawn(work))


def _place(database: Examined, driver: Driver) -> CheckResult:
    """A server that takes writes, of a version that is known to work, which the connection has seen to."""
    [(version, read_only, packet)] = driver.rows("SELECT VERSION(), @@global.read_only, @@max_allowed_packet")
    if read_only not in (0, "OFF"):
        return _failed(
            f"{database.label} only reads: it is a replica, or was made read-only",
            f"name the primary in {database.section}.url",
        )
    if packet < _PACKET:
        return _failed(
            f"{database.label} takes {packet // 1024} KiB at once (max_allowed_packet): larger messages are refused",
            "raise max_allowed_packet of the server to 16M or more",
        )
    return _fine(f"{database.label} is {version}, and takes writes")


def _room(database: Examined, driver: Driver) -> CheckResult:
    """Connections are left."""
    [(most,)] = driver.rows("SELECT @@max_connections")
    [(_, used)] = driver.rows("SHOW GLOBAL STATUS LIKE 'Threads_connected'")
    left = int(most) - int(used)
    if left < _FEW:
        return _failed(
            f"{database.label} has {max(left, 0)} of {most} connections left; a worker process wants up to "
            f"{database.connections}",
            "raise max_connections, lower pool_size (?pool_size=2), or find who holds them: SHOW PROCESSLIST",
        )
    return _fine(f"{left} of {most} connections are left; a worker process wants up to {database.connections}")


def _log(database: Examined, driver: Driver) -> CheckResult:
    """Nobody keeps the server from cleaning up."""
    # One of the servers tells when it began by its own zone, the other one by the session's.
    driver.change("SET time_zone = 'SYSTEM'")
    try:
        rows = driver.rows(
            "SELECT trx_mysql_thread_id, TIMESTAMPDIFF(SECOND, trx_started, NOW()) FROM information_schema.innodb_trx "
            "WHERE trx_mysql_thread_id <> CONNECTION_ID() ORDER BY trx_started LIMIT 1"
        )
    except ServerError as error:
        if error.code == "1227":
            return _fine("whether a transaction is open for long is not known: this user may not see it (PROCESS)")
        raise
    if rows and rows[0][1] > _LONG:
        thread, age = rows[0]
        return _failed(
            f"a transaction (thread {thread}) is open for {age // 60} minutes: what has ended since then cannot be "
            "cleaned up, and claims get slower",
            f"end it: KILL {thread}",
        )
    return _fine("no transaction is open for long")


def _schema(database: Examined, driver: Driver) -> CheckResult:
    """Its tables are of the revision that this version works with."""
    revision = database.revision(driver)
    if revision is None:
        return schema_found(database.label, None, "", database.migrate)
    fact = f"SELECT value FROM {database.facts_table} WHERE name = %s"  # noqa: S608 -- a plain name
    facts = driver.rows(fact, WORKS_WITH[:1])
    return schema_found(database.label, revision, facts[0][0] if facts else "", database.migrate)


def _integrity(database: Examined, driver: Driver) -> CheckResult:
    """What is committed is kept."""
    [(flush, binlog, form, double)] = driver.rows(
        "SELECT @@innodb_flush_log_at_trx_commit, @@log_bin, @@binlog_format, @@innodb_doublewrite"
    )
    if binlog not in (0, "OFF") and form == "STATEMENT":
        return _failed(
            "binlog_format is STATEMENT, which cannot note what Camora does: its statements are refused",
            "set binlog_format = MIXED or ROW",
        )
    if double in (0, "OFF"):
        return _failed("innodb_doublewrite is off: a crash of the machine may damage the whole database", "turn it on")
    if flush != 1:
        return _failed(
            f"innodb_flush_log_at_trx_commit is {flush}: a crash of the machine undoes the last moments",
            "set innodb_flush_log_at_trx_commit = 1",
        )
    return _fine("what is committed is kept")


def _fine(text: str) -> CheckResult:
    return CheckResult(ok=True, text=text)


def _failed(text: str, fix: str) -> CheckResult:
    return CheckResult(ok=False, text=text, fix=fix)
