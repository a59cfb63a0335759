"""One database as brokers and result backends use it: address, statements, settings and clock. No I/O."""

from __future__ import annotations

from typing import Any

from camora.clock import SYSTEM_CLOCK, Clock
from camora.errors import ConfigurationError
from camora.settings import mask_url

from camora_sql.dialects.base import Dialect
from camora_sql.per_loop import PerLoop
from camora_sql.settings import SqlSettings, split_url
from camora_sql.statements import Statements
from camora_sql.timing import ServerClock

__all__ = ["Store", "dialect_for"]


def dialect_for(url: str, settings: SqlSettings | None) -> tuple[Dialect, SqlSettings]:
    """The dialect that a URL asks for, and the settings with those of the URL. Raises `ConfigurationError`."""
    scheme = url.partition("://")[0]
    family, _, driver = scheme.partition("+")
    # A dialect is imported when its scheme is used: the driver of the others need not be installed.
    if family == "sqlite" and driver in ("", "pysqlite"):
        from camora_sql.dialects.sqlite import SqliteDialect

        bare, settings = split_url(url, settings)
        return SqliteDialect(bare, settings), settings
    if family in ("postgresql", "postgres") and driver in ("", "asyncpg", "psycopg"):
        from camora_sql.dialects.postgresql import PostgresqlDialect

        bare, settings = split_url(url, settings, keep_others=True)
        return PostgresqlDialect(bare, settings), settings
    if family in ("mysql", "mariadb") and driver in ("", "asyncmy"):
        from camora_sql.dialects.mysql import MysqlDialect

        bare, settings = split_url(url, settings, keep_others=True)
        return MysqlDialect(bare, settings), settings
    raise ConfigurationError(
        f"camora-sql does not know the scheme {scheme!r} of {mask_url(url)}; write sqlite:///camora.db, "
        "postgresql://user:password@host/database (or postgresql+psycopg://…), or mysql://… or mariadb://…"
    )


class Store:
    """What twins share. Safe in any thread."""

    def __init__(self, url: str, settings: SqlSettings | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.dialect, self.settings = dialect_for(url, settings)
        self.statements = Statements(self.dialect)
        self.clock = clock
        self.time = ServerClock(clock)
        self.proven = False
        """It has worked before: what is refused from here on is a fault that may pass, and no mistake of the set-up."""
        self.shared: PerLoop[Any] = PerLoop()
        """What the links of one event loop share."""

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return self.clock.now_ms() if self.dialect.blocking else self.time.now_ms()

    def lease_now(self) -> int:
        """Milliseconds on the clock of leases."""
        return self.dialect.lease_clock(self.clock) if self.dialect.blocking else self.time.now_ms()
