"""Storing messages, once for each id and key."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, delete, literal_column, or_, select, union_all, update

from camora_sql.dialects.base import Dialect
from camora_sql.statements.parts import Shape, names, one_of, rows

__all__ = [
    "JOB_COLUMNS",
    "delete_by_id",
    "free_key",
    "holder_of_key",
    "insert_and_tell",
    "insert_jobs",
    "is_job",
    "is_over",
    "keep_key",
    "retake_key",
    "take_key",
]

JOB_COLUMNS = ("id", "queue", "state", "priority", "due", "expires", "key", "key_ttl", "task", "body")


def insert_jobs(dialect: Dialect, size: int) -> Shape:
    """New messages; one whose id is there already is passed over."""
    t = dialect.tables
    values, order = rows(t.jobs, size, JOB_COLUMNS)
    return dialect.insert_new(t.jobs, values), order


def insert_and_tell(dialect: Dialect, size: int) -> Shape:
    """The same; the ids of those that were not passed over."""
    t = dialect.tables
    values, order = rows(t.jobs, size, JOB_COLUMNS)
    return dialect.insert_new(t.jobs, values).returning(t.jobs.c.id), order


def is_job(dialect: Dialect, size: int) -> Shape:
    """Which of these ids are unfinished."""
    t = dialect.tables
    return select(t.jobs.c.id).where(one_of(t.jobs.c.id, "id", size)), names("id", size)


def delete_by_id(dialect: Dialect, size: int) -> Shape:
    """Delete messages by their ids."""
    t = dialect.tables
    return delete(t.jobs).where(one_of(t.jobs.c.id, "id", size)), names("id", size)


def is_over(dialect: Dialect, size: int) -> Shape:
    """Which of these ids have a finished record, a tombstone, or a dead letter: one look into three tables."""
    t = dialect.tables
    recorded = select(t.results.c.id).where(one_of(t.results.c.id, "a", size), t.results.c.final == literal_column("1"))
    marked = select(t.done.c.id).where(one_of(t.done.c.id, "b", size))
    dead = select(t.dead_letters.c.id).where(one_of(t.dead_letters.c.id, "c", size))
    order = [name for table in "abc" for name in names(table, size)]
    return union_all(recorded, marked, dead), order


def take_key(dialect: Dialect, size: int) -> Shape:
    """Take a key that is free, or whose time is over."""
    t = dialect.tables
    made: dict[str, Any] = {"key": bindparam("key"), "job": bindparam("job"), "until": literal_column("NULL")}
    free = t.keys.c.until <= bindparam("now")
    return dialect.upsert(t.keys, [made], key="key", change=("job", "until"), where=free), ("key", "job", "now")


def holder_of_key(dialect: Dialect, size: int) -> Shape:
    """The job that holds a key."""
    t = dialect.tables
    return dialect.current(select(t.keys.c.job).where(t.keys.c.key == bindparam("key"))), ("key",)


def free_key(dialect: Dialect, size: int) -> Shape:
    """Its job has ended, and no time was asked for."""
    t = dialect.tables
    return delete(t.keys).where(t.keys.c.key == bindparam("key"), t.keys.c.job == bindparam("job")), ("key", "job")


def keep_key(dialect: Dialect, size: int) -> Shape:
    """Its job has ended: taken until a moment."""
    t = dialect.tables
    held = (t.keys.c.key == bindparam("of"), t.keys.c.job == bindparam("job_"), t.keys.c.until.is_(None))
    return update(t.keys).values(until=bindparam("end")).where(*held), ("end", "of", "job_")


def retake_key(dialect: Dialect, size: int) -> Shape:
    """Its job is unfinished again: its own, unless another one has it by now."""
    t = dialect.tables
    made: dict[str, Any] = {"key": bindparam("key"), "job": bindparam("job"), "until": literal_column("NULL")}
    free = or_(t.keys.c.until <= bindparam("now"), t.keys.c.job == bindparam("mine"))
    return dialect.upsert(t.keys, [made], key="key", change=("job", "until"), where=free), ("key", "job", "now", "mine")
