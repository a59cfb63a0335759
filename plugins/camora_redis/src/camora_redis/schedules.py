"""Schedules in Redis, for the schedulers of any number of processes and machines."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Self

from camora.errors import BrokerUnavailable, ConfigurationError
from camora.interfaces.schedule import Fire, ScheduleRecord, ScheduleStore

from camora_redis.calling import answered
from camora_redis.link import Link
from camora_redis.opening import check_server
from camora_redis.schedule_records import records_from, replacing, text_of
from camora_redis.scripting import script
from camora_redis.store import Store
from camora_redis.subscription import Subscription

__all__ = ["RedisScheduleStore"]

_CHANGE = script("schedule_change")
_CLAIM = script("schedule_claim")
_DUE = script("schedule_due")
_READ = script("schedule_read")
_CHECK_EVERY = 30.0
"""Seconds between two signs of life that are asked for on the connection that listens."""


class RedisScheduleStore(ScheduleStore):
    """Each method is one script, so one atomic step. In a cluster all schedules of a prefix lie in one slot."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._link = Link(store, f"RedisScheduleStore({store.label})")
        own = store.keys.own
        self._definitions, self._states = own("schedules"), own("schedules:states")
        self._due, self._lent, self._mark = own("schedules:due"), own("schedules:lent"), own("schedules:mark")
        self._channel = f"{store.keys.prefix}:schedules"
        self._ear = _Ear(self._link, self._mark, self._channel)
        self._seen: bytes | None = None

    def __repr__(self) -> str:
        return f"RedisScheduleStore({self._store.label!r})"

    async def open(self) -> None:
        """Connect, and look what server it is."""
        await check_server(self._link)
        self._seen = await self._read_mark()

    # Changing

    async def put(self, records: Sequence[ScheduleRecord]) -> None:
        """One look, then one step; again if somebody else was faster with the same schedules."""
        if not records:
            return
        keys = list(dict.fromkeys(record.key for record in records))
        while True:
            call = self._link.call(self._definitions, "HMGET", self._definitions, *keys)
            known = dict(zip(keys, await answered(self._link, call), strict=True))
            words = list(replacing(known, records))
            if not words or await self._change("put", words):
                return

    async def remove(self, keys: Sequence[str]) -> int:
        """One step."""
        return await self._change("remove", keys) if keys else 0

    async def pause(
        self, keys: Sequence[str], *, paused: bool | None = True, next_ticks: Sequence[int | None] = ()
    ) -> int:
        """One step."""
        if not keys:
            return 0
        flag = "" if paused is None else int(paused)
        words: list[Any] = []
        for place, key in enumerate(keys):
            words += (key, flag, int(bool(next_ticks)), text_of(next_ticks[place] if next_ticks else None))
        return await self._change("pause", words)

    async def advance(self, fire: Fire, *, last: int | None, next_tick: int | None, job_id: str = "") -> bool:
        """Fenced by the receipt."""
        words = (fire.record.key, str(fire.receipt), text_of(next_tick), text_of(last), job_id)
        return bool(await self._change("advance", words))

    async def _change(self, what: str, words: Sequence[Any]) -> int:
        keys = (self._definitions, self._states, self._due, self._lent, self._mark)
        call = self._link.run(_CHANGE, keys, what, self._channel, os.urandom(8).hex(), *words)
        return int(await answered(self._link, call))

    # Looking

    async def get(self, keys: Sequence[str]) -> Sequence[ScheduleRecord | None]:
        """One look."""
        found = {record.key: record for record in await self._read(keys)} if keys else {}
        return [found.get(key) for key in keys]

    async def list(self, group: str | None = None) -> Sequence[ScheduleRecord]:
        """One look."""
        found = [record for record in await self._read(()) if group is None or record.group == group]
        return sorted(found, key=lambda record: record.key)

    async def _read(self, keys: Sequence[str]) -> Sequence[ScheduleRecord]:
        call = self._link.run(_READ, (self._definitions, self._states), *keys)
        return records_from(await answered(self._link, call))

    # Lending

    async def claim(
        self, now: int, *, holder: str, lease: float, groups: Sequence[str] | None = None, limit: int = 100
    ) -> Sequence[Fire]:
        """One step."""
        if limit <= 0 or _nobody(groups):
            return []
        receipt = os.urandom(8).hex()
        keys = (self._definitions, self._states, self._due, self._lent)
        call = self._link.run(_CLAIM, keys, now, round(lease * 1000), limit, receipt, *(groups or ()))
        return [Fire(record=record, receipt=receipt) for record in records_from(await answered(self._link, call))]

    async def next_due(self, groups: Sequence[str] | None = None) -> int | None:
        """One look."""
        if _nobody(groups):
            return None
        call = self._link.run(_DUE, (self._states, self._due, self._lent), *(groups or ()))
        moment = await answered(self._link, call)
        return None if moment is None else int(moment)

    # Waiting

    async def changed(self, timeout: float) -> None:
        """Told by a channel, which is listened to from the first call on; nothing is asked while nothing changes."""
        seen = self._seen
        with contextlib.suppress(TimeoutError), self._ear.woken() as woken:
            async with asyncio.timeout(max(timeout, 0)):
                while True:
                    await self._ear.listen()
                    woken.clear()
                    # Listened first, looked second: what comes in between wakes.
                    self._seen = await self._read_mark()
                    if self._seen != seen:
                        return
                    await woken.wait()

    async def _read_mark(self) -> bytes | None:
        mark: bytes | None = await answered(self._link, self._link.call(self._mark, "GET", self._mark))
        return mark

    def twin(self) -> Self:
        """Another one on the same data, with connections of its own."""
        return type(self)(self._store)

    def abandon(self) -> None:
        """Let go of the sockets of a loop that is gone."""
        self._ear.abandon()
        self._link.abandon()

    async def close(self) -> None:
        """Close all connections."""
        await self._ear.close()
        await self._link.close()


class _Ear:
    """Wakes those who wait for changes: when there is one, and when one may have been missed."""

    def __init__(self, link: Link, key: str, channel: str) -> None:
        self._link = link
        self._key = key
        self._channel = channel
        self._waiting: set[asyncio.Event] = set()
        self._subscription: Subscription | None = None
        self._opening: asyncio.Task[None] | None = None
        self._check_at = 0.0
        self._closed = False

    @contextlib.contextmanager
    def woken(self) -> Iterator[asyncio.Event]:
        """An event that is set by each change meanwhile."""
        event = asyncio.Event()
        self._waiting.add(event)
        try:
            yield event
        finally:
            self._waiting.discard(event)

    async def listen(self) -> None:
        """Return when nothing is missed from now on. Raises `BrokerUnavailable`."""
        if self._closed:
            raise BrokerUnavailable(f"{self._link.who} is closed")
        loop = asyncio.get_running_loop()
        if self._subscription is not None and not self._subscription.closed:
            if loop.time() >= self._check_at:
                self._check_at = loop.time() + _CHECK_EVERY
                self._subscription.check()
            return
        if self._opening is None or self._opening.done():
            self._opening = loop.create_task(self._open())
            self._opening.add_done_callback(lambda done: done.cancelled() or done.exception())
        # Shielded: waits may be shorter than it takes.
        await asyncio.shield(self._opening)

    async def _open(self) -> None:
        if self._subscription is not None:
            # The last one broke: not all at once come back.
            await asyncio.sleep(random.uniform(0, 0.2))  # noqa: S311 -- jitter
        subscription = Subscription(self._link, self._channel, told=lambda _: self._wake(), ended=self._wake)
        await subscription.open(self._key)
        self._subscription = subscription
        self._check_at = asyncio.get_running_loop().time() + _CHECK_EVERY

    def _wake(self) -> None:
        for event in self._waiting:
            event.set()

    async def close(self) -> None:
        """Close its connection. May be repeated."""
        self._closed = True
        if self._opening is not None and not self._opening.done():
            with contextlib.suppress(BrokerUnavailable, ConfigurationError):
                await self._opening
        if self._subscription is not None:
            await self._subscription.close()

    def abandon(self) -> None:
        """Let go of its socket although the event loop is gone."""
        self._closed = True
        if self._subscription is not None:
            self._subscription.abandon()


def _nobody(groups: Collection[str] | None) -> bool:
    return groups is not None and not groups
