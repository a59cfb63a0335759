"""Dead letters, and facts about the database."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, delete, func, insert, literal_column, select, update

from camora_sql.dialects.base import Dialect
from camora_sql.schema import State
from camora_sql.statements.parts import Shape, first, names, one_of, state_is
from camora_sql.statements.publishing import JOB_COLUMNS

__all__ = [
    "LETTER_COLUMNS",
    "delete_letters",
    "end_leases",
    "key_of_letter",
    "letters_among",
    "list_letters",
    "list_letters_of",
    "read_fact",
    "read_letter",
    "requeue_letter",
    "some_letters",
    "some_letters_of",
    "write_fact",
]

LETTER_COLUMNS = ("id", "queue", "task", "body", "reason", "error", "attempts", "deliveries", "died")


def list_letters(dialect: Dialect, size: int) -> Shape:
    """A page of all letters."""
    t = dialect.tables
    page = select(*(t.dead_letters.c[name] for name in LETTER_COLUMNS)).where(t.dead_letters.c.id > bindparam("after"))
    return first(page.order_by(t.dead_letters.c.id)), ("after", "limit")


def list_letters_of(dialect: Dialect, size: int) -> Shape:
    """A page of a queue's letters."""
    t = dialect.tables
    page = select(*(t.dead_letters.c[name] for name in LETTER_COLUMNS))
    page = page.where(t.dead_letters.c.queue == bindparam("queue"), t.dead_letters.c.id > bindparam("after"))
    return first(page.order_by(t.dead_letters.c.id)), ("queue", "after", "limit")


def read_letter(dialect: Dialect, size: int) -> Shape:
    """One letter."""
    t = dialect.tables
    return select(*(t.dead_letters.c[name] for name in LETTER_COLUMNS)).where(t.dead_letters.c.id == bindparam("id")), (
        "id",
    )


def requeue_letter(dialect: Dialect, size: int) -> Shape:
    """Make a message of a letter again."""
    t = dialect.tables
    letter = t.dead_letters.c
    new = func.coalesce(bindparam("body", type_=letter.body.type), letter.body)
    columns: tuple[Any, ...] = (
        letter.id,
        letter.queue,
        literal_column(str(State.READY)),
        letter.priority,
        bindparam("due"),
    )
    rest = (letter.expires, letter.key, letter.key_ttl, letter.job_task, new)
    found = select(*columns, *rest).where(letter.id == bindparam("id"))
    return insert(t.jobs).from_select(list(JOB_COLUMNS), found), ("due", "body", "id")


def key_of_letter(dialect: Dialect, size: int) -> Shape:
    """The key a letter's message had; the letter is kept from others until the end of the transaction."""
    t = dialect.tables
    return select(t.dead_letters.c.key).where(t.dead_letters.c.id == bindparam("id")).with_for_update(), ("id",)


def delete_letters(dialect: Dialect, size: int) -> Shape:
    """Delete letters."""
    t = dialect.tables
    return delete(t.dead_letters).where(one_of(t.dead_letters.c.id, "id", size)), names("id", size)


def some_letters(dialect: Dialect, size: int) -> Shape:
    """Ids of some letters."""
    t = dialect.tables
    return first(select(t.dead_letters.c.id)), ("limit",)


def some_letters_of(dialect: Dialect, size: int) -> Shape:
    """Ids of some letters of a queue."""
    t = dialect.tables
    return first(select(t.dead_letters.c.id).where(t.dead_letters.c.queue == bindparam("queue"))), ("queue", "limit")


def letters_among(dialect: Dialect, size: int) -> Shape:
    """Which of these ids are letters, and of which queue."""
    t = dialect.tables
    found = select(t.dead_letters.c.id, t.dead_letters.c.queue)
    return found.where(one_of(t.dead_letters.c.id, "id", size)), names("id", size)


def read_fact(dialect: Dialect, size: int) -> Shape:
    """One fact about the database."""
    t = dialect.tables
    return select(t.facts.c.value).where(t.facts.c.name == bindparam("name")), ("name",)


def write_fact(dialect: Dialect, size: int) -> Shape:
    """Note a fact."""
    t = dialect.tables
    made: dict[str, Any] = {"name": bindparam("name"), "value": bindparam("value")}
    return dialect.upsert(t.facts, [made], key="name", change=("value",)), ("name", "value")


def end_leases(dialect: Dialect, size: int) -> Shape:
    """Let every lease lapse: they are of a time that this machine's clock knows nothing of."""
    t = dialect.tables
    return update(t.jobs).values(lease_until=literal_column("0")).where(state_is(t, State.LEASED)), ()
