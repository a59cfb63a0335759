"""Changing Camora's tables in a transaction of Django's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import attrs
import msgspec
from camora.errors import CamoraError, ConfigurationError, DispatchUncertain, EncodeError
from camora.message import Envelope
from camora_sql.lengths import check_lengths
from camora_sql.opening import fits
from camora_sql.procedures import Procedures
from camora_sql.schema import HEAD
from camora_sql.statements.joining import hold
from camora_sql.store import Store
from camora_sql.wakeup import payload_of
from django.db import Error, connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from camora_django.statements import DjangoRunner

__all__ = ["Within", "change", "explained", "publish"]

R = TypeVar("R")


@attrs.frozen
class Within:
    """Where to publish: an alias stands for its connection in the thread that publishes.

    `priority` is that of the messages, whatever they say themselves.
    """

    where: BaseDatabaseWrapper | str
    priority: int | None = None

    @property
    def connection(self) -> BaseDatabaseWrapper:
        """Here and now."""
        return connections[self.where] if isinstance(self.where, str) else self.where


def publish(procedures: Procedures, within: Within, envelopes: Sequence[Envelope]) -> Sequence[str]:
    """Publish in the transaction that is open on this connection, or in one of its own; the id that stands for each.

    In the thread of that connection; blocks. Raises `ConfigurationError` where the tables are missing or of another
    release, `EncodeError`, `BrokerUnavailable`, and `DispatchUncertain` when a commit of its own may have happened.
    """
    check_lengths(envelopes)
    if within.priority is not None:
        envelopes = [msgspec.structs.replace(envelope, priority=within.priority) for envelope in envelopes]
    connection = within.connection
    inside = connection.in_atomic_block
    raw: Any = None

    def work(runner: Any) -> Sequence[str]:
        nonlocal raw
        # It runs what a session of camora-sql runs, and is one as far as publishing goes.
        ids = procedures.publish(runner, envelopes)
        raw = connection.connection
        return ids

    try:
        return change(procedures.store, connection, work)
    except (OverflowError, UnicodeError, ValueError) as error:
        raise EncodeError(f"a value of a message cannot be stored: {error}; nothing was enqueued") from error
    except CamoraError as error:
        if inside or raw is None or (connection.connection is raw and connection.is_usable()):
            raise
        # All was done but the commit, and its answer was lost with the connection.
        job_id = envelopes[0].id
        raise DispatchUncertain(
            f"{error}. The job may be enqueued; dispatching again with job_id={job_id!r} cannot double it",
            job_id=job_id,
        ) from error


def change(store: Store, connection: BaseDatabaseWrapper, work: Callable[[DjangoRunner], R]) -> R:
    """Run `work` in the transaction that is open on this connection, or in one of its own: all of it, or nothing.

    Workers are woken by the commit. Raises `CamoraError`s, and Django's `TransactionManagementError` where the
    transaction is broken already.
    """
    runner = DjangoRunner(store, connection)
    try:
        with transaction.atomic(using=connection.alias):
            if store.dialect.blocking:
                _begin_to_write(store, runner, connection.alias)
            _check_revision(store, runner, connection.alias)
            answer = work(runner)
            _announce(store, runner, connection.alias)
            return answer
    except transaction.TransactionManagementError:
        raise  # Django's own word for a transaction that is broken already
    except Error as error:
        raise explained(store, connection.alias, error) from error


def _begin_to_write(store: Store, runner: DjangoRunner, alias: str) -> None:
    """Become SQLite's one writer before anything is read: who has read already cannot write once others have."""
    try:
        runner.change(hold)
    except Error:
        _check_revision(store, runner, alias)  # the tables are missing, perhaps
        raise


def _announce(store: Store, runner: DjangoRunner, alias: str) -> None:
    if not runner.announced:
        return
    if store.dialect.blocking:
        transaction.on_commit(store.dialect.announce, using=alias)
    else:
        store.dialect.tell(runner.driver, payload_of(runner.announced))


def _check_revision(store: Store, runner: DjangoRunner, alias: str) -> None:
    revision = store.dialect.revision(runner.driver)
    if revision is None:
        raise ConfigurationError(
            f"the database {alias!r} has no tables of Camora: python manage.py migrate  (or --database={alias})"
        )
    if not fits(runner, revision):
        raise ConfigurationError(
            f"the tables of Camora in the database {alias!r} are of revision {revision}, and this camora-sql works "
            f"with {HEAD}; bring both up to date, then: python manage.py migrate"
        )


def explained(store: Store, alias: str, error: Error) -> CamoraError:
    """What the database said over this connection, in Camora's words."""
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    told = store.dialect.explain_joined(cause)
    return type(told)(f"Django's connection {alias!r}, {told}")
