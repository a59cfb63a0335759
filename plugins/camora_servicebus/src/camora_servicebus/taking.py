"""Taking chosen messages out of an entity. The service hands out the oldest: others are held meanwhile, and given back.

It is used for dead letters, and to empty a queue. What is held by a process that dies comes back when its locks lapse.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import attrs
from azure.servicebus import ServiceBusMessageState
from azure.servicebus.exceptions import MessageLockLostError
from camora.errors import BrokerUnavailable

from camora_servicebus import internals

__all__ = ["Taken", "take"]

_BATCH = 200
_WAIT = 1.0
"""Seconds that the service is waited for when it hands nothing out; less would be over before an answer is here."""

Chosen = Callable[[Any], bool]
Use = Callable[[Any], Awaitable[None]]


@attrs.frozen
class Taken:
    """How many messages were deleted. `clean`: the service owes the receiver none that it was asked for.

    Else it goes on handing them out, so the receiver is to be closed.
    """

    count: int
    clean: bool


async def take(
    receiver: Any,
    chosen: Chosen,
    *,
    another: Callable[[], AbstractAsyncContextManager[Any]],
    timeout: float,
    use: Use | None = None,
    patient: bool = True,
    numbers: Collection[int] = (),
) -> Taken:
    """Delete the chosen ones of those messages that are there now.

    `use` is called with each one while it is locked, before it is deleted. Others may hold some of them: `patient`
    waits for these as long as `timeout`, and then raises `BrokerUnavailable`; else they stay. `another` opens a
    receiver in place of one whose connection is gone. `numbers`, the sequence numbers of the chosen ones where they are
    known, save looking for them.
    """
    async with AsyncExitStack() as stack:
        taking = _Taking(receiver, chosen, timeout, use, lambda: stack.enter_async_context(another()))
        try:
            await taking.run(numbers, patient=patient)
            return Taken(taking.done, taking.clean)
        finally:
            await taking.give_back()


class _Taking:
    def __init__(
        self, receiver: Any, chosen: Chosen, timeout: float, use: Use | None, reopen: Callable[[], Awaitable[Any]]
    ) -> None:
        self._receiver = receiver
        self._chosen = chosen
        self._timeout = timeout
        self._use = use
        self._reopen = reopen
        self._held: list[Any] = []
        self._lost: list[Any] = []
        """Those that are held by a connection that is gone."""
        self._doubtful: set[int] = set()
        """Sequence numbers of those of which nobody knows whether they are deleted."""
        self._end: int | None = None
        """The last sequence number that was there in the beginning: whoever sends meanwhile must not keep us here."""
        self.done = 0
        self.clean = True

    async def run(self, numbers: Collection[int], *, patient: bool) -> None:
        """Until none of them is left."""
        left, ahead = (set(numbers), 0) if numbers else await self._look()
        moved, few = time.monotonic(), 1
        while left:
            # Where nobody has looked, more and more.
            count = max(1, ahead - len(self._held) - len(self._lost)) if ahead else few
            count, few = min(_BATCH, count), 2 * few
            came = await self._receiver.receive_messages(max_message_count=count, max_wait_time=_WAIT)
            self.clean = self.clean and len(came) == count
            mine = [message for message in came if message.sequence_number in left]
            self._held += [message for message in came if message.sequence_number not in left]
            if mine:
                left.difference_update(message.sequence_number for message in mine)
                await self._delete(mine)
                moved = time.monotonic()
            elif not came:
                if not patient:
                    break
                if time.monotonic() - moved > self._timeout:
                    raise BrokerUnavailable(
                        f"{len(left)} messages are in somebody else's hands; try again when their locks have lapsed"
                    )
                left, ahead = await self._look()
            if not came or self._doubtful:
                there, _ = await self._look()
                self.done += len(self._doubtful - there)
                left |= self._doubtful & there
                self._doubtful.clear()

    async def _look(self) -> tuple[set[int], int]:
        """Numbers of the chosen ones that are there, and how many there are up to the last of them."""
        numbers: set[int] = set()
        ahead = seen = last = 0
        while True:
            page = await self._receiver.peek_messages(_BATCH, sequence_number=last + 1, timeout=self._timeout)
            for message in page:
                last = message.sequence_number
                if self._end is not None and last > self._end:
                    return numbers, ahead
                if message.state == ServiceBusMessageState.ACTIVE:
                    seen += 1
                    if self._chosen(message):
                        numbers.add(last)
                        ahead = seen
            if not page:
                self._end = last if self._end is None else self._end
                return numbers, ahead

    async def _delete(self, messages: Sequence[Any]) -> None:
        if self._use is not None:
            for message in messages:
                await self._use(message)
        for last in (False, False, True):
            failed: list[Any] = []
            answers = await self._all([self._receiver.complete_message(message) for message in messages])
            for message, answer in zip(messages, answers, strict=True):
                if answer is None:
                    self.done += 1
                elif isinstance(answer, MessageLockLostError):
                    # Perhaps it is, and the answer was lost: the service tells the same then.
                    self._doubtful.add(message.sequence_number)
                elif last:
                    raise answer
                else:
                    failed.append(message)
            if not failed:
                return
            # The locks are still ours, whatever became of the connection.
            self._receiver = await self._reopen()
            self.clean = False
            self._lost += self._held
            self._held = []
            messages = [internals.by_token(message) for message in failed]

    async def give_back(self) -> None:
        """At once; those for which that fails come back when their locks lapse."""
        calls = [internals.release(self._receiver, message) for message in self._held]
        calls += [self._receiver.abandon_message(internals.by_token(message)) for message in self._lost]
        self._held, self._lost = [], []
        if calls:
            await self._all(calls)

    async def _all(self, calls: Sequence[Coroutine[Any, Any, None]]) -> list[BaseException | None]:
        """What each one raised. The client waits long for answers: after our own time its connection is cut."""
        tasks = [asyncio.ensure_future(call) for call in calls]
        _, late = await asyncio.wait(tasks, timeout=self._timeout)
        if late:
            internals.abort(self._receiver)
            _, stuck = await asyncio.wait(late, timeout=_WAIT)
            for task in stuck:
                task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        return [TimeoutError() if isinstance(one, asyncio.CancelledError) else one for one in answers]
