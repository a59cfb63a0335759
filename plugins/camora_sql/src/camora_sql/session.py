"""One driver connection, in one thread: statements, transactions, patience with other writers."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from camora.errors import BrokerUnavailable

from camora_sql.dialects.base import Driver, Need, Row
from camora_sql.errors import CommitUnclear, Garbled
from camora_sql.runner import Runner
from camora_sql.statements import Builder
from camora_sql.store import Store
from camora_sql.wakeup import Topic, payload_of

__all__ = ["Session"]

R = TypeVar("R")


class Session(Runner):
    """A connection that is made when it is first needed, and again after it broke. Used in one thread only.

    Each connection is `prepare`d before it is used: the database may have been replaced since the last one.

    Driver errors never leave it: they come out as `BrokerUnavailable`, or `ConfigurationError` while its store has not
    worked yet.
    """

    def __init__(
        self, store: Store, *, patience: float | None = None, prepare: Callable[[Session], None] | None = None
    ) -> None:
        self._store = store
        self._prepare = prepare
        self._dialect = store.dialect
        self._patience = store.settings.busy_timeout if patience is None else patience
        self._driver: Driver | None = None
        self._preparing = False
        self._pending: set[Topic] = set()
        self.news: set[Topic] = set()
        """What was announced by transactions that stand; whoever passes it on takes it out."""

    # Statements

    def rows(self, build: Builder, values: Sequence[Any] = (), size: int = 1) -> Sequence[Row]:
        """Run it; all its rows."""
        text, picks = self._store.statements(build, size)
        try:
            return self._live.rows(text, values if picks is None else [values[place] for place in picks])
        except self._dialect.driver_error as error:
            if self._dialect.is_garbled(error):
                raise Garbled(str(error)) from error
            raise

    def change(self, build: Builder, values: Sequence[Any] = (), size: int = 1) -> int:
        """Run it; how many rows it changed."""
        text, picks = self._store.statements(build, size)
        return self._live.change(text, values if picks is None else [values[place] for place in picks])

    def call(self, text: str, values: Sequence[Any]) -> Sequence[Row]:
        """Run a statement in the database's own words; all its rows."""
        return self._live.rows(text, values)

    def flushes(self, need: Need) -> bool:
        """Whether a transaction of this need waits for the disk."""
        return self._dialect.flushes(need)

    def savepoint(self, work: Callable[[], bool]) -> bool:
        """Run part of a transaction; undo that part if it answers False."""
        driver = self._live
        driver.change("SAVEPOINT part")
        kept = work()
        if not kept:
            driver.change("ROLLBACK TO SAVEPOINT part")
        driver.change("RELEASE SAVEPOINT part")
        return kept

    def deferring(self) -> AbstractContextManager[None]:
        """Within it, nobody asks how many rows are changed: what changes them may travel with what is asked next."""
        return self._dialect.deferring(self._live)

    def lock(self, what: str) -> None:
        """Be the only one, until the end of this transaction, of those who lock the same."""
        self._dialect.lock(self._live, what)

    def ask_time(self) -> None:
        """Have the store's clock learn what time it is at the server, where that is the one that counts."""
        if self._dialect.blocking:
            return

        def ask(session: Session) -> None:
            time = self._store.time
            sent = time.local_ms()
            [(server,)] = session._live.rows(self._dialect.moment)
            time.learn(float(server), sent, time.local_ms())

        self._patiently(lambda: ask(self))

    def tell(self, news: Iterable[Topic]) -> None:
        """Tell whoever listens to the database."""
        self._dialect.tell(self.driver, payload_of(news))

    def announce(self, topic: Topic) -> None:
        """Once this transaction stands, wake whoever waits for such news."""
        self._pending.add(topic)

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

    def once(self, work: Callable[[Session], R], need: Need = Need.KEPT, *, patience: float | None = None) -> R:
        """Run one statement that is a transaction by itself, and that may be repeated: it is, while that helps.

        Waits for other writers for as long as the session does, or for `patience` seconds.

        Raises `CommitUnclear` when it may have happened, `BrokerUnavailable` when it did not.
        """
        unclear = False

        def step() -> R:
            nonlocal unclear
            self._dialect.ready(self._live, need=need)
            self._pending.clear()
            try:
                answer = work(self)
            except self._dialect.driver_error as error:
                unclear = unclear or self._dialect.unclear(error)
                raise
            self._announce()
            return answer

        try:
            return self._patiently(step, patience)
        except BrokerUnavailable as error:
            if unclear:
                raise CommitUnclear(str(error)) from error
            raise

    def _transaction(self, work: Callable[[Session], R], need: Need) -> R:
        dialect, driver = self._dialect, self._live
        self._pending.clear()
        dialect.begin(driver, need=need)
        try:
            answer = work(self)
        except BaseException:
            dialect.rollback(driver)
            raise
        try:
            dialect.commit(driver)
        except dialect.driver_error as error:
            unclear = dialect.unclear(error)
            if unclear:
                raise CommitUnclear(str(dialect.explain(error, opening=False))) from error
            dialect.rollback(driver)
            raise
        self._announce()
        return answer

    def _announce(self) -> None:
        if self._pending:
            self._dialect.announce()
            self.news |= self._pending

    def _patiently(self, step: Callable[[], R], patience: float | None = None) -> R:
        dialect = self._dialect
        deadline = time.monotonic() + (self._patience if patience is None else patience)
        pause = 0.0003
        while True:
            try:
                if self._driver is None:
                    self._connect()
                return step()
            except CommitUnclear:
                self.close()
                raise
            except dialect.driver_error as error:
                connecting = self._driver is None
                opening = (connecting or self._preparing) and not self._store.proven
                broken = connecting or dialect.breaks_connection(error)
                if broken:
                    self.close()
                if not dialect.is_busy(error) or time.monotonic() >= deadline:
                    raise dialect.explain(error, opening=opening) from error
            # Own pauses, not the driver's: short at first, and by chance, so that no process is starved.
            dialect.pause(random.uniform(pause / 2, pause))  # noqa: S311 -- jitter
            pause = min(pause * 1.6, 0.25 if broken else 0.025)

    # Life

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection, and nothing has put it in doubt."""
        return self._driver is not None

    @property
    def _live(self) -> Driver:
        assert self._driver is not None
        return self._driver

    @property
    def driver(self) -> Driver:
        """The raw connection, for migrations."""
        if self._driver is None:
            self._connect()
        return self._live

    def tolerating(self, work: Callable[[], R]) -> R:
        """Run something that reads rows, with texts that are no texts read as far as can be."""
        dialect, driver = self._dialect, self._live
        dialect.tolerate(driver, garbled=True)
        try:
            return work()
        finally:
            dialect.tolerate(driver, garbled=False)

    def _connect(self) -> None:
        self._driver = self._dialect.connect()
        if self._prepare is not None:
            self._preparing = True
            try:
                self._prepare(self)
            except BaseException:
                self.close()
                raise
            finally:
                self._preparing = False
            self._store.proven = True

    def close(self) -> None:
        """Let go of the connection; the next use makes another one."""
        driver, self._driver = self._driver, None
        if driver is not None:
            with contextlib.suppress(self._dialect.driver_error):  # it may have been in doubt already
                driver.close()

    def abort(self) -> None:
        """Let go of the connection at once, from anywhere."""
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.abort()
