"""The journals of jobs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, delete, select, update

from camora_sql.dialects.base import Dialect
from camora_sql.statements.parts import Shape, first, names, one_of, rows

__all__ = [
    "begin_journal",
    "delete_entries",
    "delete_journals",
    "enter",
    "entries_of",
    "entry",
    "find_journal",
    "lock_journals",
    "lock_journals_over",
    "posts_of",
    "put_journal",
    "some_journals_over",
    "taken_names",
]


def begin_journal(dialect: Dialect, size: int) -> Shape:
    """An empty journal, unless the job has one."""
    t = dialect.tables.journals
    values, order = rows(t, 1, ("id", "until"))
    return dialect.insert_new(t, values), order


def lock_journals(dialect: Dialect, size: int) -> Shape:
    """Keep these jobs' journals from all others until the end of the transaction, in order of their ids."""
    t = dialect.tables.journals
    found = select(t.c.id, t.c.seq, t.c.token, t.c.until)
    # By their ids alone: a small table would be gone through else, and rows of others be waited for.
    for server in ("mysql", "mariadb"):
        found = found.with_hint(t, f"FORCE INDEX ({dialect.tables.prefix}journals_id)", server)
    return found.where(one_of(t.c.id, "id", size)).order_by(t.c.id).with_for_update(), names("id", size)


def find_journal(dialect: Dialect, size: int) -> Shape:
    """The number of a job's journal, and until when it is kept."""
    t = dialect.tables.journals
    return select(t.c.seq, t.c.until).where(t.c.id == bindparam("id")), ("id",)


def put_journal(dialect: Dialect, size: int) -> Shape:
    """Under which token it is written, and until when it is kept."""
    t = dialect.tables.journals
    given: dict[str, Any] = {"token": bindparam("new_token"), "until": bindparam("new_until")}
    return update(t).values(given).where(t.c.seq == bindparam("place")), ("new_token", "new_until", "place")


def entries_of(dialect: Dialect, size: int) -> Shape:
    """All entries."""
    t = dialect.tables.entries
    return select(t.c.name, t.c.value).where(t.c.journal == bindparam("place")), ("place",)


def entry(dialect: Dialect, size: int) -> Shape:
    """One entry."""
    t = dialect.tables.entries
    return select(t.c.value).where(t.c.journal == bindparam("place"), t.c.name == bindparam("name")), ("place", "name")


def enter(dialect: Dialect, size: int) -> Shape:
    """An entry, unless there is one of this name."""
    t = dialect.tables.entries
    values, order = rows(t, 1, ("journal", "name", "post", "value"))
    return dialect.insert_new(t, values), order


def posts_of(dialect: Dialect, size: int) -> Shape:
    """The names under which something was entered by this post."""
    t = dialect.tables.entries
    return select(t.c.name).where(t.c.journal == bindparam("place"), t.c.post == bindparam("post")), ("place", "post")


def taken_names(dialect: Dialect, size: int) -> Shape:
    """Which of these names have entries."""
    t = dialect.tables.entries
    return select(t.c.name).where(t.c.journal == bindparam("place"), one_of(t.c.name, "name", size)), (
        "place",
        *names("name", size),
    )


def delete_entries(dialect: Dialect, size: int) -> Shape:
    """Delete all entries of these journals."""
    t = dialect.tables.entries
    return delete(t).where(one_of(t.c.journal, "journal", size)), names("journal", size)


def delete_journals(dialect: Dialect, size: int) -> Shape:
    """Delete journals, when they have no entries any more."""
    t = dialect.tables.journals
    return delete(t).where(one_of(t.c.seq, "seq", size)), names("seq", size)


def some_journals_over(dialect: Dialect, size: int) -> Shape:
    """Some whose time is over."""
    t = dialect.tables.journals
    return first(select(t.c.seq).where(t.c.until <= bindparam("now")).order_by(t.c.until)), ("now", "limit")


def lock_journals_over(dialect: Dialect, size: int) -> Shape:
    """The same, kept from others; those that others have are passed over."""
    found, order = some_journals_over(dialect, size)
    return found.with_for_update(skip_locked=True), order  # type: ignore[attr-defined]
