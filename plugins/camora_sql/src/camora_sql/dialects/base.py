"""The contract of a dialect: everything that one database does in another way than the others."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

from camora.clock import Clock
from camora.errors import CamoraError
from camora.interfaces import CheckResult
from sqlalchemy import ColumnElement, Connection, Insert, Select, Table
from sqlalchemy.engine import Dialect as Compiler

from camora_sql.schema import Tables
from camora_sql.timing import ServerClock
from camora_sql.wakeup import Wakeups

__all__ = ["Dialect", "Driver", "Need", "Row"]


class Need(enum.IntEnum):
    """What a power failure may do to a transaction that was committed."""

    NONE = 0
    """Undo it: nobody was told anything. Claims, extensions, pruning."""
    SETTLED = 1
    """Undo it unless the settings say otherwise: jobs that had ended run again."""
    KEPT = 2
    """Nothing: somebody relies on it."""


Row = Sequence[Any]


class Driver(Protocol):
    """A connection, as sessions use it: blocking, or in a greenlet of an event loop, which looks the same from here.

    Used by one thread or greenlet at a time. Raises the dialect's `driver_error`, and nothing else but what is not its
    own: `OverflowError` and `UnicodeError` for values that no database stores.
    """

    def rows(self, text: str, values: Sequence[Any] = ()) -> Sequence[Row]:
        """Run a statement; all its rows."""

    def change(self, text: str, values: Sequence[Any] = ()) -> int:
        """Run a statement; how many rows it changed."""

    def close(self) -> None:
        """Let go of it, in order."""

    def abort(self) -> None:
        """Let go of it at once, from anywhere, whatever it is doing."""


class Dialect(ABC):
    """One database, as an address and a way to speak. Immutable, made without I/O, used from any thread.

    The methods with a connection run in that connection's thread, and block.
    """

    name: str
    """`sqlite`, `postgresql`, `mariadb`, `mysql`."""
    tables: Tables
    blocking: bool
    """Whether its driver blocks, and needs a thread; else it runs in greenlets of an event loop."""
    url: str
    """The resolved address, without options: two brokers with equal ones share a store."""
    address: str
    """A URL of these very tables for others to use, such as commands; its secrets are masked."""
    label: str
    """How errors name the database: a path, or an address without secrets."""
    driver_error: type[Exception]
    """The root of what the driver raises."""
    moment: str = ""
    """A statement that tells the server's time, in milliseconds since the epoch, if its clock counts."""
    notifies: bool = True
    """Whether a server tells listeners of news, over connections."""
    tells_stored: bool = False
    """Whether an insertion can tell which rows it has stored."""
    joins_found: bool = False
    """Whether a statement that changes what a look finds must join it, because it may not contain it."""

    @abstractmethod
    def compiler(self) -> Compiler:
        """SQLAlchemy's half of the dialect, with a positional style of parameters."""

    def speaks(self, name: str) -> bool:
        """Whether a connection of SQLAlchemy's dialect of this name may be one to such a database."""
        return name == self.compiler().name

    @abstractmethod
    def insert_new(self, table: Table, values: Sequence[dict[str, Any]]) -> Insert:
        """Insert rows; those that clash with what is there are passed over."""

    @abstractmethod
    def upsert(
        self,
        table: Table,
        values: Sequence[dict[str, Any]],
        *,
        key: str | tuple[str, ...],
        change: Sequence[str],
        where: ColumnElement[bool] | None = None,
    ) -> Insert:
        """Insert rows; one whose `key` is there changes these columns, if the row that is there fits `where`."""

    def current(self, found: Select[Any]) -> Select[Any]:
        """Read a row that this transaction has locked, as it is now, whatever the transaction saw before."""
        return found

    @abstractmethod
    def connect(self) -> Driver:
        """A new connection, in autocommit. Raises driver errors and `ConfigurationError`."""

    @abstractmethod
    def pause(self, seconds: float) -> None:
        """Sleep, in the way of its driver."""

    @abstractmethod
    def flushes(self, need: Need) -> bool:
        """Whether a transaction of this need waits for the disk, by the settings."""

    @abstractmethod
    def begin(self, driver: Driver, *, need: Need) -> None:
        """Begin a transaction that will write, and that is to be as durable as it needs to be."""

    @abstractmethod
    def ready(self, driver: Driver, *, need: Need) -> None:
        """Prepare for one statement that is a transaction by itself."""

    def deferring(self, driver: Driver) -> AbstractContextManager[None]:
        """Changes of which nobody asks how many rows they changed: they may travel with what is asked next."""
        return nullcontext()

    @abstractmethod
    def commit(self, driver: Driver) -> None:
        """Make it stand."""

    @abstractmethod
    def rollback(self, driver: Driver) -> None:
        """Undo it; does nothing where the database has undone it already, or the connection is gone."""

    @abstractmethod
    def lock(self, driver: Driver, what: str) -> None:
        """Be the only one, until the end of the transaction, of those who lock the same."""

    @abstractmethod
    def is_busy(self, error: Exception) -> bool:
        """Whether others were in the way, so that the same step may work a moment later."""

    @abstractmethod
    def is_garbled(self, error: Exception) -> bool:
        """Whether the driver could not read a value of a row."""

    @abstractmethod
    def breaks_connection(self, error: Exception) -> bool:
        """Whether the connection is in doubt, and must not be used again."""

    @abstractmethod
    def unclear(self, error: Exception) -> bool:
        """Whether a commit that failed so may have happened all the same."""

    @abstractmethod
    def explain(self, error: Exception, *, opening: bool) -> CamoraError:
        """The error as users shall see it: what happened to which database, and what to do.

        A `ConfigurationError` for a set-up that is wrong when `opening`, else `BrokerUnavailable`.
        """

    def explain_making(self, error: Exception) -> str | None:
        """What else there is to say of an error that came while tables were made or changed; None for nothing."""
        return None

    @abstractmethod
    def explain_joined(self, error: Exception) -> CamoraError:
        """The same for an error on a connection of the caller's, whose transaction it is."""

    def may_repeat_part(self, error: Exception) -> bool:
        """Whether a part of a transaction of the caller's, undone by itself, may work when it is done once more."""
        return False

    def pause_within(self, connection: Any, seconds: float) -> None:  # noqa: B027 -- where no part may be repeated
        """Wait inside a transaction of the caller's, whose event loop goes on if it has one."""

    @abstractmethod
    def tolerate(self, driver: Driver, *, garbled: bool) -> None:
        """Read texts that are no texts as far as can be (`garbled`), or refuse them with an error."""

    @abstractmethod
    def exists(self) -> bool:
        """Whether the database is there already, without making it."""

    @abstractmethod
    def revision(self, driver: Driver) -> str | None:
        """The schema's revision; None where there is none."""

    def change_schema(self, driver: Driver, texts: Sequence[str], step: str) -> None:
        """Run statements that change the schema, in a transaction; `step` names what they lead to.

        Where such statements commit themselves, it goes on after those that were run before.
        """
        for text in texts:
            driver.change(text)

    def routines(self) -> Sequence[str]:
        """Statements that make what there is beside the tables."""
        return ()

    @abstractmethod
    def examinations(self, section: str) -> Mapping[str, Callable[[], CheckResult]]:
        """What `camora doctor` looks at, by the names in `camora_sql.checks`. Each blocks, and changes nothing.

        `section` is that of the settings which name this database.
        """

    # On a connection of SQLAlchemy's, which is the caller's

    @abstractmethod
    def schema_on(self, connection: Connection) -> str | None:
        """The schema by whose name this connection knows this very database; None: it needs none.

        Raises `ConfigurationError` when it is a connection to another one.
        """

    @abstractmethod
    def has_schema(self, connection: Connection, schema: str | None) -> bool:
        """Whether it sees the tables there."""

    @abstractmethod
    def tell_within(self, connection: Connection, payload: str) -> bool:
        """Have it announced with the commit of its transaction; False where only this process can do it, afterwards."""

    @abstractmethod
    def in_transaction(self, connection: Connection) -> bool:
        """Whether what it has begun to write awaits a commit."""

    # Time and waking

    @abstractmethod
    def lease_clock(self, clock: Clock) -> int:
        """Milliseconds on a clock that all workers of this database share and nobody sets.

        Asked of those databases only that have no clock of their own.
        """

    @abstractmethod
    def lease_epoch(self) -> str:
        """Names the run of the lease clock: leases of another epoch are over. Empty where it never starts anew."""

    @abstractmethod
    def tell(self, driver: Driver, payload: str) -> None:
        """Send this to whoever listens, where there is a way over connections."""

    @abstractmethod
    def announce(self) -> None:
        """Tell whoever watches this database that a commit may concern them. Cheap, and allowed to fail silently."""

    @abstractmethod
    def wakeups(self, time: ServerClock) -> Wakeups:
        """A watcher for announcements, unstarted; it may tell the clock what it learns on the way."""
