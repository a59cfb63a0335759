"""The sessions of one entity that a worker has at the moment, as one thing that receives.

While the worker wants messages, one more session is always asked for, and each that is here may bring one message. So
as many sessions run at once as there are free slots, and one with nothing to do is given up after a moment. A session
whose first message waits for its next try stays here until then: nothing of it may pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from azure.servicebus.exceptions import OperationTimeoutError

from camora_servicebus.lent import Lent
from camora_servicebus.receiving import Answer, Came, End, Receiving, Word
from camora_servicebus.session_link import Held, SessionLink, SessionMessage

__all__ = ["Sessions"]

logger = logging.getLogger(__name__)

_IDLE = 1.0
"""Seconds after which a session that has nothing to do is given up, so that another one gets its turn."""
_MOMENT = 0.05
"""Seconds after which one that was asked for a message and has brought none gives way to others."""
_TURN = 30.0
"""Seconds after which one that always has something to do lets others go first."""
_FIRST, _WAIT = 0.5, 30.0
"""Seconds for which the service is asked to wait for a session: the first time, to see if it answers, and later."""
_PATIENCE = 5.0
"""Seconds for a request."""
_AT_ONCE = 4
"""Sessions that are asked for at once, at most."""
_GRACE = 0.5
"""Seconds for which a session is still waited for when nothing is wanted any more."""
_MOST_WAITING = 100
"""Sessions that wait for the next try of their first message; each is a connection."""
_PAUSE = (0.1, 2.0)
_GOODBYE = 2.0

Make = Callable[[Came, float], SessionLink]
"""`make(came, wait)`: one for the next session that is free; the service waits so long for one."""


class Sessions(Receiving):
    """`lost()` is called when a connection has ended whose message a worker has."""

    ordered = True

    def __init__(self, make: Make, came: Came, *, lost: Callable[[], None]) -> None:
        self._make = make
        self._came = came
        self._lost = lost
        self._links: list[SessionLink] = []
        self._owners: dict[bytes, SessionLink] = {}
        """Of messages that a worker has, by their lock tokens."""
        self._wanted = 0
        self._unwanted = time.monotonic()
        self._accepting: set[asyncio.Task[None]] = set()
        self._eager = 1
        """How many sessions may be asked for at once: more while there are some, for each takes its time."""
        self._failed: Exception | None = None
        self._failures = 0
        self._not_before = 0.0
        self._news = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._draining = False
        self._over = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def open(self, timeout: float) -> None:
        """Ask for a session: whether there is one or not, the service has answered."""
        self._loop = asyncio.get_running_loop()
        await self._accept(min(_FIRST, timeout), timeout)

    # What is wanted

    @property
    def wanted(self) -> int:
        """How many may still come."""
        return self._wanted

    def want(self, count: int) -> None:
        """Let so many come, of as many sessions."""
        if self._wanted and not count:
            self._unwanted = time.monotonic()
        self._wanted = count
        self._news.set()

    def cease(self) -> None:
        """Let `run` end."""
        self._over = True
        self._news.set()

    # All that happens

    async def run(self) -> None:
        """Tend the sessions until there is nothing to tend and no way to get any; raises why."""
        while not self._over:
            self._news.clear()
            self._reap()
            for link in list(self._links):
                self._tend(link)
            self._make_room()
            self._seek()
            if self._failed is not None and not self._links:
                raise self._failed
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._rest()):
                    await self._news.wait()

    def _rest(self) -> float:
        """Seconds until something is to be done though nothing happens."""
        now = time.time() * 1000
        dues = [(link.held.due - now) / 1000 for link in self._links if link.held is not None and not link.held.given]
        return max(0.001, min([_MOMENT, *(due for due in dues if due > 0)]))

    def _reap(self) -> None:
        """Let go of those whose connections have ended."""
        for link in [link for link in self._links if not link.alive]:
            logger.debug("session %r: its connection has ended", link.session)
            self._leave(link)
            if link.held is not None and link.held.given:
                self._lost()

    def _tend(self, link: SessionLink) -> None:
        held, now = link.held, time.monotonic()
        if held is not None and held.given:
            return  # whoever has it renews the lock
        if not link.locked:
            self._leave(link)
            return
        if not link.fresh:
            self._renew(link)
        waits = held is not None and held.due > time.time() * 1000
        if self._draining:
            self._leave(link)
        elif held is not None and waits:
            link.since = now
        elif held is not None and self._wanted > 0:
            self._hand(link, held)
        elif now - link.since > _IDLE or (held is None and now - link.began > _TURN):
            self._leave(link)
        elif held is None:
            self._lend(link)

    def _lend(self, link: SessionLink) -> None:
        """Let the service send a message of this session, if one is wanted."""
        lent = sum(one.credit for one in self._links)
        if not link.credit and lent < self._wanted:
            link.credit = True
            link.want(1)
        elif link.credit and not self._wanted:
            link.credit = False
            link.want(0)

    def _renew(self, link: SessionLink) -> None:
        if not link.renewing:
            link.renewing = True
            self._start(self._renewed(link))

    async def _renewed(self, link: SessionLink) -> None:
        try:
            if await link.renew_session(_PATIENCE) is Answer.LOST:
                self._leave(link)
        finally:
            link.renewing = False

    # Sessions that come and go

    def _seek(self) -> None:
        """Ask for one more session while messages are wanted; for some at once while there are many."""
        now = time.monotonic()
        if not self._wanted:
            if now - self._unwanted > _GRACE:
                self._stop_seeking()
            return
        waiting = sum(1 for link in self._links if link.held is not None and not link.held.given)
        if self._draining or now < self._not_before or waiting >= _MOST_WAITING:
            return
        while len(self._accepting) < min(self._eager, self._wanted):
            task = asyncio.get_running_loop().create_task(self._sought())
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    def _stop_seeking(self) -> None:
        for task in self._accepting:
            task.cancel()

    async def _sought(self) -> None:
        try:
            await self._accept(_WAIT, _WAIT + _PATIENCE)
        except asyncio.CancelledError:
            pass
        except Exception as error:  # noqa: BLE001 -- whatever the client or a credential raises
            self._failed, self._eager = error, 1
            self._failures += 1
            pause = min(_PAUSE[0] * 2**self._failures, _PAUSE[1])
            self._not_before = time.monotonic() + random.uniform(pause / 2, pause)  # noqa: S311 -- jitter
        finally:
            # The set lets go of it a moment later, and the look is later still.
            asyncio.get_running_loop().call_soon(self._news.set)

    async def _accept(self, wait: float, timeout: float) -> None:
        """One more session, if there is one. Raises what else the client raises."""
        link = self._make(self._on_came, wait)
        try:
            await link.accept(timeout, _PATIENCE)
        except BaseException as error:
            await asyncio.shield(asyncio.ensure_future(link.give_up(_GOODBYE)))
            if not isinstance(error, OperationTimeoutError):
                raise
            # That is what the service says when there is none.
            self._failed, self._failures, self._eager = None, 0, 1
            return
        self._failed, self._failures, self._eager = None, 0, min(self._eager + 1, _AT_ONCE)
        if self._over:
            await link.give_up(_GOODBYE)
            return
        self._links.append(link)

    def _make_room(self) -> None:
        """One that has waited for a message for a moment gives way to one that may have some."""
        if not self._wanted or not any(link.held is None and not link.credit for link in self._links):
            return
        long_ago = time.monotonic() - _MOMENT
        idle = [link for link in self._links if link.credit and link.since < long_ago]
        if idle and sum(link.credit for link in self._links) >= self._wanted:
            self._leave(min(idle, key=lambda link: link.since))

    def _leave(self, link: SessionLink) -> None:
        """Give it up; what it holds is for others."""
        if link in self._links:
            self._links.remove(link)
            self._start(link.give_up(_GOODBYE))
            self._news.set()

    def _start(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Messages

    def _on_came(self, by: Receiving, message: Any, number: int, tag: bytes) -> None:
        link = by
        assert isinstance(link, SessionLink)
        link.credit = False
        if self._over or link.leaving or link not in self._links:
            return  # it goes back with its session, and is not counted
        link.since = time.monotonic()
        kept = link.kept
        mine = kept is not None and kept.number == message.sequence_number
        link.held = Held(message, number, tag, kept.due if mine and kept is not None else 0)
        if link.suspect:
            link.suspect = False
            link.held.given = True  # from now on: nobody gets it before this is written down, for it may kill us, too
            self._start(self._accuse(link, link.held))
            return
        if kept is not None and not mine:
            self._start(link.write(_PATIENCE, kept=None))  # its message has ended
        self._news.set()

    async def _accuse(self, link: SessionLink, held: Held) -> None:
        """Count that its worker has died; then it is to be given."""
        try:
            await link.accuse(held, _PATIENCE)
        finally:
            held.given = False
            self._news.set()

    def _hand(self, link: SessionLink, held: Held) -> None:
        """To the worker."""
        kept = link.kept
        if kept is not None and kept.number != held.message.sequence_number:
            kept = None
        held.given = True
        self._owners[held.tag] = link
        self._wanted -= 1
        self._came(self, SessionMessage(held.message, link.until, kept), held.number, held.tag)

    # Ends

    async def tell(self, lent: Sequence[Lent], word: Word, timeout: float) -> list[Answer]:
        """One after the other in each session, for there is one."""
        return list(await asyncio.gather(*(self._tell(one, word, timeout) for one in lent)))

    async def tell_by_token(self, lent: Sequence[Lent], word: Word, timeout: float) -> list[Answer]:
        """The same by requests: the link hears no more of a delivery that the service has answered."""
        return list(await asyncio.gather(*(self._tell(one, word, timeout, by_token=True) for one in lent)))

    async def _tell(self, lent: Lent, word: Word, timeout: float, *, by_token: bool = False) -> Answer:
        link = self._owners.get(lent.tag)
        if link is None or not link.alive:
            # The lock went with the connection, so the message comes again, unless its end was heard.
            lent.doubtful = False
            return Answer.LOST
        if word.end is End.KEEP:
            answer = await link.keep(word, timeout)
        elif by_token:
            [answer] = await link.tell_by_token([lent], word, timeout)
            if answer is Answer.LOST and lent.doubtful and isinstance(await link.renew_session(_PATIENCE), float):
                answer = Answer.DONE  # the session is ours: it is gone because its end was heard the first time
        else:
            [answer] = await link.tell([lent], word, timeout)
        if answer is Answer.DONE:
            self._end(link, lent, word)
        elif answer is Answer.LOST or not link.alive:
            lent.doubtful = False
            self._owners.pop(lent.tag, None)
            self._leave(link)
            return Answer.LOST
        return answer

    def _end(self, link: SessionLink, lent: Lent, word: Word) -> None:
        """The service has heard it."""
        self._owners.pop(lent.tag, None)
        link.since = time.monotonic()
        held = link.held
        if held is None or held.tag != lent.tag:
            return
        if word.end is End.KEEP:
            # It is still locked: so nothing can pass it.
            held.due, held.given = word.due, False
        else:
            link.held = None
            ended = word.end in (End.COMPLETE, End.BURY, End.DEFER)
            if ended and link.kept is not None:
                self._start(link.write(_PATIENCE, kept=None))
        self._news.set()

    async def renew(self, lent: Sequence[Lent], timeout: float) -> list[float | Answer]:
        """The locks of their sessions."""
        return list(await asyncio.gather(*(self._renew_of(one, timeout) for one in lent)))

    async def _renew_of(self, lent: Lent, timeout: float) -> float | Answer:
        link = self._owners.get(lent.tag)
        if link is None or not link.alive:
            lent.doubtful = False
            return Answer.LOST
        return await link.renew_session(timeout)

    # The user's own state; called in any loop

    def session_of(self, tag: bytes) -> str:
        """The session of a message that a worker has; empty when it is not ours any more."""
        link = self._owners.get(tag)
        return "" if link is None else link.session

    def own_state(self, tag: bytes) -> bytes | None:
        """As it was when the session was accepted, or set since. Raises `LookupError`: it is not ours any more."""
        return self._owners[tag].own

    def set_own_state(self, tag: bytes, own: bytes | None, timeout: float) -> Any:
        """A future of the answer, which any thread may wait for."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(self._set_own(tag, own, timeout), self._loop)

    async def _set_own(self, tag: bytes, own: bytes | None, timeout: float) -> Answer:
        link = self._owners.get(tag)
        if link is None or not link.alive:
            return Answer.LOST
        return await link.write(timeout, own=own)

    # The end

    async def drain(self, timeout: float) -> None:
        """Give up all sessions but those whose messages a worker has; take no other."""
        self._draining, self._wanted = True, 0
        self._stop_seeking()
        for link in list(self._links):
            if link.held is None or not link.held.given:
                self._leave(link)
        await self._settled(timeout)

    async def close(self, timeout: float) -> None:
        """End all connections."""
        self._over = True
        self._news.set()
        self._stop_seeking()
        for link in list(self._links):
            self._leave(link)
        await self._settled(timeout + _GOODBYE)
        for task in list(self._tasks):
            task.cancel()

    async def _settled(self, timeout: float) -> None:
        if left := {*self._tasks, *self._accepting}:
            await asyncio.wait(left, timeout=timeout)
