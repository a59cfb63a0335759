"""Looking into queues, and stopping things in them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, delete, func, literal_column, select, update

from camora_sql.dialects.base import Dialect
from camora_sql.schema import State, dead_letters, jobs, queues
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
    "set_paused",
    "some_ready",
    "some_scheduled",
]


def count_jobs(dialect: Dialect, size: int) -> Shape:
    """Messages by queue and state."""
    return select(jobs.c.queue, jobs.c.state, func.count()).group_by(jobs.c.queue, jobs.c.state), ()


def count_letters(dialect: Dialect, size: int) -> Shape:
    """Dead letters by queue."""
    return select(dead_letters.c.queue, func.count()).group_by(dead_letters.c.queue), ()


_SHOWN = (jobs.c.id, jobs.c.task, jobs.c.queue, jobs.c.state, jobs.c.due, jobs.c.deliveries, jobs.c.worker)


def find_job(dialect: Dialect, size: int) -> Shape:
    """One message, with its body."""
    return select(*_SHOWN, jobs.c.body).where(jobs.c.id == bindparam("id")), ("id",)


def list_jobs(dialect: Dialect, size: int) -> Shape:
    """A page of the messages of a queue."""
    page = select(*_SHOWN).where(jobs.c.queue == bindparam("queue"), jobs.c.id > bindparam("after"))
    return first(page.order_by(jobs.c.id)), ("queue", "after", "limit")


def read_for_cancel(dialect: Dialect, size: int) -> Shape:
    """Where a message lies that is to be cancelled."""
    columns = (jobs.c.seq, jobs.c.state, jobs.c.lease_until, jobs.c.key, jobs.c.key_ttl)
    return select(*columns).where(jobs.c.id == bindparam("id")), ("id",)


def flag(dialect: Dialect, size: int) -> Shape:
    """Ask a message's worker to cancel it."""
    return update(jobs).values(cancel=literal_column("1")).where(jobs.c.seq == bindparam("place")), ("place",)


def delete_jobs(dialect: Dialect, size: int) -> Shape:
    """Delete messages, whoever holds them."""
    return delete(jobs).where(one_of(jobs.c.seq, "seq", size)), names("seq", size)


def some_ready(dialect: Dialect, size: int) -> Shape:
    """Some messages of a queue that are ready."""
    return _some_of_queue(State.READY)


def some_scheduled(dialect: Dialect, size: int) -> Shape:
    """Some messages of a queue that are not due."""
    return _some_of_queue(State.SCHEDULED)


def _some_of_queue(state: int) -> Shape:
    found = select(jobs.c.seq, jobs.c.id, jobs.c.key, jobs.c.key_ttl)
    return first(found.where(state_is(state), jobs.c.queue == bindparam("queue"))), ("queue", "limit")


def set_paused(dialect: Dialect, size: int) -> Shape:
    """Pause a queue, or let it go on."""
    made: dict[str, Any] = {"name": bindparam("name"), "paused": bindparam("paused")}
    return dialect.upsert(queues, [made], key="name", change=("paused",)), ("name", "paused")


def paused_queues(dialect: Dialect, size: int) -> Shape:
    """Names of all paused queues."""
    return select(queues.c.name).where(queues.c.paused == literal_column("1")).order_by(queues.c.name), ()
