"""Broadcasts on channels: what travels, and one worker's ear for a channel."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Callable, Sequence

import msgspec
from camora.errors import BrokerUnavailable, ConfigurationError
from camora.message import Delivery, Envelope

from camora_redis.identity import head_of
from camora_redis.kinds import PubSubQueue
from camora_redis.lasting import Lasting
from camora_redis.link import Link
from camora_redis.subscription import Subscription

__all__ = ["Ear", "broadcast", "packed_broadcast"]

_CHECK = 10.0
"""Seconds after which a silent connection is asked for a sign of life."""
_SHORTEST, _LONGEST = 0.05, 2.0
"""Seconds at most before another try to listen, at first and at last."""
_QUIET = 1.0
"""Seconds for which dropped messages are counted, before that is logged."""
_REMEMBERED = 10_000
"""How many ids are remembered: a dispatch whose answer was lost is repeated under its id."""

logger = logging.getLogger("camora.redis")


class _Spoken(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A message on a channel: a MessagePack array."""

    id: str
    task: str
    body: bytes


_pack = msgspec.msgpack.Encoder().encode
_read = msgspec.msgpack.Decoder(_Spoken).decode
_ARRAY_OF_THREE = 0x93


def packed_broadcast(envelope: Envelope) -> bytes:
    """A message as it travels on a channel."""
    return _pack(_Spoken(envelope.id, envelope.task, envelope.body))


def _heard(queue: str, said: bytes) -> Delivery:
    """What was said, as a delivery. A bare message in the wire format will do, too."""
    if said[:1] == bytes((_ARRAY_OF_THREE,)):
        with contextlib.suppress(msgspec.MsgspecError):
            spoken = _read(said)
            return Delivery(id=spoken.id, queue=queue, body=spoken.body)
    return Delivery(id=head_of(said).id, queue=queue, body=said)


async def broadcast(link: Link, envelopes: Sequence[Envelope]) -> None:
    """Say each to those who listen now. Raises as `Link.call`."""
    keys = link.store.keys
    channels = [keys.channel(envelope.queue) for envelope in envelopes]
    calls = [
        (channel, ("PUBLISH", channel, packed_broadcast(envelope)))
        for channel, envelope in zip(channels, envelopes, strict=True)
    ]
    listeners = await link.calls(calls)
    if logger.isEnabledFor(logging.DEBUG):
        for channel, envelope, count in zip(channels, envelopes, listeners, strict=True):
            # In a cluster the server counts only those that listen to itself.
            logger.debug("job %s on %s: heard by %d", envelope.id, channel, count)


class Ear:
    """Listens to one broadcast queue, and keeps what it hears until it is taken. Belongs to one event loop.

    `woken()` is called when there is something to be taken.
    """

    def __init__(self, link: Link, queue: PubSubQueue, woken: Callable[[], None]) -> None:
        self.queue = queue.name
        self._link = link
        self._woken = woken
        self._room = queue.buffer
        self._channel = link.store.keys.channel(queue.name)
        self._waiting: deque[Delivery] = deque()
        self._later: dict[Delivery, asyncio.TimerHandle] = {}
        self._ids: dict[str, None] = {}
        self._dropped = 0
        self._reporting: asyncio.TimerHandle | None = None
        self._subscription: Subscription | None = None
        self._ended = asyncio.Event()
        self._keeping = Lasting(self._keep)
        self.trouble: BrokerUnavailable | ConfigurationError | None = None
        """Why it cannot listen now."""

    # Listening

    async def open(self) -> None:
        """Listen: from the return on everything is heard. Raises `BrokerUnavailable` or `ConfigurationError`."""
        await self._subscribe(0)
        self._keeping.start()

    async def _subscribe(self, tries: int) -> None:
        if self._subscription is not None:
            await self._subscription.close()
        # Every node of a cluster hears of every message: when one does not answer, another one is listened to.
        homes = self._link.topology.homes() or [self._channel]
        self._ended.clear()
        subscription = Subscription(self._link, self._channel, told=self._told, ended=self._ended.set)
        await subscription.open(homes[tries % len(homes)])
        self._subscription = subscription

    async def _keep(self) -> None:
        """Go on listening, whatever happens to the connection."""
        while True:
            while self._subscription is not None and not self._subscription.closed:
                try:
                    async with asyncio.timeout(_CHECK):
                        await self._ended.wait()
                    self._ended.clear()
                except TimeoutError:
                    self._subscription.check()
            await self._listen_again()

    async def _listen_again(self) -> None:
        logger.warning("queue %s: the connection is lost; what is said meanwhile is not heard here", self.queue)
        tries = 0
        while True:
            tries += 1
            try:
                await self._subscribe(tries)
            except (BrokerUnavailable, ConfigurationError) as error:
                self.trouble = error
                self._woken()
            else:
                self.trouble = None
                logger.info("queue %s: listening again", self.queue)
                return
            await asyncio.sleep(random.uniform(0, min(_LONGEST, _SHORTEST * 2 ** min(tries, 10))))  # noqa: S311

    def _told(self, said: bytes) -> None:
        delivery = _heard(self.queue, said)
        if delivery.id in self._ids:
            return
        self._ids[delivery.id] = None
        if len(self._ids) > _REMEMBERED:
            del self._ids[next(iter(self._ids))]
        self._put(delivery)

    def _put(self, delivery: Delivery) -> None:
        if len(self._waiting) + len(self._later) >= self._room:
            self._drop_oldest()
        self._waiting.append(delivery)
        self._woken()

    def _drop_oldest(self) -> None:
        if self._waiting:
            self._waiting.popleft()
        else:
            oldest = next(iter(self._later))
            self._later.pop(oldest).cancel()
        self._dropped += 1
        if self._reporting is None:
            self._reporting = asyncio.get_running_loop().call_later(_QUIET, self._report)

    def _report(self) -> None:
        self._reporting = None
        dropped, self._dropped = self._dropped, 0
        logger.warning(
            "queue %s: this worker is too slow: the %d oldest messages were dropped (it keeps %d)",
            self.queue,
            dropped,
            self._room,
        )

    # Taking, and giving back

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, limit: int) -> list[Delivery]:
        """Up to so many messages, the oldest first."""
        return [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        """These were taken and not handed out."""
        self._waiting.extendleft(reversed(deliveries))
        self._woken()

    def again(self, delivery: Delivery, delay: float) -> None:
        """Hand it out once more, after so many seconds."""
        if not self._keeping.running:
            return
        if delay <= 0:
            self._put(delivery)
            return
        if len(self._waiting) + len(self._later) >= self._room:
            self._drop_oldest()
        self._later[delivery] = asyncio.get_running_loop().call_later(delay, self._due, delivery)

    def _due(self, delivery: Delivery) -> None:
        del self._later[delivery]
        self._put(delivery)

    # Its end

    async def stop(self) -> None:
        """Listen no longer, and forget what was not taken. May be repeated."""
        await self._keeping.stop()
        if self._subscription is not None:
            await self._subscription.close()
            self._subscription = None
        if self._reporting is not None:
            self._reporting.cancel()
            self._report()
        for timer in self._later.values():
            timer.cancel()
        left = len(self._waiting) + len(self._later)
        self._waiting.clear()
        self._later.clear()
        if left:
            logger.info("queue %s: %d messages were not run before the end of this worker", self.queue, left)
