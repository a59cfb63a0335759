"""Waiting for results: told by the server, for as many as wait, over one connection."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Mapping
from typing import Any

import msgspec
from camora.errors import BrokerUnavailable, ConfigurationError, DecodeError
from camora.outcome import JobRecord

from camora_redis.link import Link
from camora_redis.lookup import Lookup, finished, record_of
from camora_redis.subscription import Subscription

__all__ = ["Waiting"]

_FLOOR = 10.0
"""Seconds after which all that is waited for is looked at anyway: a message of a channel may get lost."""
_SHORTEST, _LONGEST = 0.05, 3.0
"""Seconds at most before another try, at first and at last."""
_AT_ONCE = 2
"""Looks under way; more ids wait for the next, so that the busier it is, the more travel together."""

_decode = msgspec.msgpack.Decoder(list[Any]).decode
_LENGTH = 8


class Waiting:
    """Those who wait, of one event loop. Nothing is sent, and in the end nothing open, while nobody does."""

    def __init__(self, link: Link, lookup: Lookup) -> None:
        self._link = link
        self._lookup = lookup
        self._waiting: dict[str, list[asyncio.Future[JobRecord | None]]] = {}
        self._due: dict[str, str] = {}
        self._looks: set[asyncio.Task[None]] = set()
        self._subscription: Subscription | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._woken = asyncio.Event()
        self._trouble: Exception | None = None
        self._unchecked = 0.0
        self._asked = False
        self._closed = False

    async def wait(self, job_id: str, timeout: float | None) -> JobRecord | None:
        """The finished record, or None after so many seconds or at the end.

        Raises `BrokerUnavailable` where nobody could look by then, and `DecodeError` for a record that is none.
        """
        if self._closed:
            raise BrokerUnavailable(f"{self._link.who} is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[JobRecord | None] = loop.create_future()
        self._waiting.setdefault(job_id, []).append(future)
        self._asked = True
        if self._watcher is None:
            self._start()
        elif self._listening:
            self._look_soon({job_id: ""})
        # Else the watcher looks at all, as soon as it is subscribed.
        timer = None if timeout is None else loop.call_later(timeout, self._give_up, future)
        try:
            return await future
        finally:
            if timer is not None:
                timer.cancel()
            self._leave(job_id, future)

    def _give_up(self, future: asyncio.Future[JobRecord | None]) -> None:
        if future.done():
            return
        if self._trouble is None:
            future.set_result(None)
        else:
            future.set_exception(BrokerUnavailable(str(self._trouble)))

    def _leave(self, job_id: str, future: asyncio.Future[JobRecord | None]) -> None:
        waiters = self._waiting.get(job_id)
        if waiters is not None and future in waiters:
            waiters.remove(future)
            if not waiters:
                del self._waiting[job_id]

    # Looking

    def _look_soon(self, places: Mapping[str, str]) -> None:
        """Look at jobs, together with those that others ask for in this turn of the loop."""
        if not self._due and len(self._looks) < _AT_ONCE:
            asyncio.get_running_loop().call_soon(self._set_out)
        self._due.update(places)

    def _set_out(self) -> None:
        places = {job_id: home for job_id, home in self._due.items() if job_id in self._waiting}
        self._due = {}
        if places and not self._closed:
            look = asyncio.get_running_loop().create_task(self._look_now(places))
            self._looks.add(look)
            look.add_done_callback(self._came_back)

    def _came_back(self, look: asyncio.Task[None]) -> None:
        self._looks.discard(look)
        if look.cancelled():
            self._woken.set()  # somebody cancels every task that there is: the watcher looks again
        elif (error := look.exception()) is not None:
            self._fail(error)
        if self._due:
            self._set_out()

    async def _look_now(self, places: Mapping[str, str]) -> None:
        trouble = await self._look(places)
        if trouble is not None:
            self._trouble = trouble
            self._woken.set()

    async def _look(self, places: Mapping[str, str]) -> Exception | None:
        """Hand out what is finished of these; what went wrong, if something did."""
        if not places:
            return None
        values, trouble = await self._lookup.values(places)
        for job_id, value in values.items():
            if finished(value):
                self._hand_out(job_id, value)
        return trouble

    def _hand_out(self, job_id: str, value: bytes) -> None:
        waiters = self._waiting.pop(job_id, ())
        if not waiters:
            return
        try:
            record = record_of(job_id, value)
        except DecodeError as error:
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(error)
            return
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(record)

    def _told(self, message: bytes) -> None:
        """Of finished jobs, as `tell` of `scripts/common.lua` says it: small values come along, others are fetched."""
        with contextlib.suppress(msgspec.MsgspecError, ValueError):
            at = _LENGTH + int(message[:_LENGTH], 16)
            home, *told = _decode(message[_LENGTH:at])
            if self._waiting.keys().isdisjoint(told[::2]):
                return
            for job_id, length in zip(told[::2], told[1::2], strict=True):
                value = message[at : at + length]
                at += length
                if job_id not in self._waiting:
                    continue
                if finished(value):
                    self._hand_out(job_id, value)
                else:
                    self._look_soon({job_id: home})

    # Watching

    @property
    def _listening(self) -> bool:
        return self._subscription is not None and not self._subscription.closed

    def _start(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._watch())
        self._watcher.add_done_callback(self._watched)

    def _watched(self, watcher: asyncio.Task[None]) -> None:
        if self._watcher is watcher:
            self._watcher = None
        if not watcher.cancelled() and (error := watcher.exception()) is not None:
            self._fail(error)
        elif self._waiting and not self._closed and self._watcher is None:
            # Cancelled by somebody else: those who wait must not wait for ever.
            self._start()

    async def _watch(self) -> None:
        """Be subscribed, and look now and then, until nobody has waited for a while."""
        tries = 0
        try:
            while self._waiting or self._asked:
                self._asked = False
                self._woken.clear()
                self._trouble = await self._round(tries)
                if not self._waiting and not self._listening:
                    return
                if self._trouble is None and not await self._woken_within(_FLOOR):
                    tries = 0
                else:
                    tries += 1
                    await asyncio.sleep(random.uniform(0, min(_LONGEST, _SHORTEST * 2**tries)))  # noqa: S311
        finally:
            self._watcher = None
            subscription, self._subscription = self._subscription, None
            if subscription is not None:
                await subscription.close()

    async def _round(self, tries: int) -> Exception | None:
        """Look at all, subscribed or not; what went wrong, if something did."""
        trouble = await self._look(dict.fromkeys(self._waiting, ""))
        if self._subscription is not None and not self._subscription.closed:
            self._check(self._subscription)
            return trouble
        if not self._waiting:
            return trouble
        try:
            await self._subscribe(tries)
        except (BrokerUnavailable, ConfigurationError) as error:
            return error
        # What ended before it was subscribed was told to nobody.
        return await self._look(dict.fromkeys(self._waiting, ""))

    def _check(self, subscription: Subscription) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._unchecked + _FLOOR:
            self._unchecked = now
            subscription.check()

    async def _subscribe(self, tries: int) -> None:
        # A channel can be heard at every node of a cluster: when one does not answer, at another.
        homes = self._link.topology.homes() or [""]
        subscription = Subscription(self._link, self._link.store.keys.finished, told=self._told, ended=self._woken.set)
        await subscription.open(homes[tries % len(homes)])
        self._subscription = subscription
        self._unchecked = asyncio.get_running_loop().time()

    def _fail(self, error: BaseException) -> None:
        """What nobody has foreseen is for those who wait."""
        for waiters in self._waiting.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_exception(error)

    async def _woken_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._woken.wait()
        except TimeoutError:
            return False

    # The end

    async def close(self) -> None:
        """End all waiting with None. May be repeated."""
        self._closed = True
        for waiters in self._waiting.values():
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)
        tasks = [*self._looks, *([self._watcher] if self._watcher is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def abandon(self) -> None:
        """Let go of the socket of a loop that is gone."""
        self._closed = True
        if self._subscription is not None:
            self._subscription.abandon()
