"""The inbox: a job's rows and its completion in one commit, so that a second delivery of it does nothing.

A job may be delivered twice: its worker was killed after the work, or lost its lease. With
`session: Annotated[Session, Inbox]` the user's rows are committed together with a mark that bears the job's id. Whoever
finds the mark does not run the function, and answers with what it came to; of two who run at the same moment one
commits, and the other one's rows are rolled back.
"""

from __future__ import annotations

import asyncio
import random
import shlex
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, TypeVar

from camora.dependencies import Marker
from camora.errors import ConfigurationError
from camora.signals import Failure, Recorded, Retry
from sqlalchemy import Connection, delete, insert, select
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import Session

from camora_sql.schema import Tables
from camora_sql.settings import PREFIX

__all__ = ["Inbox"]

R = TypeVar("R")

_SWEEP = 0.01
"""How often a commit also deletes old marks: often enough, and seldom to be noticed."""
_STEP = 500
_TOO_LONG = 2**53


class Inbox(Marker):
    """Marks the session or connection of SQLAlchemy's that a task writes with: `session: Annotated[Session, Inbox]`.

    The session comes from a dependency of yours, scoped to the job; any kind will do (`Session`, `AsyncSession`,
    `Connection`, `AsyncConnection`). It is committed here, once the function has returned, and rolled back when it
    raises or returns a `Failure`: do neither yourself. `keep` is how long a job is remembered, in seconds or as a
    timedelta: longer than a message may ever take to be delivered again. `prefix` and `schema` say where the table is,
    as those of the URL do; `camora sql migrate` makes it in a database that is no broker.
    """

    def __init__(
        self, *, keep: float | timedelta = timedelta(days=7), prefix: str = PREFIX, schema: str | None = None
    ) -> None:
        seconds = keep.total_seconds() if isinstance(keep, timedelta) else float(keep)
        if not seconds > 0:
            raise ConfigurationError(f"Inbox(keep={keep!r}): must be more than 0")
        self._keep_ms = min(round(seconds * 1000), _TOO_LONG)
        self._table = Tables(prefix, schema).inbox

    async def around(self, context: Any, value: Any, call_next: Callable[[], Awaitable[Any]]) -> Any:
        """Run the job and commit, unless it was committed before."""
        session = _Given(value)
        found = await self._recorded(session, context.id)
        if found is not None:
            await session.rollback()
            return found
        try:
            result = await call_next()
            if isinstance(result, Failure):
                await session.rollback()
                return result
            encoded = context.encode_result(result)
        except BaseException:
            await session.rollback()
            raise
        return await self._commit(session, context.id, encoded) or result

    async def _recorded(self, session: _Given, job_id: str) -> Recorded | None:
        query = select(self._table.c.value).where(self._table.c.id == job_id)
        try:
            row = await session.run(lambda target: target.execute(query).first())
        except DBAPIError as error:
            await session.rollback()
            raise ConfigurationError(
                f"Annotated[…, Inbox]: the table {self._table.fullname} cannot be read in the database of that "
                f"session: {error.orig}; make it: {await session.run(self._migrate_command)}"
            ) from error
        return None if row is None else Recorded(None if row[0] is None else bytes(row[0]))

    def _migrate_command(self, target: Any) -> str:
        """What makes the table there, as far as the engine's URL tells."""
        url = target.get_bind(clause=self._table).engine.url if isinstance(target, Session) else target.engine.url
        names = {"prefix": self._table.name.removesuffix("inbox"), "schema": self._table.schema}
        given = {name: value for name, value in names.items() if value not in (None, PREFIX)}
        # The database alone: the driver, and its options, are the engine's.
        bare = url.set(drivername=url.get_backend_name(), query=given)
        return f"camora sql migrate --url {shlex.quote(bare.render_as_string(hide_password=True))}"

    async def _commit(self, session: _Given, job_id: str, encoded: bytes | None) -> Recorded | None:
        now = time.time_ns() // 1_000_000
        mark = insert(self._table).values(id=job_id, until=now + self._keep_ms, value=encoded)

        def commit(target: Any) -> None:
            if random.random() < _SWEEP:  # noqa: S311 -- chance, not secrecy
                self._sweep(target, now)
            target.execute(mark)
            target.commit()

        try:
            await session.run(commit)
        except IntegrityError:
            # Another run of the same job was quicker, or the user's own rows clash with what is there.
            await session.rollback()
            found = await self._recorded(session, job_id)
            await session.rollback()
            if found is None:
                raise
            return found
        except DBAPIError as error:
            await session.rollback()
            if error.connection_invalidated:
                # It may have been committed: the next attempt finds the mark, or does it all again.
                raise Retry("the connection was lost while the work was committed") from error
            raise
        return None

    def _sweep(self, target: Any, now: int) -> None:
        marks = self._table.c
        old = [row[0] for row in target.execute(select(marks.id).where(marks.until < now).limit(_STEP))]
        if old:
            target.execute(delete(self._table).where(marks.id.in_(old)))


class _Given:
    """The session or connection, asynchronous or not, used alike; what blocks runs in a thread."""

    def __init__(self, target: Any) -> None:
        self._run_sync = getattr(target, "run_sync", None)
        if self._run_sync is None and not isinstance(target, (Session, Connection)):
            raise ConfigurationError(
                f"Annotated[…, Inbox]: got a {type(target).__qualname__}; it marks a Session, Connection, AsyncSession "
                "or AsyncConnection of SQLAlchemy"
            )
        self._target = target

    async def run(self, work: Callable[[Any], R]) -> R:
        if self._run_sync is not None:
            found: R = await self._run_sync(work)
            return found
        working = asyncio.ensure_future(asyncio.to_thread(work, self._target))
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            # Its thread goes on with the session, which nobody else may touch until it has done.
            await asyncio.wait([working])
            raise

    async def rollback(self) -> None:
        await self.run(lambda target: target.rollback())
