"""The directory of workers."""

from __future__ import annotations

from sqlalchemy import bindparam, delete, select

from camora_sql.dialects.base import Dialect
from camora_sql.schema import orders, workers
from camora_sql.statements.parts import Shape, names, one_of, rows

__all__ = [
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
    values, order = rows(workers, 1, ("name", "info", "until"))
    return dialect.upsert(workers, values, key="name", change=("info", "until")), order


def list_workers(dialect: Dialect, size: int) -> Shape:
    """Reports whose time is not over."""
    return select(workers.c.info).where(workers.c.until > bindparam("now")), ("now",)


def is_alive(dialect: Dialect, size: int) -> Shape:
    """Whether this worker has reported within its time."""
    return select(workers.c.name).where(workers.c.name == bindparam("name"), workers.c.until > bindparam("now")), (
        "name",
        "now",
    )


def silent_workers(dialect: Dialect, size: int) -> Shape:
    """Whose time is over."""
    return select(workers.c.name).where(workers.c.until <= bindparam("now")), ("now",)


def delete_workers(dialect: Dialect, size: int) -> Shape:
    """Forget workers."""
    return delete(workers).where(one_of(workers.c.name, "name", size)), names("name", size)


def give_order(dialect: Dialect, size: int) -> Shape:
    """An order for one."""
    values, order = rows(orders, 1, ("worker", "what"))
    return dialect.insert_new(orders, values), order


def read_orders(dialect: Dialect, size: int) -> Shape:
    """The orders of one, the oldest first, kept from others until the end of the transaction."""
    found = select(orders.c.what).where(orders.c.worker == bindparam("name"))
    return found.order_by(orders.c.seq).with_for_update(), ("name",)


def forget_orders(dialect: Dialect, size: int) -> Shape:
    """Forget the orders of these workers."""
    return delete(orders).where(one_of(orders.c.worker, "name", size)), names("name", size)


def end_workers(dialect: Dialect, size: int) -> Shape:
    """Forget all workers."""
    return delete(workers), ()


def end_orders(dialect: Dialect, size: int) -> Shape:
    """Forget all orders."""
    return delete(orders), ()
