"""What the links of one event loop to one database share: connections, and an ear for news."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

from sqlalchemy.util.concurrency import greenlet_spawn

from camora_sql.opening import prepare
from camora_sql.session import Session
from camora_sql.store import Store
from camora_sql.wakeup import Topic, Wakeups

__all__ = ["Hub"]

R = TypeVar("R")
T = TypeVar("T")

_BREATH, _LONG_BREATH = 0.001, 0.004
"""Seconds between two announcements: the first of those that follow one another closely, and the later ones."""
_NO_MORE = 1.0
"""Seconds after a connection could not be made in which those that there are must do."""


class Hub:
    """Sessions that are lent out, at most `pool_size` of them; each is used by one greenlet at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._idle: list[Session] = []
        self._made = 0
        self._no_more_until = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._news: set[Topic] = set()
        self._teller: asyncio.Task[None] | None = None
        self._wakeups: Wakeups | None = None

    @property
    def wakeups(self) -> Wakeups:
        """What tells of commits of this process and others."""
        if self._wakeups is None:
            self._wakeups = self._store.dialect.wakeups(self._store.time)
        return self._wakeups

    async def run(self, work: Callable[[Session, T], R], subject: T) -> R:
        """Run it with a session of its own; waits until there is one. What it announces is told."""
        session = await self._take()
        try:
            return await greenlet_spawn(work, session, subject)
        finally:
            self._put_back(session)
            if session.news:
                self.tell(session.news)
                session.news = set()

    def _put_back(self, session: Session) -> None:
        if session.is_connected:
            self._idle.append(session)
        else:
            # The server has no connection left, perhaps, and must not be asked for one while others are idle here.
            self._made -= 1
            self._no_more_until = asyncio.get_running_loop().time() + _NO_MORE
        self._wake_one()

    def _is_full(self) -> bool:
        if self._made and asyncio.get_running_loop().time() < self._no_more_until:
            return True
        return self._made >= self._store.settings.pool_size

    async def _take(self) -> Session:
        while not self._idle and self._is_full():
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._wake_one()
                raise
        if self._idle:
            # The one used last: its connection knows the statements, and the others may be left alone.
            return self._idle.pop()
        self._made += 1
        store = self._store
        return Session(store, prepare=lambda session: prepare(session, store))

    def _wake_one(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    # News

    def tell(self, news: Iterable[Topic]) -> None:
        """Announce it to everybody: soon, and together with what comes meanwhile."""
        if not self._store.dialect.notifies:
            return  # the session has announced it to this process, which is all that can be done
        self._news.update(news)
        # One that was cancelled before its first step has never said that it ended.
        if self._teller is None or self._teller.done():
            self._teller = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        # After the commit and in a transaction of its own: one that notifies holds up all others that do, until it is
        # on the disk, and this one has nothing to write. What is lost with this process is found by looking.
        breath = _BREATH
        try:
            while self._news:
                news, self._news = self._news, set()
                # A hint; whoever waits looks by himself.
                with contextlib.suppress(Exception):
                    await self.run(Session.tell, news)
                # The first at once; of those that follow closely one tells for many.
                await asyncio.sleep(breath)
                breath = min(breath * 2, _LONG_BREATH)
        finally:
            self._teller = None

    # Life

    async def close(self) -> None:
        """Let go of everything, after what is to be told was told."""
        if self._teller is not None:
            await asyncio.wait([self._teller], timeout=1.0)
        if self._wakeups is not None:
            self._wakeups.close()
        sessions, self._idle = self._idle, []
        for session in sessions:
            with contextlib.suppress(Exception):
                await greenlet_spawn(session.close)

    def abandon(self) -> None:
        """Let go without the loop, which is closed."""
        if self._wakeups is not None:
            self._wakeups.abandon()
        for session in self._idle:
            session.abort()
