"""The end of deliveries."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, bindparam, delete, literal_column, select, update

from camora_sql.dialects.base import Dialect
from camora_sql.schema import State, Tables
from camora_sql.statements.lending import UNLENT
from camora_sql.statements.parts import Shape, names, one_of, rows

__all__ = ["bury", "delete_held", "read_held", "release_held", "release_now", "remember", "retry_held", "still_held"]


def _held(t: Tables, seq: str = "seq", receipt: str = "token") -> ColumnElement[bool]:
    return and_(t.jobs.c.seq == bindparam(seq), t.jobs.c.receipt == bindparam(receipt))


def delete_held(dialect: Dialect, size: int) -> Shape:
    """End messages, if this token still holds them."""
    t = dialect.tables
    held = (t.jobs.c.receipt == bindparam("token"), one_of(t.jobs.c.seq, "seq", size))
    return delete(t.jobs).where(*held), ("token", *names("seq", size))


def still_held(dialect: Dialect, size: int) -> Shape:
    """Which of these messages this token still holds."""
    t = dialect.tables
    held = (t.jobs.c.receipt == bindparam("token"), one_of(t.jobs.c.seq, "seq", size))
    return select(t.jobs.c.seq).where(*held), ("token", *names("seq", size))


def read_held(dialect: Dialect, size: int) -> Shape:
    """What a dead letter has to remember of a message."""
    t = dialect.tables
    return select(t.jobs.c.priority, t.jobs.c.expires, t.jobs.c.task).where(_held(t)), ("seq", "token")


def retry_held(dialect: Dialect, size: int) -> Shape:
    """Replace a message by its next attempt."""
    t = dialect.tables
    names = ("queue", "state", "priority", "due", "expires", "key", "key_ttl", "task", "body")
    again = {name: bindparam(f"new_{name}", type_=t.jobs.c[name].type) for name in names}
    statement = update(t.jobs).values({**again, "deliveries": literal_column("0"), **UNLENT}).where(_held(t))
    # Columns are set in the order of the table, whatever the order they are named in.
    order = [f"new_{column.name}" for column in t.jobs.c if column.name in again]
    return statement, (*order, "seq", "token")


def release_held(dialect: Dialect, size: int) -> Shape:
    """Give a message back."""
    t = dialect.tables
    refunded = t.jobs.c.deliveries - bindparam("refund")
    back = {"state": bindparam("new_state"), "due": bindparam("new_due"), "deliveries": refunded, **UNLENT}
    return update(t.jobs).values(back).where(_held(t)), ("new_state", "new_due", "refund", "seq", "token")


def release_now(dialect: Dialect, size: int) -> Shape:
    """Give a message back to its old place in the order."""
    t = dialect.tables
    refunded = t.jobs.c.deliveries - bindparam("refund")
    back = {"state": literal_column(str(State.READY)), "deliveries": refunded, **UNLENT}
    return update(t.jobs).values(back).where(_held(t)), ("refund", "seq", "token")


def bury(dialect: Dialect, size: int) -> Shape:
    """A dead letter, in place of one of the same id."""
    t = dialect.tables
    columns = [column.name for column in t.dead_letters.c]
    values, order = rows(t.dead_letters, 1, columns)
    change = tuple(name for name in columns if name != "id")
    return dialect.upsert(t.dead_letters, values, key="id", change=change), order


def remember(dialect: Dialect, size: int) -> Shape:
    """Tombstones."""
    t = dialect.tables
    values, order = rows(t.done, size, ("id", "until"))
    return dialect.upsert(t.done, values, key="id", change=("until",)), order
