"""What can be wrong with a PostgreSQL, found before it hurts. Reads only, over connections of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import attrs
from camora.errors import CamoraError
from camora.interfaces import CheckResult
from sqlalchemy.util.concurrency import greenlet_spawn

from camora_sql.dialects.base import Driver
from camora_sql.dialects.schema_found import schema_found
from camora_sql.drivers.errors import ServerError
from camora_sql.schema import WORKS_WITH

__all__ = ["OLDEST", "Examined", "examinations"]

OLDEST = 13
"""The oldest version of the server: older ones are past their end of life."""
_FEW = 10
"""Connections left that are too few to count on."""
_LONG = 600
"""Seconds after which an open transaction is a sign of somebody who has forgotten it."""

Ask = Callable[[str], list[Any]]


@attrs.frozen(kw_only=True)
class Examined:
    """The database: its name in texts and settings, where its tables are, how many connections a process wants."""

    label: str
    section: str
    schema: str | None
    version_table: str
    facts_table: str
    migrate: str
    connections: int
    connect: Callable[[], Driver]
    explain: Callable[[ServerError], CamoraError]


def examinations(database: Examined) -> Mapping[str, Callable[[], CheckResult]]:
    """By name; each answers for this database."""
    looks = {"place": _place, "room": _room, "log": _log, "schema": _schema, "integrity": _integrity}
    return {name: _blocking(database, look) for name, look in looks.items()}


def _blocking(database: Examined, look: Callable[[Examined, Ask], CheckResult]) -> Any:
    def work() -> CheckResult:
        try:
            driver = database.connect()
        except ServerError as error:
            return _failed(str(database.explain(error)), f"start the server, or mend {database.section}.url")
        try:
            return look(database, lambda text: list(driver.rows(text)))
        except ServerError as error:
            return _failed(str(database.explain(error)), "mend what this says; then  camora doctor  again")
        finally:
            driver.close()

    return lambda: asyncio.run(greenlet_spawn(work))


def _place(database: Examined, ask: Ask) -> CheckResult:
    """A server that takes writes, of a version that is known to work."""
    [(version, number, standby, read_only)] = ask(
        "SELECT current_setting('server_version'), current_setting('server_version_num')::int, pg_is_in_recovery(), "
        "current_setting('transaction_read_only')"
    )
    if number < OLDEST * 10000:
        return _failed(f"{database.label} is PostgreSQL {version}", f"upgrade it: Camora needs {OLDEST} or newer")
    if standby or read_only == "on":
        return _failed(
            f"{database.label} only reads: it is a standby, or was made read-only",
            "name the primary; with several hosts in the URL: ?target_session_attrs=read-write",
        )
    return _fine(f"{database.label} is PostgreSQL {version}, and takes writes")


def _room(database: Examined, ask: Ask) -> CheckResult:
    """Connections are left."""
    [(most, reserved, used)] = ask(
        "SELECT current_setting('max_connections')::int, current_setting('superuser_reserved_connections')::int, "
        "(SELECT count(*)::int FROM pg_stat_activity WHERE backend_type = 'client backend')"
    )
    left = most - reserved - used
    if left < _FEW:
        return _failed(
            f"{database.label} has {max(left, 0)} of {most} connections left; a worker process wants up to "
            f"{database.connections}",
            "raise max_connections, lower pool_size (?pool_size=2), or find who holds them: pg_stat_activity",
        )
    return _fine(f"{left} of {most} connections are left; a worker process wants up to {database.connections}")


def _log(database: Examined, ask: Ask) -> CheckResult:
    """Nobody keeps the server from cleaning up."""
    rows = ask(
        "SELECT pid, coalesce(usename, ''), coalesce(application_name, ''), state, "
        "extract(epoch FROM now() - xact_start)::int FROM pg_stat_activity "
        "WHERE xact_start IS NOT NULL AND backend_type = 'client backend' AND pid <> pg_backend_pid() "
        "ORDER BY xact_start LIMIT 1"
    )
    if rows and rows[0][4] > _LONG:
        pid, user, name, state, age = rows[0]
        return _failed(
            f"a transaction of {user} {name!r} (pid {pid}, {state}) is open for {age // 60} minutes: what has ended "
            "since then cannot be cleaned up, and claims get slower",
            f"end it: SELECT pg_terminate_backend({pid}); and set idle_in_transaction_session_timeout",
        )
    return _fine("no transaction is open for long")


def _schema(database: Examined, ask: Ask) -> CheckResult:
    """Its tables are of the revision that this version works with."""
    schema, version = database.schema, database.version_table
    if schema and not ask(f"SELECT 1 FROM pg_namespace WHERE nspname = '{schema}'"):  # noqa: S608 -- a plain name
        return _failed(f"{database.label} has no schema {schema}", f"CREATE SCHEMA {schema}")
    if ask(f"SELECT to_regclass('{version}')::text")[0][0] is None:
        return schema_found(database.label, None, "", database.migrate)
    rows = ask(f"SELECT version_num FROM {version}")  # noqa: S608 -- a plain name
    facts = ask(f"SELECT value FROM {database.facts_table} WHERE name = '{WORKS_WITH[0]}'")  # noqa: S608 -- a plain name
    return schema_found(database.label, rows[0][0] if rows else None, facts[0][0] if facts else "", database.migrate)


def _integrity(database: Examined, ask: Ask) -> CheckResult:
    """What is committed is kept, and what is gone is cleaned up."""
    names = "fsync", "full_page_writes", "synchronous_commit", "autovacuum"
    found = {name: ask(f"SELECT current_setting('{name}')")[0][0] for name in names}
    if off := [name for name in ("fsync", "full_page_writes") if found[name] == "off"]:
        return _failed(
            f"{' and '.join(off)} is off: a crash of the machine may damage the whole database", "turn it on"
        )
    if found["synchronous_commit"] == "off":
        return _failed(
            "synchronous_commit is off: a crash of the server undoes the last moments, dispatches too",
            "turn it on for this user: ALTER ROLE … SET synchronous_commit = on",
        )
    if found["autovacuum"] == "off":
        return _failed("autovacuum is off: the tables will only grow, and claims get slower", "turn it on")
    return _fine("what is committed is kept, and autovacuum cleans up")


def _fine(text: str) -> CheckResult:
    return CheckResult(ok=True, text=text)


def _failed(text: str, fix: str) -> CheckResult:
    return CheckResult(ok=False, text=text, fix=fix)
