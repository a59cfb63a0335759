"""The directory of workers."""

from __future__ import annotations

from sqlalchemy import bindparam, delete, select

from camora_sql.dialects.base import Dialect
from camora_sql.statements.parts import Shape, names, one_of, rows

__all__ = [
    "delete_orders",
    "delete_workers",
    "end_orders",
    "end_workers",
    "forget_orders",
    "give_order",
    "is_alive",
    "list_workers",
    "put_worker",
    "read_orders",
    "silent_workers",
]


def put_worker(dialect: Dialect, size: int) -> Shape:
    """A report, in place of the one before."""
    t = dialect.tables
    values, order = rows(t.workers, 1, ("name", "info", "until"))
    return dialect.upsert(t.workers, values, key="name", change=("info", "until")), order


def list_workers(dialect: Dialect, size: int) -> Shape:
    """Reports whose time is not over."""
    t = dialect.tables
    return select(t.workers.c.info).where(t.workers.c.until > bindparam("now")), ("now",)


def is_alive(dialect: Dialect, size: int) -> Shape:
    """Whether this worker has reported within its time."""
    t = dialect.tables
    return select(t.workers.c.name).where(
        t.workers.c.name == bindparam("name"), t.workers.c.until > bindparam("now")
    ), (
        "name",
        "now",
    )


def silent_workers(dialect: Dialect, size: int) -> Shape:
    """Whose time is over."""
    t = dialect.tables
    return select(t.workers.c.name).where(t.workers.c.until <= bindparam("now")), ("now",)


def delete_workers(dialect: Dialect, size: int) -> Shape:
    """Forget workers."""
    t = dialect.tables
    return delete(t.workers).where(one_of(t.workers.c.name, "name", size)), names("name", size)


def give_order(dialect: Dialect, size: int) -> Shape:
    """An order for one."""
    t = dialect.tables
    values, order = rows(t.orders, 1, ("worker", "what"))
    return dialect.insert_new(t.orders, values), order


def read_orders(dialect: Dialect, size: int) -> Shape:
    """The orders of one, the oldest first, kept from others until the end of the transaction."""
    t = dialect.tables
    found = select(t.orders.c.seq, t.orders.c.what).where(t.orders.c.worker == bindparam("name"))
    return found.order_by(t.orders.c.seq).with_for_update(), ("name",)


def delete_orders(dialect: Dialect, size: int) -> Shape:
    """Forget these orders, and none that was given meanwhile."""
    t = dialect.tables
    return delete(t.orders).where(one_of(t.orders.c.seq, "seq", size)), names("seq", size)


def forget_orders(dialect: Dialect, size: int) -> Shape:
    """Forget the orders of these workers."""
    t = dialect.tables
    return delete(t.orders).where(one_of(t.orders.c.worker, "name", size)), names("name", size)


def end_workers(dialect: Dialect, size: int) -> Shape:
    """Forget all workers."""
    t = dialect.tables
    return delete(t.workers), ()


def end_orders(dialect: Dialect, size: int) -> Shape:
    """Forget all orders."""
    t = dialect.tables
    return delete(t.orders), ()
