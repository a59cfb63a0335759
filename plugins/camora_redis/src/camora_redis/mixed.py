"""One worker's hold on queues of several kinds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence

import attrs
import msgspec
from camora.errors import BrokerUnavailable
from camora.interfaces.broker import Consumer, ConsumerSettings, Leases, LeaseVerdict
from camora.message import Delivery
from camora.outcome import Action, Settlement

from camora_redis.broadcast import Ear
from camora_redis.consumer import RedisConsumer
from camora_redis.link import Link
from camora_redis.lists import Mover
from camora_redis.results import RedisResultBackend

__all__ = ["MixedConsumer", "mixed_consumer"]


async def mixed_consumer(link: Link, settings: ConsumerSettings) -> Consumer:
    """An open consumer of queues of any kinds. Raises `BrokerUnavailable`."""
    kinds = link.store.keys.kinds
    broadcasts = [name for name in dict.fromkeys(settings.queues) if name in kinds.broadcasts]
    lists = [name for name in dict.fromkeys(settings.queues) if name in kinds.lists]
    rest = tuple(name for name in settings.queues if name not in kinds.broadcasts)
    streams = RedisConsumer(link, attrs.evolve(settings, queues=rest)) if rest else None
    if streams is not None and not broadcasts and not lists:
        await streams.enroll()
        return streams
    consumer = MixedConsumer(link, streams, broadcasts, lists)
    await consumer.open()
    return consumer


class MixedConsumer(Consumer):
    """Hands out what was heard beside what lies in streams, and keeps the two apart when they are settled.

    `streams` is None where all queues are broadcasts.
    """

    def __init__(
        self, link: Link, streams: RedisConsumer | None, broadcasts: Iterable[str], lists: Iterable[str]
    ) -> None:
        self._link = link
        self._streams = streams
        kinds = link.store.keys.kinds
        self._woken = asyncio.Event()
        self._ears = {name: Ear(link, kinds.broadcasts[name], self._woken.set) for name in broadcasts}
        self._movers = [Mover(link, kinds.lists[name]) for name in lists]
        self._held: set[Delivery] = set()
        self._turn = 0
        self._stopped = False
        self._results: RedisResultBackend | None = None

    async def open(self) -> None:
        """Listen, and make known which queues there are. Raises `BrokerUnavailable`."""
        try:
            if self._streams is not None:
                await self._streams.enroll()
            for mover in self._movers:
                await mover.open()
            for ear in self._ears.values():
                await ear.open()
        except BaseException:
            await self.close()
            raise

    # Taking

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """What was heard and what lies in streams share the room; where there is neither, wait for both."""
        if self._stopped or limit <= 0:
            return ()
        if self._streams is None:
            return await self._listen(limit, wait)
        if not self._ears:
            return await self._streams.receive(limit, wait)
        if not self._any_heard:
            found = await self._wait_for_both(self._streams, limit, wait)
            if found or not self._any_heard:
                return found
        taken = await self._share(self._streams, limit)
        if len(taken) >= limit:
            # A wait that was begun at the streams must not take what nobody has room for.
            self._streams.rest()
        return taken

    async def _share(self, streams: RedisConsumer, limit: int) -> list[Delivery]:
        """What is there of both."""
        # One of two, whichever side is asked for just one.
        self._turn ^= 1
        heard = self._take((limit + self._turn) // 2)
        found: list[Delivery] = []
        if len(heard) < limit:
            try:
                found = list(await streams.receive(limit - len(heard), 0))
            except BrokerUnavailable:
                if not heard:
                    heard = self._take(limit)
            except BaseException:
                self._put_back(heard)
                raise
        return [*heard, *found, *self._take(limit - len(heard) - len(found))]

    async def _listen(self, limit: int, wait: float) -> Sequence[Delivery]:
        if not self._any_heard and wait > 0:
            await self._heard_within(wait)
        heard = self._take(limit)
        trouble = next((ear.trouble for ear in self._ears.values() if ear.trouble is not None), None)
        if not heard and trouble is not None and not self._stopped:
            raise trouble
        return heard

    async def _heard_within(self, seconds: float) -> None:
        self._woken.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
        except TimeoutError:
            return

    async def _wait_for_both(self, streams: RedisConsumer, limit: int, wait: float) -> list[Delivery]:
        """What comes first out of streams, if that is not beaten by something heard."""
        loop = asyncio.get_running_loop()
        self._woken.clear()
        receiving = loop.create_task(streams.receive(limit, wait))
        hearing = loop.create_task(self._woken.wait())
        try:
            await asyncio.wait((receiving, hearing), return_when=asyncio.FIRST_COMPLETED)
            if not receiving.done():
                # What it has taken comes with its next answer.
                receiving.cancel()
                await asyncio.wait((receiving,))
        except asyncio.CancelledError:
            receiving.add_done_callback(lambda done: _put_back(streams, done))
            receiving.cancel()
            raise
        finally:
            hearing.cancel()
        return [] if receiving.cancelled() else list(receiving.result())

    @property
    def _any_heard(self) -> bool:
        return any(self._ears.values())

    def _take(self, limit: int) -> list[Delivery]:
        found: list[Delivery] = []
        if limit > 0:
            ears = list(self._ears.values())
            self._ears = {ear.queue: ear for ear in (*ears[1:], ears[0])}
            for number, ear in enumerate(ears):
                share = -(-(limit - len(found)) // (len(ears) - number))
                found += ear.take(share)
            for ear in ears:
                found += ear.take(limit - len(found))
        self._held.update(found)
        return found

    def _put_back(self, deliveries: Sequence[Delivery]) -> None:
        self._held.difference_update(deliveries)
        for ear in self._ears.values():
            ear.put_back([one for one in deliveries if one.queue == ear.queue])

    # Settling

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool | None]:
        """Those of streams as ever. Broadcasts need no server, but for their records."""
        heard = [number for number, one in enumerate(settlements) if one.delivery.queue in self._ears]
        if not heard and self._streams is not None:
            return await self._streams.settle(settlements)
        rest = [number for number in range(len(settlements)) if number not in set(heard)]
        answers: list[bool | None] = [False] * len(settlements)
        mine = [settlements[number] for number in heard if settlements[number].delivery in self._held]
        # What may have to be repeated comes first: nothing is handed out again before all else is done.
        await self._store([one for one in mine if one.record is not None])
        if rest and self._streams is not None:
            for number, applied in zip(rest, await self._streams.settle([settlements[n] for n in rest]), strict=True):
                answers[number] = applied
        for number in heard:
            answers[number] = self._end(settlements[number])
        return answers

    async def _store(self, settlements: Sequence[Settlement]) -> None:
        """The first final record of a job stands, whoever wrote it."""
        records = [one.record for one in settlements if one.record is not None]
        if records:
            if self._results is None:
                self._results = RedisResultBackend.on(self._link.store)
            await self._results.store(records)

    def _end(self, settlement: Settlement) -> bool:
        delivery = settlement.delivery
        if delivery not in self._held:
            return False
        self._held.discard(delivery)
        ear = self._ears[delivery.queue]
        if settlement.action is Action.RETRY and settlement.envelope is not None:
            envelope = settlement.envelope
            delay = envelope.due / 1000 - time.time() if envelope.due else 0.0
            ear.again(Delivery(id=delivery.id, queue=delivery.queue, body=envelope.body), delay)
        elif settlement.action is Action.RELEASE:
            taken = delivery.deliveries + (1 if settlement.charged else 0)
            ear.again(msgspec.structs.replace(delivery, deliveries=taken), settlement.delay)
        return True

    def leases(self) -> Leases:
        """A keeper for those of streams; what was heard is nobody else's."""
        return _MixedLeases(None if self._streams is None else self._streams.leases(), frozenset(self._ears))

    # Its end

    async def stop(self) -> None:
        """Take nothing more; what was heard and not handed out is gone."""
        self._stopped = True
        self._woken.set()
        for mover in self._movers:
            await mover.stop()
        for ear in self._ears.values():
            await ear.stop()
        if self._streams is not None:
            await self._streams.stop()

    async def close(self) -> None:
        """Let go of connections."""
        await self.stop()
        if self._streams is not None:
            await self._streams.close()
        if self._results is not None:
            await self._results.close()


def _put_back(streams: RedisConsumer, receiving: asyncio.Task[Sequence[Delivery]]) -> None:
    if not receiving.cancelled() and receiving.exception() is None:
        streams.put_back(receiving.result())


class _MixedLeases(Leases):
    """Asks about deliveries of streams only."""

    def __init__(self, streams: Leases | None, broadcasts: frozenset[str]) -> None:
        self._streams = streams
        self._broadcasts = broadcasts

    def _lent(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        return [one for one in deliveries if one.queue not in self._broadcasts]

    def extend(self, deliveries: Sequence[Delivery]) -> Sequence[LeaseVerdict]:
        """HELD for what was heard."""
        lent = self._lent(deliveries)
        verdicts = iter(self._streams.extend(lent) if lent and self._streams is not None else ())
        held = LeaseVerdict.HELD
        return [held if one.queue in self._broadcasts else next(verdicts) for one in deliveries]

    def cancelled(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """None of what was heard: nobody knows where a broadcast runs."""
        lent = self._lent(deliveries)
        return self._streams.cancelled(lent) if lent and self._streams is not None else ()

    def close(self) -> None:
        """Let go of the connection. May be repeated."""
        if self._streams is not None:
            self._streams.close()
