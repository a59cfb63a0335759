"""Looking into queues, and stopping things in them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, bindparam, delete, func, literal_column, select, update

from camora_sql.dialects.base import Dialect
from camora_sql.schema import State, Tables
from camora_sql.statements.lending import UNLENT
from camora_sql.statements.parts import Shape, first, names, one_of, state_is

__all__ = [
    "count_jobs",
    "count_letters",
    "delete_jobs",
    "find_job",
    "flag",
    "list_jobs",
    "paused_queues",
    "read_for_cancel",
    "reschedule",
    "set_paused",
    "some_ready",
    "some_scheduled",
]


def count_jobs(dialect: Dialect, size: int) -> Shape:
    """Messages by queue and state."""
    t = dialect.tables
    return select(t.jobs.c.queue, t.jobs.c.state, func.count()).group_by(t.jobs.c.queue, t.jobs.c.state), ()


def count_letters(dialect: Dialect, size: int) -> Shape:
    """Dead letters by queue."""
    t = dialect.tables
    return select(t.dead_letters.c.queue, func.count()).group_by(t.dead_letters.c.queue), ()


def _shown(t: Tables) -> list[Column[Any]]:
    return [t.jobs.c[name] for name in ("id", "task", "queue", "state", "due", "deliveries", "worker")]


def find_job(dialect: Dialect, size: int) -> Shape:
    """One message, with its body."""
    t = dialect.tables
    return select(*_shown(t), t.jobs.c.body).where(t.jobs.c.id == bindparam("id")), ("id",)


def list_jobs(dialect: Dialect, size: int) -> Shape:
    """A page of the messages of a queue."""
    t = dialect.tables
    page = select(*_shown(t)).where(t.jobs.c.queue == bindparam("queue"), t.jobs.c.id > bindparam("after"))
    return first(page.order_by(t.jobs.c.id)), ("queue", "after", "limit")


def read_for_cancel(dialect: Dialect, size: int) -> Shape:
    """Where a message lies that is to be cancelled."""
    t = dialect.tables
    columns = (t.jobs.c.seq, t.jobs.c.state, t.jobs.c.lease_until, t.jobs.c.key, t.jobs.c.key_ttl)
    return select(*columns).where(t.jobs.c.id == bindparam("id")).with_for_update(), ("id",)


def flag(dialect: Dialect, size: int) -> Shape:
    """Ask a message's worker to cancel it."""
    t = dialect.tables
    return update(t.jobs).values(cancel=literal_column("1")).where(t.jobs.c.seq == bindparam("place")), ("place",)


def reschedule(dialect: Dialect, size: int) -> Shape:
    """Have a message due at another moment; nobody holds it from then on."""
    t = dialect.tables
    moved = {"state": bindparam("new_state"), "due": bindparam("new_due"), **UNLENT}
    return update(t.jobs).values(moved).where(t.jobs.c.seq == bindparam("place")), ("new_state", "new_due", "place")


def delete_jobs(dialect: Dialect, size: int) -> Shape:
    """Delete messages, whoever holds them."""
    t = dialect.tables
    return delete(t.jobs).where(one_of(t.jobs.c.seq, "seq", size)), names("seq", size)


def some_ready(dialect: Dialect, size: int) -> Shape:
    """Some messages of a queue that are ready."""
    return _some_of_queue(dialect.tables, State.READY)


def some_scheduled(dialect: Dialect, size: int) -> Shape:
    """Some messages of a queue that are not due."""
    return _some_of_queue(dialect.tables, State.SCHEDULED)


def _some_of_queue(t: Tables, state: int) -> Shape:
    found = select(t.jobs.c.seq, t.jobs.c.id, t.jobs.c.key, t.jobs.c.key_ttl)
    found = found.where(state_is(t, state), t.jobs.c.queue == bindparam("queue"))
    return first(found).with_for_update(skip_locked=True), ("queue", "limit")


def set_paused(dialect: Dialect, size: int) -> Shape:
    """Pause a queue, or let it go on."""
    t = dialect.tables
    made: dict[str, Any] = {"name": bindparam("name"), "paused": bindparam("paused")}
    return dialect.upsert(t.queues, [made], key="name", change=("paused",)), ("name", "paused")


def paused_queues(dialect: Dialect, size: int) -> Shape:
    """Names of all paused queues."""
    t = dialect.tables
    return select(t.queues.c.name).where(t.queues.c.paused == literal_column("1")).order_by(t.queues.c.name), ()
