"""Schedules in RabbitMQ alone: all of them are one message, and whoever holds it may change them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Self, TypeVar

import aiormq.exceptions
import msgspec
from camora.errors import CamoraError, ConfigurationError
from camora.interfaces.schedule import Fire, ScheduleRecord, ScheduleStore
from pamqp import commands

from camora_amqp.alone import alone
from camora_amqp.control import Control
from camora_amqp.declaring import server_version
from camora_amqp.news import News
from camora_amqp.store import Store
from camora_amqp.timetable import Timetable

__all__ = ["AmqpScheduleStore"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
_Found = list[tuple[Timetable, int]]
"""Messages: what each says, and its tag."""

_LARGEST = 8 * 1024 * 1024
"""Bytes of the message: it is sent anew with each change."""
_LOST = 2.0
"""Seconds within which the message of a holder that has died comes back."""
_LOOK = 0.01


class AmqpScheduleStore(ScheduleStore):
    """A queue with one persistent message in it, for some hundred schedules.

    Each operation takes the message under a lock; a change stores the new one (confirmed), and then acknowledges the
    old one. Whoever dies in between leaves two: the one with the higher version counts.
    """

    last_resort = True

    def __init__(self, store: Store) -> None:
        self._store = store
        self._control = Control(store, repr(self))
        self._queue = f"{store.settings.prefix}camora.schedules"
        """Its name, and that of the exchange for news of changes."""
        self._news = News(store, self._queue)
        self._made = False
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"AmqpScheduleStore({self._store.label!r})"

    async def open(self) -> None:
        """Connect, and make the queue."""
        await self._look(lambda _: None)

    # Operations

    async def put(self, records: Sequence[ScheduleRecord]) -> None:
        """One step for all."""
        if records:
            await self._change(lambda table: table.put(records), told=True)

    async def remove(self, keys: Sequence[str]) -> int:
        """One step for all."""
        return await self._change(lambda table: table.remove(keys), told=True) if keys else 0

    async def get(self, keys: Sequence[str]) -> Sequence[ScheduleRecord | None]:
        """One look."""
        return await self._look(lambda table: [table.get(key) for key in keys]) if keys else []

    async def list(self, group: str | None = None) -> Sequence[ScheduleRecord]:
        """One look."""
        return await self._look(lambda table: table.all(group))

    async def pause(
        self, keys: Sequence[str], *, paused: bool | None = True, next_ticks: Sequence[int | None] = ()
    ) -> int:
        """One step for all."""
        return await self._change(lambda table: table.pause(keys, paused, next_ticks), told=True) if keys else 0

    async def claim(
        self, now: int, *, holder: str, lease: float, groups: Sequence[str] | None = None, limit: int = 100
    ) -> Sequence[Fire]:
        """One step for all."""
        return await self._change(lambda table: table.claim(now, round(lease * 1000), groups, limit))

    async def advance(self, fire: Fire, *, last: int | None, next_tick: int | None, job_id: str = "") -> bool:
        """Fenced by the receipt."""
        return await self._change(lambda table: table.advance(fire, last, next_tick, job_id))

    async def next_due(self, groups: Sequence[str] | None = None) -> int | None:
        """One look."""
        return await self._look(lambda table: table.next_due(groups))

    async def changed(self, timeout: float) -> None:
        """Woken by a message of whoever has changed one."""
        await self._news.wait(timeout)

    # The message

    async def _look(self, look: Callable[[Timetable], T]) -> T:
        async with self._held() as (channel, table, tags):
            answer = look(table)
            await self._give_back(channel, tags)
            return answer

    async def _change(self, change: Callable[[Timetable], T], *, told: bool = False) -> T:
        """Do this to the timetable; its answer is false where it has changed nothing."""
        async with self._held() as (channel, table, tags):
            try:
                answer = change(table)
                body = self._body(table) if answer else b""
            except CamoraError:
                await self._give_back(channel, tags)
                raise
            if not answer:
                await self._give_back(channel, tags)
                return answer
            await self._publish(channel, self._queue, body)
            for tag in tags:
                await channel.basic_ack(tag)
            if told:
                await channel.basic_publish(b"", exchange=self._queue, routing_key="")
            return answer

    def _body(self, table: Timetable) -> bytes:
        table.version += 1
        body = msgspec.msgpack.encode(table)
        if len(body) > _LARGEST:
            raise ConfigurationError(
                f"{self!r}: {len(table.lines)} schedules are {len(body)} bytes; all of them are one message here, "
                f"of at most {_LARGEST} bytes. Keep them in a database: results='sqlite:///camora.db' (camora-sql)"
            )
        return body

    @contextlib.asynccontextmanager
    async def _held(self) -> AsyncIterator[tuple[Any, Timetable, Sequence[int]]]:
        """A channel that holds the message, what it says, and its tag, after those of messages that it outdates."""
        patience = self._store.settings.timeout * 2
        async with self._turn, alone(self._control, f"{self._queue}.lock", patience) as channel:
            if not self._made:
                await self._make(channel)
            try:
                found = await self._take(channel)
            except aiormq.exceptions.ChannelNotFoundEntity:
                self._made = False  # somebody has deleted it; the next use makes it anew
                raise
            if not found:
                found = await self._begin(channel)
            found.sort(key=lambda pair: pair[0].version)
            if len(found) > 1:
                logger.info("%r: finishing a change that was cut off", self)
            yield channel, found[-1][0], [tag for _, tag in found]

    async def _make(self, channel: Any) -> None:
        """Make the queue, with a message in it."""
        probe = await channel.connection.channel()
        try:
            await probe.queue_declare(queue=self._queue, passive=True)
            fresh = False
        except aiormq.exceptions.ChannelNotFoundEntity:
            fresh = True
        else:
            await probe.close()
        kind = self._store.settings.queue_type
        arguments: dict[str, Any] = {"x-queue-type": kind}
        if kind == "quorum" and server_version(channel) >= (4,):
            arguments["x-delivery-limit"] = -1  # each look at it counts as taking it
        await channel.exchange_declare(exchange=self._queue, exchange_type="fanout", durable=True)
        await channel.queue_declare(queue=self._queue, durable=True, arguments=arguments)
        if fresh:
            await self._publish(channel, self._queue, msgspec.msgpack.encode(Timetable()))
        self._made = True

    async def _begin(self, channel: Any) -> _Found:
        """Wait for a message that its holder has taken along, or that was never put in after the queue was made."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _LOST
        while not (found := await self._take(channel)):
            if loop.time() > deadline:
                await self._publish(channel, self._queue, msgspec.msgpack.encode(Timetable()))
            await asyncio.sleep(_LOOK)
        return found

    async def _take(self, channel: Any) -> _Found:
        found: _Found = []
        while isinstance((message := await channel.basic_get(self._queue)).delivery, commands.Basic.GetOk):
            try:
                table = msgspec.msgpack.decode(message.body, type=Timetable)
            except msgspec.DecodeError as error:
                raise ConfigurationError(
                    f"{self!r}: queue {self._queue!r} has a message that is not Camora's, or a newer one's: {error}. "
                    "Take it out, or use another prefix"
                ) from error
            found.append((table, message.delivery.delivery_tag or 0))
        return found

    async def _publish(self, channel: Any, queue: str, body: bytes) -> None:
        properties = commands.Basic.Properties(delivery_mode=2, content_type="application/msgpack")
        await channel.basic_publish(body, exchange="", routing_key=queue, properties=properties, mandatory=True)

    async def _give_back(self, channel: Any, tags: Sequence[int]) -> None:
        for tag in tags[:-1]:
            await channel.basic_ack(tag)
        await channel.basic_nack(tags[-1], requeue=True)
        # That is not answered: look until it is there, so that the next holder does not find the queue empty.
        count = 0
        while not count:
            count = (await channel.queue_declare(queue=self._queue, passive=True)).message_count

    # Life and end

    def twin(self) -> Self:
        """On the same message."""
        return type(self)(self._store)

    def abandon(self) -> None:
        """Let go of the sockets of a loop that is gone."""
        self._news.abandon()
        self._control.abandon()

    async def close(self) -> None:
        """The schedules stay on the server."""
        await self._news.close()
        await self._control.close()
