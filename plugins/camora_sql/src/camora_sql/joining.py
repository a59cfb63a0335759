"""Publishing inside a transaction of the caller's own, on a connection or session of SQLAlchemy's."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from typing import Any

from camora.errors import CamoraError, ConfigurationError, EncodeError
from camora.message import Envelope
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, InvalidRequestError
from sqlalchemy.orm import Session, scoped_session

from camora_sql.dialects.base import Row
from camora_sql.errors import migrate_command, newer
from camora_sql.lengths import check_lengths
from camora_sql.opening import fits
from camora_sql.publishing import publish
from camora_sql.runner import Runner
from camora_sql.schema import HEAD
from camora_sql.statements import Builder
from camora_sql.statements.joining import hold, read_revision
from camora_sql.store import Store
from camora_sql.wakeup import Topic, payload_of

__all__ = ["publish_within"]

_TRIES = 3
"""Of what a deadlock has undone."""
_PAUSE = 0.05
"""Seconds, at most, before the second of them; twice as long before the third."""


async def publish_within(store: Store, given: Any, envelopes: Sequence[Envelope]) -> list[str]:
    """Publish on this connection; see `Broker.publish_within`. Waits only where `given` is asynchronous."""
    check_lengths(envelopes)

    def join(target: Any) -> list[str]:
        return _publish(store, _connection_of(target), envelopes)

    given = _unscoped(given)
    # Connections and sessions of SQLAlchemy's asyncio half, and nothing else, have it.
    run_sync = getattr(given, "run_sync", None)
    try:
        return join(given) if run_sync is None else await run_sync(join)
    except CamoraError:
        raise
    except DBAPIError as error:
        raise _explained(store, error) from error
    except InvalidRequestError as error:
        # SQLAlchemy's words: a transaction that has ended, a session without an engine, a connection not started.
        raise ConfigurationError(f"options(connection=…): nothing can be dispatched into {given!r}: {error}") from error
    except (OverflowError, UnicodeError) as error:
        raise EncodeError(f"a value of a message cannot be stored: {error}; nothing was enqueued") from error


def _unscoped(given: Any) -> Any:
    """The session that a scoped session stands for, here and now."""
    # Whoever has one of these has imported its module; others get by without it, and without greenlet.
    asyncio_half: Any = sys.modules.get("sqlalchemy.ext.asyncio")
    if isinstance(given, scoped_session) or (asyncio_half and isinstance(given, asyncio_half.async_scoped_session)):
        return given()
    return given


def _connection_of(given: Any) -> Connection:
    """The connection that a synchronous session works on, or itself."""
    if isinstance(given, Session):
        given = given.connection()
    if not isinstance(given, Connection):
        raise ConfigurationError(
            f"options(connection={given!r}): must be a Connection, Session, AsyncConnection or AsyncSession of "
            "SQLAlchemy, such as  with engine.begin() as connection: …"
        )
    if given.closed:
        raise ConfigurationError(f"options(connection={given!r}): it is closed; dispatch before its transaction ends")
    return given


def _publish(store: Store, connection: Connection, envelopes: Sequence[Envelope]) -> list[str]:
    if not store.dialect.speaks(connection.dialect.name):
        raise ConfigurationError(
            f"options(connection=…): that is a connection to {connection.dialect.name} ({connection.engine.url!r}), "
            f"and this app's jobs are in {store.dialect.label}; give a connection to that database"
        )
    borrowed = _Borrowed(store, connection, store.dialect.schema_on(connection))
    _check_revision(store, borrowed)
    # What is to be written is written under this lock, and what is read before is not older than it.
    borrowed.change(hold)
    if not store.dialect.in_transaction(connection):
        raise ConfigurationError(
            "options(connection=…): that connection commits each statement by itself (autocommit), so there is no "
            "transaction for the job to be part of; give one without isolation_level='AUTOCOMMIT'"
        )
    ids = _publish_part(store, borrowed, envelopes)
    if borrowed.announced and not store.dialect.tell_within(connection, payload_of(borrowed.announced)):
        _after_commit(connection, store.dialect.announce)
    return ids


def _publish_part(store: Store, borrowed: _Borrowed, envelopes: Sequence[Envelope]) -> list[str]:
    """All of it or nothing, also for a caller who catches the error and goes on."""
    for tries_left in reversed(range(_TRIES)):
        try:
            with borrowed.connection.begin_nested():
                return publish(borrowed, store, envelopes)
        except DBAPIError as error:
            if not tries_left or not store.dialect.may_repeat_part(_cause(error)):
                raise
            # Undone, it holds nothing any more that others wait for: they go first now. On a busy machine they need a
            # moment to wake up, and whoever is quicker than they are is in their way once more.
            longest = _PAUSE * (_TRIES - tries_left)
            store.dialect.pause_within(borrowed.connection, random.uniform(longest / 2, longest))  # noqa: S311 -- jitter
    raise AssertionError  # the loop above has no end of its own


def _check_revision(store: Store, borrowed: _Borrowed) -> None:
    dialect = store.dialect
    if not dialect.has_schema(borrowed.connection, borrowed.schema):
        raise ConfigurationError(
            f"options(connection=…): {dialect.label} has no tables of Camora that this transaction could see; make "
            f"them before it begins: async with app, or: {migrate_command(dialect)}"
        )
    revision = borrowed.rows(read_revision)[0][0]
    if fits(borrowed, revision):
        return
    if revision > HEAD:
        told = newer(dialect.label, revision)
        raise type(told)(f"options(connection=…): {told}")
    raise ConfigurationError(
        f"options(connection=…): the tables of Camora in {dialect.label} are of revision {revision}, and this "
        f"camora-sql works with {HEAD}; bring them up to date: {migrate_command(dialect)}"
    )


class _Borrowed(Runner):
    """Statements on a connection of the caller's. SQLAlchemy compiles them, for whatever driver that has."""

    def __init__(self, store: Store, connection: Connection, schema: str | None) -> None:
        self._statements = store.statements
        self.connection = connection
        self.schema = schema
        self.announced: set[Topic] = set()
        # Over any such map of the caller's: these tables are where they are.
        self._options: Any = {"schema_translate_map": {None: schema}}

    def _run(self, build: Builder, values: Sequence[Any], size: int) -> Any:
        statement, order = self._statements.shape(build, size)
        bound = dict(zip(order, values, strict=True))
        return self.connection.execute(statement, bound, execution_options=self._options)

    def rows(self, build: Builder, values: Sequence[Any] = (), size: int = 1) -> Sequence[Row]:
        """Run it; all its rows."""
        return [tuple(row) for row in self._run(build, values, size)]

    def change(self, build: Builder, values: Sequence[Any] = (), size: int = 1) -> int:
        """Run it; how many rows it changed."""
        return int(self._run(build, values, size).rowcount)

    def announce(self, topic: Topic) -> None:
        """Left to the caller's commit."""
        self.announced.add(topic)


def _after_commit(connection: Connection, announce: Callable[[], None]) -> None:
    """Call `announce` when this connection has committed.

    Not by SQLAlchemy's event, which comes before the commit: whoever is woken then looks too early. The commit itself
    is a method of what the pool has lent out, and so is what is put over it here: both end together.
    """
    lent: Any = connection.connection
    if "commit" in vars(lent):
        return  # by an earlier dispatch
    commit = lent.commit

    def commit_and_announce() -> None:
        commit()
        vars(lent).pop("commit", None)
        announce()

    lent.commit = commit_and_announce


def _explained(store: Store, error: DBAPIError) -> CamoraError:
    told = store.dialect.explain_joined(_cause(error))
    kind = type(told)
    return kind(f"options(connection=…): nothing was enqueued: {told}")


def _cause(error: DBAPIError) -> Exception:
    """What the driver said."""
    return error.orig if isinstance(error.orig, Exception) else error
