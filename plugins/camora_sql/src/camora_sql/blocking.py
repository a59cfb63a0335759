"""A session for threads of their own and for commands: it blocks, whatever its driver does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

from camora_sql.dialects.base import Need
from camora_sql.session import Session
from camora_sql.store import Store

__all__ = ["BlockingSession"]

R = TypeVar("R")


class BlockingSession:
    """Used and closed in one thread, in which no event loop runs. Connects when it is first used."""

    def __init__(
        self, store: Store, *, patience: float | None = None, prepare: Callable[[Session], None] | None = None
    ) -> None:
        self._session = Session(store, patience=patience, prepare=prepare)
        self._blocking = store.dialect.blocking
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, work: Callable[[Session], R]) -> R:
        """Do something with the session."""
        if self._blocking:
            return work(self._session)
        from sqlalchemy.util.concurrency import greenlet_spawn

        if self._loop is None:
            self._loop = asyncio.new_event_loop()
        return self._loop.run_until_complete(greenlet_spawn(work, self._session))

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
        loop, self._loop = self._loop, None
        if loop is not None:
            loop.close()
