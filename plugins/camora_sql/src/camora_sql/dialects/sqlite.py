"""SQLite: one file in WAL mode, shared by any number of processes of one machine."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from camora.clock import Clock
from camora.errors import CamoraError, ConfigurationError
from camora.interfaces import CheckResult
from sqlalchemy import ColumnElement, Connection, Insert, Table
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.dialects.sqlite.pysqlite import SQLiteDialect_pysqlite
from sqlalchemy.engine import Dialect as Compiler

from camora_sql.dialects.base import Dialect, Driver, Need, Row
from camora_sql.dialects.sqlite_errors import (
    BUSY,
    DOUBTFUL,
    check_log,
    code_of,
    explain,
    explain_joined,
    is_garbled,
    moved,
)
from camora_sql.errors import migrate_command
from camora_sql.schema import tables_named
from camora_sql.settings import SqlSettings, naming
from camora_sql.timing import ServerClock
from camora_sql.wakeup import InotifyWakeups, PollingWakeups, Wakeups, WatchFailed

__all__ = ["SqliteDialect", "path_of"]

_SCHEMES = ("sqlite", "sqlite+pysqlite")
_OLDEST = (3, 35, 0)
# 8 MiB of pages for each connection: the upper levels of every index, however long the backlog.
_CACHE_KIB = 8192
# Pages of the log after which they are moved into the file: fewer, larger moves than SQLite's own 1,000.
_CHECKPOINT_PAGES = 2000


def path_of(url: str) -> str:
    """The file of a `sqlite:///relative.db` or `sqlite:////absolute.db` URL, made absolute.

    Raises `ConfigurationError` for other forms, and for SQLite's databases in memory.
    """
    scheme, separator, rest = url.partition("://")
    if scheme not in _SCHEMES or not separator:
        raise ConfigurationError(
            f"{url!r} is no SQLite URL; write sqlite:///relative.db or sqlite:////absolute/path.db"
        )
    if rest in ("", "/", "/:memory:") or "mode=memory" in rest:
        raise ConfigurationError(
            f"{url!r} is a database in memory, which no other connection could see; "
            "use memory:// for that, or name a file: sqlite:///camora.db"
        )
    if not rest.startswith("/"):
        raise ConfigurationError(
            f"{url!r} names a host, and SQLite has none; three slashes begin a relative path (sqlite:///{rest}), "
            "four an absolute one"
        )
    path = rest[1:]
    if "\0" in path:
        raise ConfigurationError(f"{url!r}: a path cannot hold a NUL character")
    # Relative to where the app was made: a worker that changes its folder later still means the same file.
    return str(Path(path).absolute())


class _Connection:
    """Python's own driver. It remembers which file it has open, and whether its commits are flushed."""

    def __init__(self, path: str) -> None:
        self.raw = sqlite3.connect(
            path, timeout=0, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        self.file: tuple[int, int] | None = None
        self.flushed = False
        # One for all statements: its making is a good part of a small statement's time.
        self._cursor = self.raw.cursor()

    def rows(self, text: str, values: Sequence[Any] = ()) -> list[Row]:
        return self._cursor.execute(text, values).fetchall()

    def change(self, text: str, values: Sequence[Any] = ()) -> int:
        return self._cursor.execute(text, values).rowcount

    def close(self) -> None:
        self.raw.close()

    def abort(self) -> None:
        """Left to the garbage collector: another thread may be in the middle of it."""


class SqliteDialect(Dialect):
    """One file. Its settings are those of the URL."""

    name = "sqlite"
    blocking = True
    driver_error = sqlite3.Error

    def __init__(self, url: str, settings: SqlSettings) -> None:
        if sqlite3.sqlite_version_info < _OLDEST:
            raise ConfigurationError(
                f"this Python has SQLite {sqlite3.sqlite_version}; camora-sql needs 3.35 or newer: use a newer Python"
            )
        if settings.schema is not None:
            raise ConfigurationError("setting 'schema' is for servers: an SQLite file has none; use prefix=…")
        self.tables = tables_named(settings.prefix)
        self.path = path_of(url)
        self.url = f"sqlite:///{os.path.realpath(self.path)}"
        self.label = self.path
        self.address = naming(f"sqlite:///{self.path}", settings)
        self._flushed_from = {"all": Need.SETTLED, "full": Need.KEPT, "normal": 99}[settings.synchronous]
        self._boot = _boot_id()

    # Speaking

    def compiler(self) -> Compiler:
        """Question marks for values."""
        return SQLiteDialect_pysqlite()

    def insert_new(self, table: Table, values: Sequence[dict[str, Any]]) -> Insert:
        """ON CONFLICT DO NOTHING."""
        return insert(table).values(list(values)).on_conflict_do_nothing()

    def upsert(
        self,
        table: Table,
        values: Sequence[dict[str, Any]],
        *,
        key: str | tuple[str, ...],
        change: Sequence[str],
        where: ColumnElement[bool] | None = None,
    ) -> Insert:
        """ON CONFLICT DO UPDATE."""
        statement = insert(table).values(list(values))
        changed = {name: statement.excluded[name] for name in change}
        return statement.on_conflict_do_update(
            index_elements=[key] if isinstance(key, str) else key, set_=changed, where=where
        )

    # Connecting

    def connect(self) -> Driver:
        """Open the file, and create it when it is missing; its folder must be there."""
        folder = Path(self.path).parent
        if not folder.is_dir():
            raise ConfigurationError(f"the folder {folder} of {self.path} does not exist; create it: mkdir -p {folder}")
        connection = _Connection(self.path)
        try:
            [(mode,)] = connection.rows("PRAGMA journal_mode = WAL")
            check_log(self.path, mode)
            connection.change(f"PRAGMA cache_size = -{_CACHE_KIB}")
            connection.change(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
            connection.change("PRAGMA temp_store = MEMORY")
            connection.change("PRAGMA synchronous = NORMAL")
            connection.file = _identity(self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    def pause(self, seconds: float) -> None:
        """The thread sleeps."""
        time.sleep(seconds)

    def flushes(self, need: Need) -> bool:
        """By `synchronous`."""
        return need >= self._flushed_from

    def begin(self, driver: Driver, *, need: Need) -> None:
        """Take the right to write at once: a transaction that begins by reading could not always go on to write."""
        self.ready(driver, need=need)
        driver.change("BEGIN IMMEDIATE")

    def ready(self, driver: Driver, *, need: Need) -> None:
        """The file is still the one that everybody means, and its commits are flushed as they need to be."""
        ours = cast("_Connection", driver)
        if _identity(self.path) != ours.file:
            # SQLite would go on with the file that was here before, which nobody else sees any more.
            raise moved(self.path)
        # A NORMAL commit is written but not flushed; a later FULL one flushes it with itself. So what survives a power
        # failure is all that was committed up to some moment, and never a later half of it.
        flushed = self.flushes(need)
        if flushed is not ours.flushed:
            ours.change("PRAGMA synchronous = FULL" if flushed else "PRAGMA synchronous = NORMAL")
            ours.flushed = flushed

    def commit(self, driver: Driver) -> None:
        """COMMIT."""
        driver.change("COMMIT")

    def rollback(self, driver: Driver) -> None:
        """ROLLBACK, unless SQLite did it itself."""
        if cast("_Connection", driver).raw.in_transaction:
            driver.change("ROLLBACK")

    def lock(self, driver: Driver, what: str) -> None:
        """A transaction that writes is alone already."""

    # Errors

    def is_busy(self, error: Exception) -> bool:
        """BUSY and LOCKED, in all their forms."""
        return code_of(error) in BUSY

    def is_garbled(self, error: Exception) -> bool:
        """A text that is no UTF-8."""
        return is_garbled(error)

    def breaks_connection(self, error: Exception) -> bool:
        """After an I/O error or a sign of damage, everything cached is in doubt."""
        return code_of(error) in DOUBTFUL

    def unclear(self, error: Exception) -> bool:
        """The disk failed while the log was written: the commit may be in it."""
        return code_of(error) in DOUBTFUL

    def explain(self, error: Exception, *, opening: bool) -> CamoraError:
        """By SQLite's result code."""
        return explain(error, self.path, opening=opening)

    def explain_joined(self, error: Exception) -> CamoraError:
        """By SQLite's result code."""
        return explain_joined(error, self.path)

    def tolerate(self, driver: Driver, *, garbled: bool) -> None:
        """Bytes that are no UTF-8 become replacement characters."""
        cast("_Connection", driver).raw.text_factory = _replacing if garbled else str

    # Schema

    def exists(self) -> bool:
        """Whether there is a file."""
        return Path(self.path).exists()

    def revision(self, driver: Driver) -> str | None:
        """From alembic's table, without alembic."""
        name = self.tables.version.name
        if not driver.rows("SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = ?", (name,))[0][0]:
            return None
        rows = driver.rows(f"SELECT version_num FROM {_quoted(name)}")  # noqa: S608 -- quoted
        return str(rows[0][0]) if rows else None

    def examinations(self, section: str) -> Mapping[str, Callable[[], CheckResult]]:
        """Of the file, and the place where it lies."""
        # Imported when somebody looks.
        from camora_sql.dialects.sqlite_examining import examinations

        return examinations(self.path, self.tables, migrate_command(self))

    # On a connection of the caller's

    def schema_on(self, connection: Connection) -> str:
        """`main`, or the name under which the file is attached."""
        files = {str(name): str(file) for _, name, file in connection.exec_driver_sql("PRAGMA database_list")}
        ours = _identity(self.path)
        for name, file in files.items():
            if file and ours is not None and _identity(file) == ours:
                return name
        others = ", ".join(file or "a database in memory" for file in files.values())
        raise ConfigurationError(
            f"options(connection=…): that is a connection to {others}, and this app's jobs are in {self.path}; keep "
            f"both in one file, or: ATTACH DATABASE '{self.path}' AS camora"
        )

    def has_schema(self, connection: Connection, schema: str | None) -> bool:
        """By SQLite's list of tables."""
        query = f"SELECT count(*) FROM {_quoted(schema or 'main')}.sqlite_master WHERE type = 'table' AND name = ?"  # noqa: S608
        return bool(connection.exec_driver_sql(query, (self.tables.version.name,)).scalar())

    def tell_within(self, connection: Connection, payload: str) -> bool:
        """There is nothing in a transaction that could."""
        return False

    def in_transaction(self, connection: Connection) -> bool:
        """By the driver's own word."""
        driver: Any = connection.connection.driver_connection
        return bool(driver.in_transaction)

    # Time

    def lease_clock(self, clock: Clock) -> int:
        """The monotonic clock, which all processes of a machine share; the wall clock where a boot has no name."""
        return round(clock.monotonic() * 1000) if self._boot else clock.now_ms()

    def lease_epoch(self) -> str:
        """The machine's boot."""
        return self._boot

    # Waking

    def tell(self, driver: Driver, payload: str) -> None:
        """A file has no listeners."""

    def announce(self) -> None:
        """Touch the file: 2 microseconds, and no descriptor, whose closing would drop SQLite's locks."""
        with contextlib.suppress(OSError):
            os.utime(self.path)

    def wakeups(self, time: ServerClock) -> Wakeups:
        """By inotify, else by SQLite's counter of others' commits."""
        try:
            return InotifyWakeups(self.path)
        except (WatchFailed, OSError):
            return self.polling()

    def polling(self) -> Wakeups:
        """By SQLite's counter, for systems that tell nobody of a change."""
        connection = sqlite3.connect(self.path, timeout=0, isolation_level=None)

        def version() -> int:
            try:
                return int(connection.execute("PRAGMA data_version").fetchall()[0][0])
            except sqlite3.Error:
                return time.monotonic_ns()  # cannot tell: have everybody look

        return PollingWakeups(version, connection.close)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 -- asked for each transaction, and twice as quick
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _replacing(raw: bytes) -> str:
    return raw.decode(errors="replace")


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
