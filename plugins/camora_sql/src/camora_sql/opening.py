"""What happens when a database is opened: its schema is looked at, made or refused, and stale leases end."""

from __future__ import annotations

from collections.abc import Callable

from camora.errors import BrokerUnavailable, ConfigurationError

from camora_sql import statements
from camora_sql.runner import Runner
from camora_sql.schema import HEAD, WORKS_WITH
from camora_sql.session import Session
from camora_sql.store import Store

__all__ = ["begin_epoch", "fits", "prepare"]

_EPOCH = "lease_epoch"
_SHORT = 0.1
"""Seconds for what can be done later, too."""


def prepare(session: Session, store: Store) -> None:
    """Make the database ready for use. Safe when many processes do it at the same moment.

    Raises `ConfigurationError` for a schema of a newer camora-sql, `BrokerUnavailable` when the database is not there.
    """
    session.ask_time()
    revision = session.read(lambda session: store.dialect.revision(session.driver))
    if revision is None:
        # Imported only where there is something to do: most starts find nothing.
        from camora_sql.creating import create

        _change(session, store, create)
    elif revision != HEAD and not session.read(lambda session: fits(session, revision)):
        from camora_sql.migrating import migrate

        _change(session, store, migrate)
    try:
        # Not waited for: a program that holds a transaction of its own, and only publishes, has no use for it.
        begin_epoch(session, store, patience=_SHORT)
    except BrokerUnavailable:
        if not session.is_connected:
            raise


def _change(session: Session, store: Store, change: Callable[[Session, Store], object]) -> None:
    try:
        change(session, store)
    except (BrokerUnavailable, ConfigurationError) as error:
        cause = error.__cause__
        told = store.dialect.explain_making(cause) if isinstance(cause, Exception) else None
        if told is None:
            raise
        raise type(error)(told) from cause


def fits(session: Runner, revision: str) -> bool:
    """Whether this code works with tables of a revision.

    That of a newer version of this package, which has been here during a deploy perhaps, may have left what we know.
    """
    if revision <= HEAD:
        return revision == HEAD
    rows = session.rows(statements.read_fact, WORKS_WITH[:1])
    return bool(rows) and str(rows[0][0]) <= HEAD


def begin_epoch(session: Session, store: Store, *, patience: float | None = None) -> None:
    """End what is left of the time before this machine was started, if nobody has: leases, slots, workers.

    Whoever lends out must have done it. Raises `BrokerUnavailable` when others write for longer than `patience`
    seconds.
    """
    epoch = store.dialect.lease_epoch()
    if epoch and session.read(_epoch) != epoch:
        session.write(lambda session: _begin(session, store, epoch), patience=patience)


def _epoch(session: Session) -> str | None:
    rows = session.rows(statements.read_fact, (_EPOCH,))
    return str(rows[0][0]) if rows else None


def _begin(session: Session, store: Store, epoch: str) -> None:
    if _epoch(session) == epoch:
        return  # another process was quicker
    # Imported only where there is something to do, as above.
    from camora_sql import counting
    from camora_sql.statements import workers

    # The machine was started anew: whoever held a lease is gone, and its clock began again.
    session.change(statements.end_leases)
    counting.begin_anew(session, store.lease_now())
    session.change(workers.end_workers)
    session.change(workers.end_orders)
    session.change(statements.write_fact, (_EPOCH, epoch))
