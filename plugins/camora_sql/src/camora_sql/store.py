"""One database as brokers and result backends use it: address, statements, settings and clock. No I/O."""

from __future__ import annotations

from camora.clock import SYSTEM_CLOCK, Clock
from camora.errors import ConfigurationError

from camora_sql.dialects.base import Dialect
from camora_sql.dialects.sqlite import SqliteDialect
from camora_sql.settings import SqlSettings, split_url
from camora_sql.statements import Statements

__all__ = ["Store", "dialect_for"]

_DIALECTS: dict[str, type[SqliteDialect]] = {"sqlite": SqliteDialect, "sqlite+pysqlite": SqliteDialect}


def dialect_for(url: str, settings: SqlSettings) -> Dialect:
    """The dialect that a URL without options asks for. Raises `ConfigurationError`."""
    scheme = url.partition("://")[0]
    kind = _DIALECTS.get(scheme)
    if kind is None:
        raise ConfigurationError(
            f"camora-sql does not know the scheme {scheme!r}; it has {', '.join(sorted(_DIALECTS))}: sqlite:///camora.db"
        )
    return kind(url, settings)


class Store:
    """What twins share. Immutable after its making, safe in any thread."""

    def __init__(self, url: str, settings: SqlSettings | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        bare, self.settings = split_url(url, settings)
        self.dialect = dialect_for(bare, self.settings)
        self.statements = Statements(self.dialect)
        self.clock = clock

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return self.clock.now_ms()

    def lease_now(self) -> int:
        """Milliseconds on the clock of leases."""
        return self.dialect.lease_clock(self.clock)
