"""PostgreSQL, by asyncpg, or by psycopg where the URL says so."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from camora.errors import BrokerUnavailable, CamoraError, ConfigurationError
from camora.interfaces import CheckResult
from camora.settings import mask_url
from sqlalchemy import ColumnElement, Connection, Insert, Select, Table, func, literal_column, text
from sqlalchemy.dialects.postgresql import asyncpg, insert
from sqlalchemy.engine import Dialect as Compiler

from camora_sql.dialects.base import Driver, Need
from camora_sql.dialects.postgresql_errors import (
    DEADLOCK,
    code_of,
    explain,
    explain_joined,
    is_gone,
    is_passing,
    is_unclear,
)
from camora_sql.dialects.rights import postgresql_to_make, postgresql_to_work
from camora_sql.dialects.server import ServerDialect
from camora_sql.errors import migrate_command, require
from camora_sql.functions import CURRENT, function_text
from camora_sql.listening import Listener, ListeningWakeups
from camora_sql.schema import tables_named
from camora_sql.settings import SqlSettings, naming
from camora_sql.timing import ServerClock
from camora_sql.wakeup import Wakeups

__all__ = ["PostgresqlDialect"]


_DENIED = "42501"
_READ_ONLY = "25006"
_CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}
"""Of the driver's options those whose mistakes would look like a server that is away."""
_TRY = 0.25
"""Seconds that one try waits for a lock that others hold."""


class PostgresqlDialect(ServerDialect):
    """One database of a server. What is in the URL's query, and is no setting of ours, is for the driver."""

    name = "postgresql"
    tells_stored = True
    moment = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::float8"

    def __init__(self, url: str, settings: SqlSettings) -> None:
        scheme, _, rest = url.partition("://")
        self._module = "psycopg" if scheme.endswith("+psycopg") else "asyncpg"
        require(url, [self._module, "greenlet"], "psycopg" if self._module == "psycopg" else "postgresql")
        self._dsn = f"postgresql://{rest}"
        self._settings = settings
        self.tables = tables_named(settings.prefix, settings.schema)
        try:
            parts = urlsplit(self._dsn)
            hosts = parts.netloc.rpartition("@")[2]
            user = unquote(parts.username or "")
            if "," not in hosts:
                _ = parts.port  # several hosts have several
        except ValueError as error:
            raise ConfigurationError(
                f"{mask_url(url)!r} is no PostgreSQL URL: {error}; write postgresql://user:password@host:5432/database"
            ) from None
        _check_query(parts.query, mask_url(url))
        self._user = user
        self._database = unquote(parts.path.lstrip("/")) or user
        self.label = mask_url(f"postgresql://{hosts}{parts.path}")
        self.address = naming(url, settings)
        where = f"{settings.schema or ''}.{settings.prefix}"
        self.url = f"postgresql://{user}@{hosts}{parts.path}#{where}"
        self._channel = f"camora:{where}"
        # Never off for what somebody relies on, whatever the settings of the server: but "normal" asks for that.
        self._flushed_from = {"all": Need.NONE, "full": Need.SETTLED, "normal": 99}[settings.synchronous]

    # Speaking

    def compiler(self) -> Compiler:
        """Numbered places for values; both drivers have them."""
        return asyncpg.dialect()  # type: ignore[no-untyped-call]

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

    def current(self, found: Select[Any]) -> Select[Any]:
        """A transaction that repeats its reads sees a row that others have deleted since beside its own new one."""
        return found.order_by(func.age(literal_column("xmin"))).limit(1)

    # Connecting

    def connect(self) -> Driver:
        """A connection of its own settings."""
        settings = self._settings
        # In short tries: how often there is another one is up to whoever waits.
        busy, network = round(min(settings.busy_timeout, _TRY) * 1000) or 1, round(settings.network_timeout * 1000)
        setup = "; ".join(
            [
                "SET default_transaction_isolation = 'read committed'",
                # What another program locks is not waited for without end; nor do others wait for a frozen one of ours.
                f"SET lock_timeout = {busy}",
                f"SET statement_timeout = {network}",
                f"SET idle_in_transaction_session_timeout = {network}",
                # The statements are written for the indexes, whatever the statistics say after a sudden backlog.
                "SET enable_seqscan = off",
                "SET jit = off",
                # They mean the same whatever is in the arrays: making a plan costs more than most of them do.
                "SET plan_cache_mode = force_generic_plan",
            ]
        )
        driver: Driver = self._driver().connect(
            self._dsn,
            connect_timeout=settings.connect_timeout,
            network_timeout=settings.network_timeout,
            setup=setup,
        )
        return driver

    def _driver(self) -> Any:
        # Imported when a connection is made: only the one that is used needs to be installed.
        if self._module == "psycopg":
            from camora_sql.drivers import psycopg

            return psycopg
        from camora_sql.drivers import asyncpg

        return asyncpg

    async def listen(self, heard: Callable[[str], None]) -> Listener:
        """A connection that hears announcements."""
        listener: Listener = await self._driver().listen(
            self._dsn, timeout=self._settings.connect_timeout, channel=self._channel, heard=heard
        )
        return listener

    def flushes(self, need: Need) -> bool:
        """By `synchronous`."""
        return need >= self._flushed_from

    def begin(self, driver: Driver, *, need: Need) -> None:
        """BEGIN, and whether to wait for the disk at the end, in one trip."""
        driver.change("BEGIN" if self.flushes(need) else "BEGIN; SET LOCAL synchronous_commit = off")

    def ready(self, driver: Driver, *, need: Need) -> None:
        """Functions are told whether to wait for the disk."""

    def commit(self, driver: Driver) -> None:
        """COMMIT."""
        driver.change("COMMIT")

    def lock(self, driver: Driver, what: str) -> None:
        """An advisory lock, which is no row of anybody's."""
        driver.rows("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", [f"{self._channel}:{what}"])

    # Errors

    def is_busy(self, error: Exception) -> bool:
        """Conflicts, and connections that ended while they were used. What only reads will for a while."""
        return is_passing(error) and code_of(error) != _READ_ONLY

    def breaks_connection(self, error: Exception) -> bool:
        """Also a server that has turned into a standby."""
        return is_gone(error)

    def unclear(self, error: Exception) -> bool:
        """The answer to the commit was lost with the connection."""
        return is_unclear(error)

    def explain(self, error: Exception, *, opening: bool) -> CamoraError:
        """By PostgreSQL's code."""
        told = explain(error, self.label, self._database, opening=opening, migrate=migrate_command(self))
        if code_of(error) != _DENIED:
            return told
        return type(told)(f"{self.label}: {postgresql_to_work(str(error), self._user, self.tables.schema)}")

    def explain_making(self, error: Exception) -> str | None:
        """Which right is missing for that."""
        if code_of(error) != _DENIED:
            return None
        return f"{self.label}: {postgresql_to_make(str(error), self._user, self.tables.schema)}"

    def explain_joined(self, error: Exception) -> CamoraError:
        """By PostgreSQL's code."""
        if code_of(error) == _DENIED:
            # Whose connection that is, its owner knows.
            return BrokerUnavailable(f"{self.label}: {postgresql_to_work(str(error), '', self.tables.schema)}")
        return explain_joined(error, self.label, self._database, migrate=migrate_command(self))

    def may_repeat_part(self, error: Exception) -> bool:
        """A deadlock is over when one of those in it lets go."""
        return code_of(error) == DEADLOCK

    def pause_within(self, connection: Any, seconds: float) -> None:
        """In the server, for which callers of every kind wait in their own way."""
        connection.execute(text("SELECT pg_sleep(:seconds)"), {"seconds": seconds})

    # Schema

    def revision(self, driver: Driver) -> str | None:
        """From alembic's table, without alembic."""
        name = self.qualified(self.tables.version.name)
        # With a table in it: a connection that has waited for a lock, and reads none, does not hear of new ones.
        if not driver.rows("SELECT 1 FROM pg_class WHERE oid = to_regclass($1)", [name]):
            return None
        rows = driver.rows(f"SELECT version_num FROM {name}")  # noqa: S608 -- a plain name
        return str(rows[0][0]) if rows else None

    def routines(self) -> Sequence[str]:
        """The functions."""
        return [function_text(name, self.tables) for name in CURRENT]

    def examinations(self, section: str) -> Mapping[str, Callable[[], CheckResult]]:
        """Of the server."""
        # Imported when somebody looks.
        from camora_sql.dialects.postgresql_examining import Examined, examinations

        return examinations(
            Examined(
                label=self.label,
                section=section,
                schema=self.tables.schema,
                version_table=self.qualified(self.tables.version.name),
                facts_table=self.qualified(self.tables.facts.name),
                migrate=migrate_command(self),
                connections=self.connections,
                connect=self.connect,
                explain=lambda error: self.explain(error, opening=True),
            )
        )

    @property
    def connections(self) -> int:
        """How many a worker's process has at most: beside the pool one keeps leases, and one listens."""
        return self._settings.pool_size + 2

    def qualified(self, name: str) -> str:
        """A name of ours with its schema; both are plain names."""
        return f"{self.tables.schema}.{name}" if self.tables.schema else name

    # On a connection of the caller's

    def schema_on(self, connection: Connection) -> str | None:
        """As the settings say; the address may be another one, but the database's name is the same."""
        found = connection.execute(text("SELECT current_database()")).scalar()
        if found != self._database:
            raise ConfigurationError(
                f"options(connection=…): that is a connection to the database {found!r}, and this app's jobs are in "
                f"{self.label}; one transaction cannot be in both"
            )
        return self.tables.schema

    def has_schema(self, connection: Connection, schema: str | None) -> bool:
        """Whether it sees the table of revisions."""
        name = self.qualified(self.tables.version.name)
        return connection.execute(text("SELECT to_regclass(:name)::text"), {"name": name}).scalar() is not None

    def tell_within(self, connection: Connection, payload: str) -> bool:
        """By NOTIFY, which waits for the commit."""
        told = {"channel": self._channel, "payload": payload}
        connection.execute(text("SELECT pg_notify(:channel, :payload)"), told)
        return True

    def in_transaction(self, connection: Connection) -> bool:
        """Whether two statements are of one transaction: each would have its own in autocommit."""
        number = text("SELECT pg_current_xact_id()::text")
        return bool(connection.execute(number).scalar() == connection.execute(number).scalar())

    # Waking

    def wakeups(self, time: ServerClock) -> Wakeups:
        """By LISTEN."""
        return ListeningWakeups(self.listen, self.moment, time)

    def tell(self, driver: Driver, payload: str) -> None:
        """By NOTIFY."""
        driver.rows("SELECT pg_notify($1, $2)", [self._channel, payload])


def _check_query(query: str, where: str) -> None:
    for name, value in parse_qsl(query):
        if value not in _CHOICES.get(name, (value,)):
            raise ConfigurationError(f"{where}: {name}={value}: must be one of {', '.join(_CHOICES[name])}")
