"""The directory of workers, in tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import msgspec
from camora.interfaces.workers import Order, WorkerDirectory, WorkerInfo

from camora_sql.dialects.base import Need
from camora_sql.link import Link
from camora_sql.session import Session
from camora_sql.statements import workers as statements
from camora_sql.store import Store

__all__ = ["SqlWorkerDirectory"]

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(WorkerInfo).decode


class SqlWorkerDirectory(WorkerDirectory):
    """Each method is one small transaction, or one look. None announces its commit: nobody waits for reports."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._link = Link(store, f"SqlWorkerDirectory({store.dialect.label})")

    def __repr__(self) -> str:
        return f"SqlWorkerDirectory({self._store.dialect.label!r})"

    async def open(self) -> None:
        """Connect; make or check the schema."""
        await self._link.open()

    async def report(self, info: WorkerInfo, *, ttl: float) -> Sequence[Order]:
        """Note what it says; the orders it has not heard yet."""
        text, name = _encode(info).decode(), info.name

        def report(session: Session) -> list[Order]:
            now = self._store.lease_now()
            self._forget_silent(session, now)
            session.change(statements.put_worker, (name, text, now + round(ttl * 1000)))
            given = session.rows(statements.read_orders, (name,))
            session.change_in(statements.delete_orders, [row[0] for row in given])
            return [row[1] for row in given]

        return await self._link.write(report, Need.NONE)

    def _forget_silent(self, session: Session, now: int) -> None:
        # With their orders, before anybody of the same name could hear them.
        silent = [row[0] for row in session.rows(statements.silent_workers, (now,))]
        session.change_in(statements.delete_workers, silent)
        session.change_in(statements.forget_orders, silent)

    async def list(self) -> Sequence[WorkerInfo]:
        """One look. Whose time is over is deleted by the next report."""

        def read(session: Session) -> Sequence[Any]:
            return session.rows(statements.list_workers, (self._store.lease_now(),))

        # In order of code point, which not every database has.
        return sorted((_decode(row[0]) for row in await self._link.read(read)), key=lambda info: info.name)

    async def order(self, name: str, order: Order) -> bool:
        """Leave an order."""

        def give(session: Session) -> bool:
            alive = bool(session.rows(statements.is_alive, (name, self._store.lease_now())))
            if alive:
                session.change(statements.give_order, (name, order))
            return alive

        return await self._link.write(give, Need.NONE)

    async def remove(self, name: str) -> None:
        """Forget one."""

        def forget(session: Session) -> None:
            session.change_in(statements.delete_workers, [name])
            session.change_in(statements.forget_orders, [name])

        await self._link.write(forget, Need.NONE)

    def twin(self) -> Self:
        """Another one on the same database, with a connection of its own."""
        return type(self)(self._store)

    def abandon(self) -> None:
        """End the thread of a loop that is gone."""
        self._link.abandon()

    async def close(self) -> None:
        """End the thread and its connection."""
        await self._link.close()
