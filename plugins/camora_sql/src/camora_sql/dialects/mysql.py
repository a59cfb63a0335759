"""MySQL and MariaDB, by asyncmy."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, cast

from camora.errors import CamoraError, ConfigurationError
from camora.interfaces import CheckResult
from sqlalchemy import ColumnElement, Connection, Insert, Select, Table, case, literal_column, text
from sqlalchemy.dialects.mysql import insert
from sqlalchemy.dialects.mysql.base import MySQLDialect
from sqlalchemy.dialects.mysql.mariadb import MariaDBDialect
from sqlalchemy.engine import Dialect as Compiler
from sqlalchemy.sql import visitors

from camora_sql.dialects.base import Driver, Need
from camora_sql.dialects.mysql_errors import (
    LOCKED,
    NO_TABLE,
    code_of,
    explain,
    explain_joined,
    is_gone,
    is_passing,
    is_unclear,
)
from camora_sql.dialects.mysql_schema import change_schema, is_note
from camora_sql.dialects.mysql_url import Address, address_of
from camora_sql.dialects.mysql_wakeup import Pace, PacedWakeups
from camora_sql.dialects.rights import mysql_to_make, mysql_to_work
from camora_sql.dialects.server import ServerDialect
from camora_sql.drivers.errors import ServerError
from camora_sql.errors import migrate_command, require
from camora_sql.schema import tables_named
from camora_sql.settings import SqlSettings, naming
from camora_sql.timing import ServerClock
from camora_sql.wakeup import Wakeups

__all__ = ["MysqlDialect"]

_OLDEST = {"mariadb": (10, 6), "mysql": (8, 0, 17)}
"""Since when they can pass over locked rows, and compare names as they are."""
_NAMES = {"mariadb": "MariaDB", "mysql": "MySQL"}
_FITS: ColumnElement[Any] = literal_column("@camora_fits")
_DENIED = "1142"
_READ_ONLY = ("1290", "1836")
_FRAME = 1024
"""Bytes of a packet that are not the statement's."""


class MysqlDialect(ServerDialect):
    """One database of a server, which tells by itself which of the two it is; until then it is what the URL says."""

    moment = "SELECT UNIX_TIMESTAMP(NOW(6)) * 1000 + 0e0"
    notifies = False
    joins_found = True

    def __init__(self, url: str, settings: SqlSettings) -> None:
        if settings.schema is not None:
            raise ConfigurationError("setting 'schema': a schema of MySQL is a database; name it in the URL instead")
        require(url, ("asyncmy", "greenlet"), "mysql")
        self.name = "mariadb" if url.startswith("mariadb") else "mysql"
        self._address: Address = address_of(url)
        self._settings = settings
        self.tables = tables_named(settings.prefix, partial=False)
        self.label = self._address.label
        self.address = naming(url, settings)
        self.url = f"{self._address.identity}#{settings.prefix}"
        self.pace = Pace()

    # Speaking

    def compiler(self) -> Compiler:
        """SQLAlchemy's dialect without a driver."""
        kind = MariaDBDialect if self.name == "mariadb" else MySQLDialect
        return kind(paramstyle="format")

    def speaks(self, name: str) -> bool:
        """SQLAlchemy goes by the URL of an engine, and either may be written for the other."""
        return name in _NAMES

    def insert_new(self, table: Table, values: Sequence[dict[str, Any]]) -> Insert:
        """ON DUPLICATE KEY UPDATE that changes nothing: IGNORE would also cut what is too long."""
        statement = insert(table).values(list(values))
        first = next(iter(table.primary_key)).name
        return statement.on_duplicate_key_update({first: table.c[first]})

    def upsert(
        self,
        table: Table,
        values: Sequence[dict[str, Any]],
        *,
        key: str | tuple[str, ...],
        change: Sequence[str],
        where: ColumnElement[bool] | None = None,
    ) -> Insert:
        """ON DUPLICATE KEY UPDATE, which sets one column after the other, and sees what is set already."""
        statement = insert(table).values(list(values))
        if where is None:
            return statement.on_duplicate_key_update({name: statement.inserted[name] for name in change})
        asked = {element.key for element in visitors.iterate(where) if element in set(table.c)}  # type: ignore[attr-defined]
        last = [name for name in change if name in asked]
        changed: list[tuple[str, Any]] = []
        for place, name in enumerate([name for name in change if name not in asked] + last):
            # Asked once, of the row as it was.
            asks = _FITS.op(":=")(case((where, literal_column("1")), else_=literal_column("0")))
            fits = (asks if place == 0 else _FITS) == literal_column("1")
            changed.append((name, case((fits, statement.inserted[name]), else_=table.c[name])))
        return statement.on_duplicate_key_update(changed)

    def current(self, found: Select[Any]) -> Select[Any]:
        """A transaction that repeats its reads would repeat them from the start; what it locks it reads anew."""
        return found.with_for_update()

    # Connecting

    def connect(self) -> Driver:
        """A connection of its own settings. Raises `ConfigurationError` for a server that is too old."""
        # Imported when a connection is made: whoever only makes statements has no use for it.
        from camora_sql.drivers import asyncmy

        self._address.check()
        settings = self._settings
        driver = asyncmy.connect(
            connect_timeout=settings.connect_timeout,
            network_timeout=settings.network_timeout,
            options=self._address.options,
        )
        try:
            self._check_version(driver.version)
            driver.change(self._setup())
            [(packet,)] = driver.rows("SELECT @@max_allowed_packet")
            driver.largest = packet - _FRAME
        except BaseException:
            driver.abort()
            raise
        return driver

    def _check_version(self, said: str) -> None:
        self.name = "mariadb" if "mariadb" in said.lower() else "mysql"
        # Old clients were told that MariaDB is a MySQL 5.5.5.
        numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", said.removeprefix("5.5.5-"))
        version = tuple(map(int, numbers.groups())) if numbers else ()
        oldest = _OLDEST[self.name]
        if version < oldest:
            raise ConfigurationError(
                f"{self.label} is {_NAMES[self.name]} {said}, and camora-sql needs "
                f"{_NAMES[self.name]} {'.'.join(map(str, oldest))} or newer; upgrade the server"
            )

    def _setup(self) -> str:
        busy, network = max(1, round(self._settings.busy_timeout)), max(1, round(self._settings.network_timeout))
        session = [
            # What does not fit is refused, not cut; and backslashes are what the driver takes them for.
            "sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'",
            "time_zone = '+00:00'",
            # What another program locks is not waited for without end; nor do others wait for a frozen one of ours.
            f"innodb_lock_wait_timeout = {busy}",
            f"lock_wait_timeout = {network}",
        ]
        if self.name == "mariadb":
            session += [f"max_statement_time = {network}", f"idle_transaction_timeout = {network}"]
        else:
            session += [f"max_execution_time = {network * 1000}"]
        return (
            "SET NAMES utf8mb4; SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED; "
            f"SET SESSION {', '.join(session)}"
        )

    def flushes(self, need: Need) -> bool:
        """By a setting of the whole server."""
        return True

    def begin(self, driver: Driver, *, need: Need) -> None:
        """START TRANSACTION. What a power failure may take is a setting of the whole server."""
        _ours(driver).begin()

    def ready(self, driver: Driver, *, need: Need) -> None:
        """Nothing to do."""

    def deferring(self, driver: Driver) -> AbstractContextManager[None]:
        """They do."""
        return cast("AbstractContextManager[None]", _ours(driver).deferring())

    def commit(self, driver: Driver) -> None:
        """COMMIT, with what was put off."""
        try:
            _ours(driver).commit()
        except (OverflowError, UnicodeError):
            self.rollback(driver)
            raise
        self._unlock(driver)

    def rollback(self, driver: Driver) -> None:
        """ROLLBACK; a connection that is gone has done it by going."""
        try:
            _ours(driver).rollback()
            self._unlock(driver)
        except ServerError:
            driver.abort()

    def lock(self, driver: Driver, what: str) -> None:
        """A row that all who lock the same write; for the schema, which has no rows yet, a name."""
        if what != "schema":
            table = self.tables.facts.name
            driver_ = _ours(driver)
            driver_.later(
                f"INSERT INTO {table} (name, value) VALUES (%s, '') ON DUPLICATE KEY UPDATE value = value",  # noqa: S608
                [f"lock_{what}"],
            )
            return
        longest = max(1, round(self._settings.network_timeout * 2 / 3))
        name = f"{self._address.database}.{self.tables.prefix}{what}"
        [(got,)] = driver.rows("SELECT GET_LOCK(LEFT(SHA2(%s, 256), 60), %s)", [name, longest])
        if got != 1:
            raise ServerError("somebody else has been changing the schema", code=LOCKED)
        _ours(driver).locked = True

    def _unlock(self, driver: Driver) -> None:
        ours = _ours(driver)
        if ours.locked:
            ours.locked = False
            driver.change("DO RELEASE_ALL_LOCKS()")

    # Errors

    def is_busy(self, error: Exception) -> bool:
        """Conflicts, and connections that ended while they were used. What only reads will for a while."""
        return is_passing(error) and code_of(error) not in _READ_ONLY

    def breaks_connection(self, error: Exception) -> bool:
        """Also a server that only reads by now."""
        return is_gone(error)

    def unclear(self, error: Exception) -> bool:
        """The answer to the commit was lost with the connection."""
        return is_unclear(error)

    def explain(self, error: Exception, *, opening: bool) -> CamoraError:
        """By the server's number."""
        told = explain(error, self.label, self._address.database, opening=opening, migrate=migrate_command(self))
        if code_of(error) != _DENIED:
            return told
        return type(told)(f"{self.label}: {mysql_to_work(str(error), self._address.user, self._address.database)}")

    def explain_making(self, error: Exception) -> str | None:
        """Which right is missing for that."""
        if code_of(error) != _DENIED:
            return None
        return f"{self.label}: {mysql_to_make(str(error), self._address.user, self._address.database)}"

    def explain_joined(self, error: Exception) -> CamoraError:
        """By the server's number."""
        return explain_joined(error, self.label, self._address.database, migrate=migrate_command(self))

    # Schema

    def revision(self, driver: Driver) -> str | None:
        """From alembic's table, without alembic, and without the notes of those who change the schema."""
        try:
            rows = driver.rows(f"SELECT version_num FROM {self.tables.version.name}")  # noqa: S608 -- a plain name
        except ServerError as error:
            if error.code == NO_TABLE:
                return None
            raise
        return next((str(row[0]) for row in rows if not is_note(row[0])), None)

    def change_schema(self, driver: Driver, texts: Sequence[str], step: str) -> None:
        """Each statement stands by itself: where one was the last is noted."""
        change_schema(self, driver, texts, step)

    def examinations(self, section: str) -> Mapping[str, Callable[[], CheckResult]]:
        """Of the server."""
        # Imported when somebody looks.
        from camora_sql.dialects.mysql_examining import Examined, examinations

        return examinations(
            Examined(
                label=self.label,
                section=section,
                facts_table=self.tables.facts.name,
                migrate=migrate_command(self),
                connections=self.connections,
                connect=self.connect,
                revision=self.revision,
                explain=lambda error: self.explain(error, opening=True),
            )
        )

    @property
    def connections(self) -> int:
        """How many a worker's process has at most: beside the pool one keeps leases."""
        return self._settings.pool_size + 1

    # On a connection of the caller's

    def schema_on(self, connection: Connection) -> str | None:
        """None; the address may be another one, but the database's name is the same."""
        found = connection.execute(text("SELECT DATABASE()")).scalar()
        if found != self._address.database:
            raise ConfigurationError(
                f"options(connection=…): that is a connection to the database {found!r}, and this app's jobs are in "
                f"{self.label}; one transaction on that connection cannot find them"
            )
        return None

    def has_schema(self, connection: Connection, schema: str | None) -> bool:
        """Whether it sees the table of revisions."""
        look = text(
            "SELECT count(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = :name"
        )
        return bool(connection.execute(look, {"name": self.tables.version.name}).scalar())

    def tell_within(self, connection: Connection, payload: str) -> bool:
        """There is nothing in a transaction that could."""
        return False

    def in_transaction(self, connection: Connection) -> bool:
        """Unless each statement is committed by itself."""
        return not connection.execute(text("SELECT @@autocommit")).scalar()

    # Waking

    def tell(self, driver: Driver, payload: str) -> None:
        """The server has no listeners."""

    def announce(self) -> None:
        """To those of this process; others look by themselves."""
        self.pace.announce()

    def wakeups(self, time: ServerClock) -> Wakeups:
        """At a pace."""
        return PacedWakeups(self.pace)


def _ours(driver: Driver) -> Any:
    return cast("Any", driver)
