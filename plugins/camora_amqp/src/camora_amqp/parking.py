"""Jobs that run for longer than the server waits for an acknowledgement.

RabbitMQ closes the channel of whoever keeps a message for longer than `consumer_timeout`, 30 minutes by default, and
gives it to somebody else while the job still runs (https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout). So
a message that has been held for a while is exchanged for a copy, in a queue of this worker's own: the copy is
published, taken, and only then is the first one acknowledged; its time begins anew. When the worker dies, its copies
are dead-lettered from there to the queue where they belong.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from camora.errors import CamoraError
from pamqp import commands

from camora_amqp import frames
from camora_amqp.confirming import Confirming
from camora_amqp.errors import Refused, WireLost
from camora_amqp.lent import Ledger, Lent
from camora_amqp.messages import PARKED, Outgoing, recounted
from camora_amqp.store import Store
from camora_amqp.wire import Channel, Wire

__all__ = ["Parking"]

_STAY = 10_000
"""Milliseconds that a copy may take to come back to its worker; older ones, given back by the server, leave at once."""
_UNUSED = 86_400_000
"""Milliseconds after which the server deletes the queue of a worker that is gone."""


class Parking:
    """Of one connection. Belongs to its loop."""

    def __init__(self, store: Store, ledger: Ledger, wire: Wire, copier: Callable[[], Awaitable[Confirming]]) -> None:
        self._store = store
        self._ledger = ledger
        self._wire = wire
        self._name = os.urandom(8).hex()
        self._channels: dict[str, Channel] = {}
        self._queues: dict[str, int] = {}
        self._moving: dict[str, Lent] = {}
        self._numbers = 0
        self._copier = copier

    async def move(self, some: Sequence[Lent]) -> None:
        """Exchange these. What does not work out stays as it is, and is tried again."""
        marks: dict[str, tuple[Lent, float]] = {}
        failed: Iterable[str] = ()
        try:
            for one in some:
                if one.queue not in self._channels:
                    self._channels[one.queue] = await self._open(one.queue)
            copier = await self._copier()
            copies = []
            for one in some:
                self._numbers += 1
                mark = str(self._numbers)
                marks[mark] = one, one.since
                one.since = time.monotonic()
                self._moving[mark] = one
                header = recounted(one.message, one.properties, one.deliveries, mark)
                copies.append(Outgoing("", "", self._queue(one.queue), header, one.message.body))
            reasons = await copier.send(copies)
            failed = [mark for mark, reason in zip(marks, reasons, strict=True) if reason is not None]
        except (WireLost, Refused, CamoraError):
            failed = marks
        for mark in failed:
            # A copy that is there all the same is nobody's, and is taken away when it comes.
            one, since = marks[mark]
            if self._moving.pop(mark, None) is not None:
                one.since = since

    def _queue(self, queue: str) -> str:
        number = self._queues.setdefault(queue, len(self._queues))
        return f"{self._store.settings.prefix}camora.parked.{self._name}.{number}"

    async def _open(self, queue: str) -> Channel:
        settings = self._store.settings
        channel = await self._wire.channel()
        arguments: dict[str, Any] = {
            "x-queue-type": settings.queue_type,
            "x-message-ttl": _STAY,
            "x-expires": _UNUSED,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": self._store.names.queue(queue),
        }
        if settings.queue_type == "quorum":
            arguments |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
        name = self._queue(queue)
        await channel.call(commands.Queue.Declare(0, name, False, True, False, False, False, arguments))
        self._ledger.open(channel)
        channel.on_deliver = lambda message: self._on_deliver(channel, message)
        channel.on_close = lambda error: self._on_close(channel, queue)
        # The queue was deleted. What came by it is held on, and the next copies need another one.
        channel.on_cancel = lambda _: self._forget(channel, queue)
        await channel.call(commands.Basic.Consume(0, name, "camora", False, False, False, False, {}))
        return channel

    def _on_close(self, channel: Channel, queue: str) -> None:
        self._ledger.lose(channel)
        self._forget(channel, queue)

    def _forget(self, channel: Channel, queue: str) -> None:
        if self._channels.get(queue) is channel:
            del self._channels[queue]

    def _on_deliver(self, channel: Channel, message: frames.Deliver) -> None:
        if message.redelivered:
            # It was given back: from here it goes to the queue where it belongs.
            channel.wire.write(frames.nack(channel.number, message.tag, requeue=False))
            return
        found = frames.read_properties(message.properties)
        one = self._moving.pop(str(found.headers.get(PARKED, "")), None)
        before = None if one is None else self._ledger.move(one, channel, message)
        if before is None:
            # It was settled, or lost, while its copy was on the way: then its own message says what becomes of it.
            channel.wire.write(frames.ack(channel.number, message.tag))
            return
        was, tag = before
        was.wire.write(frames.ack(was.number, tag))
