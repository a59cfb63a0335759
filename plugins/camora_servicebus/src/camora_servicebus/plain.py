"""Receiving by what the client documents, and nothing else: for clients whose inner parts `direct` does not know.

It is slower, and weaker in three points: a worker that wants nothing more leaves credit behind, for which the service
may lock a message for some seconds; giving a message back counts as a delivery; and an end that the client itself
repeated after a lost answer is told as a lost lock.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from typing import Any

from azure.servicebus.exceptions import MessageLockLostError, OperationTimeoutError

from camora_servicebus.lent import Lent
from camora_servicebus.receiving import Answer, Came, End, Receiving, Word

__all__ = ["Plain"]

_WAIT = 5.0
"""Seconds for which one call waits for a message: shorter ones fail where the client has to reconnect."""


class Plain(Receiving):
    """One receiver of the client. Its calls are never cancelled: what they have got would be locked for nobody."""

    counts_given_back = True

    def __init__(self, receiver: Any, came: Came) -> None:
        self._receiver = receiver
        self._came = came
        self._wanted = 0
        self._news = asyncio.Event()
        self._call: asyncio.Future[Any] | None = None
        self._over = False
        self._left: set[asyncio.Future[Any]] = set()

    async def open(self, timeout: float) -> None:
        """Connect and attach."""
        try:
            async with asyncio.timeout(timeout):
                await self._receiver.__aenter__()
        except BaseException:
            await self.close(timeout)
            raise

    @property
    def wanted(self) -> int:
        """How many may still come."""
        return self._wanted

    def want(self, count: int) -> None:
        """From the next call on: one that waits already goes on with what it was called with."""
        self._wanted = count
        if count:
            self._news.set()

    async def run(self) -> None:
        """Receive, again and again; raises why no more can be."""
        while not self._over:
            if not self._wanted:
                self._news.clear()
                await self._news.wait()
                continue
            call = self._receiver.receive_messages(max_message_count=self._wanted, max_wait_time=_WAIT)
            self._call = asyncio.ensure_future(call)
            try:
                messages = await asyncio.shield(self._call)
            except OperationTimeoutError:
                continue
            self._bring(messages)

    def cease(self) -> None:
        """Receive no more."""
        self._over = True
        self._news.set()

    def _bring(self, messages: Sequence[Any]) -> None:
        for message in messages:
            self._wanted = max(0, self._wanted - 1)
            self._came(self, message, 0, message.lock_token.bytes_le)

    async def tell(self, lent: Sequence[Lent], word: Word, timeout: float) -> list[Answer]:
        """One call each, all at once."""
        return list(await asyncio.gather(*(self._tell(one, word, timeout) for one in lent)))

    tell_by_token = tell  # the client finds out by itself which way it has to go

    async def _tell(self, lent: Lent, word: Word, timeout: float) -> Answer:
        receiver, message = self._receiver, lent.message
        match word.end:
            case End.COMPLETE:
                call = receiver.complete_message(message)
            case End.BURY:
                call = receiver.dead_letter_message(message, reason=word.reason, error_description=word.description)
            case End.DEFER:
                call = receiver.defer_message(message)
            case _:
                call = receiver.abandon_message(message)
        try:
            return Answer.DONE if await self._within(call, timeout) else Answer.UNKNOWN
        except MessageLockLostError:
            lent.doubtful = True  # the client may have told it before
            return Answer.LOST
        except Exception:  # noqa: BLE001 -- whatever it is, nobody knows what was heard
            return Answer.UNKNOWN

    async def _within(self, call: Awaitable[Any], timeout: float) -> bool:
        """Await this for so long, and leave it alone then: the client does not bear to be cancelled."""
        task = asyncio.ensure_future(call)
        self._left.add(task)
        task.add_done_callback(self._forget)
        done, _ = await asyncio.wait([task], timeout=timeout)
        if done:
            task.result()
        return bool(done)

    def _forget(self, task: asyncio.Future[Any]) -> None:
        self._left.discard(task)
        if not task.cancelled():
            task.exception()

    async def renew(self, lent: Sequence[Lent], timeout: float) -> list[float | Answer]:
        """One request each."""
        return list(await asyncio.gather(*(self._renew(one, timeout) for one in lent)))

    async def _renew(self, lent: Lent, timeout: float) -> float | Answer:
        try:
            moment = await self._receiver.renew_message_lock(lent.message, timeout=timeout)
        except MessageLockLostError:
            return Answer.LOST
        except Exception:  # noqa: BLE001 -- whatever it is, it is tried again
            return Answer.UNKNOWN
        return float(moment.timestamp())

    async def drain(self, timeout: float) -> None:
        """Let the call that waits end."""
        self._wanted = 0
        if self._call is not None and not self._call.done():
            await asyncio.wait([self._call], timeout=max(timeout, _WAIT + 1))

    async def close(self, timeout: float) -> None:
        """Close it; the client gives back what it has not handed out."""
        self._over = True
        self._news.set()
        call, self._call = self._call, None
        if call is not None:
            if not call.done():
                await asyncio.wait([call], timeout=max(timeout, _WAIT + 1))
            if call.done() and not call.cancelled() and call.exception() is None:
                del call
        closing = asyncio.ensure_future(self._receiver.close())
        with contextlib.suppress(BaseException):
            await asyncio.wait([closing], timeout=max(timeout, 2.0))
            if not closing.done():
                closing.cancel()
            await closing
        for task in list(self._left):
            task.cancel()
