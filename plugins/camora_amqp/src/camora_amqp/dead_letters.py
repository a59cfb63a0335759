"""The dead letters: one queue, read through without taking anything away."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

from camora.errors import BrokerUnavailable
from camora.interfaces.dead_letters import DeadLetters
from camora.message import Envelope
from camora.outcome import DeadLetter

from camora_amqp.alone import alone
from camora_amqp.control import Control
from camora_amqp.letters import letter_of
from camora_amqp.publishing import Publisher, Unroutable
from camora_amqp.store import Store

__all__ = ["AmqpDeadLetters"]

_QUIET = 2.0
"""Seconds without another message after which the end of the queue is reached, whatever its count said."""


class AmqpDeadLetters(DeadLetters):
    """RabbitMQ has no look into a queue: letters are taken, looked at, and given back when the channel closes.

    Whoever looks is alone with the queue for so long; others wait for their turn.
    """

    def __init__(self, store: Store, control: Control, publisher: Publisher) -> None:
        self._store = store
        self._control = control
        self._publisher = publisher
        self._turn = asyncio.Lock()

    async def list(self, *, queue: str | None = None, limit: int = 100, after: str = "") -> Sequence[DeadLetter]:
        """A page: all letters are looked through."""
        page: list[tuple[str, int, DeadLetter]] = []

        def look(letter: DeadLetter, tag: int) -> None:
            nonlocal page
            if letter.id > after and queue in (None, letter.queue):
                page.append((letter.id, tag, letter))
                if len(page) > 4 * limit + 100:
                    page = heapq.nsmallest(limit, page)

        async with self._all(look):
            pass
        return [letter for _, _, letter in heapq.nsmallest(limit, page)]

    async def get(self, job_id: str) -> DeadLetter | None:
        """One."""
        found: DeadLetter | None = None

        def look(letter: DeadLetter, tag: int) -> None:
            nonlocal found
            if letter.id == job_id:
                found = letter

        async with self._all(look):
            pass
        return found

    async def requeue(self, job_id: str, *, body: bytes | None = None) -> bool:
        """Stored in its queue first, then taken from the letters."""
        found: list[tuple[int, DeadLetter]] = []

        def look(letter: DeadLetter, tag: int) -> None:
            if letter.id == job_id:
                found.append((tag, letter))

        async with self._all(look) as held:
            if not found:
                return False
            letter = found[0][1]
            envelope = Envelope(
                id=letter.id, task=letter.task, queue=letter.queue, body=letter.body if body is None else body
            )
            # What it ended as stands for good, and would hide what comes of it now.
            self._store.replies().inbox.forget([job_id])
            reply_to = held.replies.get(found[0][0], "")
            try:
                await self._publisher.publish(await self._publisher.jobs([envelope], reply_to=reply_to))
            except Unroutable as error:
                raise BrokerUnavailable(f"job {job_id} stays a dead letter: queue {letter.queue!r}: {error}") from error
            await held.take([tag for tag, _ in found])
        return True

    async def purge(self, *, queue: str | None = None, ids: Sequence[str] | None = None) -> int:
        """Delete for good."""
        chosen = None if ids is None else set(ids)
        tags: list[int] = []

        def look(letter: DeadLetter, tag: int) -> None:
            if queue in (None, letter.queue) and (chosen is None or letter.id in chosen):
                tags.append(tag)

        async with self._all(look) as held:
            await held.take(tags)
        return len(tags)

    @contextlib.asynccontextmanager
    async def _all(self, look: Callable[[DeadLetter, int], None]) -> AsyncIterator[_Held]:
        """Look at each letter; they are held until the block ends."""
        name = self._store.names.dead
        if not self._publisher.declarer.known("dead", name):
            await self._publisher.declarer.queues(["default"])
        patience = self._store.settings.timeout * 2
        async with self._turn, alone(self._control, f"{name}.lock", patience) as channel:
            held = _Held(channel, name)
            await self._look(held, look)
            yield held
            await held.give_back()

    async def _look(self, held: _Held, look: Callable[[DeadLetter, int], None]) -> None:
        left = await held.ready()
        if not left:
            return
        arrived = asyncio.Event()
        done = asyncio.Event()

        async def take(message: Any) -> None:
            nonlocal left
            found = message.header.properties
            letter = letter_of(
                self._store,
                message_id=found.message_id or "",
                task=found.message_type or "",
                headers=found.headers or {},
                body=message.body,
                routing_key=message.delivery.routing_key or "",
            )
            look(letter, message.delivery.delivery_tag)
            held.count += 1
            if found.reply_to:
                held.replies[message.delivery.delivery_tag] = found.reply_to
            left -= 1
            arrived.set()
            if left <= 0:
                done.set()

        await held.channel.basic_consume(held.name, take, consumer_tag="camora-look")
        while not done.is_set():
            arrived.clear()
            try:
                async with asyncio.timeout(_QUIET):
                    await arrived.wait()
            except TimeoutError:
                break
        await held.channel.basic_cancel("camora-look")


class _Held:
    """Letters that are held by a channel while somebody looks at them."""

    def __init__(self, channel: Any, name: str) -> None:
        self.channel = channel
        self.name = name
        self.count = 0
        self.replies: dict[int, str] = {}
        """By tag, to which queue results go."""

    async def ready(self) -> int:
        """How many there are for who looks next."""
        told = await self.channel.queue_declare(queue=self.name, passive=True)
        return int(told.message_count or 0)

    async def take(self, tags: Sequence[int]) -> None:
        """Take these away; when it returns the server has got so far."""
        for tag in tags:
            await self.channel.basic_ack(tag, wait=tag == tags[-1])
        self.count -= len(tags)
        await self.channel.basic_qos(prefetch_count=1)

    async def give_back(self) -> None:
        """The rest goes back, and is there when this returns: whoever looks next must not miss any."""
        if not self.count:
            return
        await self.channel.basic_nack(0, multiple=True)
        until = time.monotonic() + _QUIET
        while await self.ready() < self.count and time.monotonic() < until:  # noqa: ASYNC110 -- the server tells nobody
            await asyncio.sleep(0.005)
