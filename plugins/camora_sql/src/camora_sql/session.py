"""One driver connection, in one thread: statements, transactions, patience with other writers."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from camora_sql.dialects.base import DriverConnection, Need
from camora_sql.errors import CommitUnclear, Garbled
from camora_sql.runner import Row, Runner
from camora_sql.statements import Builder
from camora_sql.store import Store

__all__ = ["Session"]

R = TypeVar("R")


class Session(Runner):
    """A connection that is made when it is first needed, and again after it broke. Used in one thread only.

    Each connection is `prepare`d before it is used: the database may have been replaced since the last one.

    Driver errors never leave it: they come out as `BrokerUnavailable`, or `ConfigurationError` while opening.
    """

    def __init__(
        self, store: Store, *, patience: float | None = None, prepare: Callable[[Session], None] | None = None
    ) -> None:
        self._store = store
        self._prepare = prepare
        self._dialect = store.dialect
        self._patience = store.settings.busy_timeout if patience is None else patience
        self._connection: DriverConnection | None = None
        self._cursor: Any = None
        self._announced = False

    # Statements

    def rows(self, build: Builder, values: Sequence[Any] = (), size: int = 1) -> list[Row]:
        """Run it; all its rows."""
        try:
            self._cursor.execute(self._store.statements(build, size), values)
            found: list[Row] = self._cursor.fetchall()
        except self._dialect.driver_error as error:
            if self._dialect.is_garbled(error):
                raise Garbled(str(error)) from error
            raise
        return found

    def change(self, build: Builder, values: Sequence[Any] = (), size: int = 1) -> int:
        """Run it; how many rows it changed."""
        cursor = self._cursor
        cursor.execute(self._store.statements(build, size), values)
        count: int = cursor.rowcount
        return count

    def savepoint(self, work: Callable[[], bool]) -> bool:
        """Run part of a transaction; undo that part if it answers False."""
        cursor = self._cursor
        cursor.execute("SAVEPOINT part")
        kept = work()
        if not kept:
            cursor.execute("ROLLBACK TO part")
        cursor.execute("RELEASE part")
        return kept

    def announce(self) -> None:
        """Once this transaction stands, wake whoever waits for messages or results."""
        self._announced = True

    # Transactions

    def read(self, work: Callable[[Session], R]) -> R:
        """Run statements that only read; each sees the newest state."""
        return self._patiently(lambda: work(self))

    def write(self, work: Callable[[Session], R], need: Need = Need.KEPT, *, patience: float | None = None) -> R:
        """Run a transaction; `work` may run more than once, and only the last run counts.

        Waits for other writers for as long as the session does, or for `patience` seconds.

        Raises `CommitUnclear` when it may have happened, `BrokerUnavailable` when it did not. Values that no database
        can store come out as the `OverflowError` or `UnicodeError` they are.
        """
        return self._patiently(lambda: self._transaction(work, need), patience)

    def _transaction(self, work: Callable[[Session], R], need: Need) -> R:
        dialect, connection = self._dialect, self._connection
        assert connection is not None
        self._announced = False
        dialect.begin(connection, need=need)
        try:
            answer = work(self)
        except BaseException:
            dialect.rollback(connection)
            raise
        try:
            dialect.commit(connection)
        except dialect.driver_error as error:
            unclear = dialect.unclear(error)
            if unclear:
                raise CommitUnclear(str(dialect.explain(error, opening=False))) from error
            dialect.rollback(connection)
            raise
        if self._announced:
            dialect.announce()
        return answer

    def _patiently(self, step: Callable[[], R], patience: float | None = None) -> R:
        dialect = self._dialect
        deadline = time.monotonic() + (self._patience if patience is None else patience)
        pause = 0.0003
        while True:
            try:
                if self._connection is None:
                    self._connect()
                return step()
            except CommitUnclear:
                self.close()
                raise
            except dialect.driver_error as error:
                opening = self._connection is None
                if opening or dialect.breaks_connection(error):
                    self.close()
                if not dialect.is_busy(error) or time.monotonic() >= deadline:
                    raise dialect.explain(error, opening=opening) from error
            # Own pauses, not the driver's: short at first, and by chance, so that no process is starved.
            time.sleep(random.uniform(pause / 2, pause))  # noqa: S311 -- jitter
            pause = min(pause * 1.6, 0.025)

    # Life

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, and nothing has put it in doubt."""
        return self._connection is not None

    @property
    def connection(self) -> DriverConnection:
        """The raw connection, for migrations."""
        if self._connection is None:
            self._connect()
        assert self._connection is not None
        return self._connection

    def tolerating(self, work: Callable[[], R]) -> R:
        """Run something that reads rows, with texts that are no texts read as far as can be."""
        dialect, connection = self._dialect, self._connection
        assert connection is not None
        dialect.tolerate(connection, garbled=True)
        try:
            return work()
        finally:
            dialect.tolerate(connection, garbled=False)

    def _connect(self) -> None:
        self._connection = self._dialect.connect()
        self._cursor = self._connection.cursor()
        if self._prepare is not None:
            try:
                self._prepare(self)
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Let go of the connection; the next use makes another one."""
        connection, self._connection, self._cursor = self._connection, None, None
        if connection is not None:
            with contextlib.suppress(self._dialect.driver_error):  # it may have been in doubt already
                connection.close()
