"""A session for threads of their own and for commands: it blocks, whatever its driver does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

from camora.errors import BrokerUnavailable

from camora_sql.dialects.base import Need
from camora_sql.session import Session
from camora_sql.store import Store

__all__ = ["BlockingSession"]

R = TypeVar("R")


class BlockingSession:
    """Used and closed in one thread, in which no event loop runs. Connects when it is first used.

    With `within`, what has no answer of a server after so many seconds is given up, with its connection.
    """

    def __init__(
        self,
        store: Store,
        *,
        patience: float | None = None,
        within: float | None = None,
        prepare: Callable[[Session], None] | None = None,
    ) -> None:
        self._session = Session(store, patience=patience, prepare=prepare)
        self._blocking = store.dialect.blocking
        self._label = store.dialect.label
        self._within = within
        self._runner: asyncio.Runner | None = None

    def run(self, work: Callable[[Session], R]) -> R:
        """Do something with the session."""
        if self._blocking:
            return work(self._session)
        if self._runner is None:
            # With a loop that is nobody else's idea of the current one.
            self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        return self._runner.run(self._run(work))

    async def _run(self, work: Callable[[Session], R]) -> R:
        from sqlalchemy.util.concurrency import greenlet_spawn

        try:
            async with asyncio.timeout(self._within):
                return await greenlet_spawn(work, self._session)
        except TimeoutError as error:
            self._session.abort()
            raise BrokerUnavailable(f"{self._label}: no answer within {self._within:g} s") from error

    def read(self, work: Callable[[Session], R]) -> R:
        """Run statements that only read."""
        return self.run(lambda session: session.read(work))

    def write(self, work: Callable[[Session], R], need: Need = Need.KEPT) -> R:
        """Run a transaction."""
        return self.run(lambda session: session.write(work, need))

    def close(self) -> None:
        """Let go of the connection; a later use makes another one."""
        with contextlib.suppress(Exception):  # whatever its state, it is not used again
            self.run(lambda session: session.close())
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.close()
