"""The connection by which a worker gets its messages, in a thread of its own.

In a thread, because the server counts a worker as dead that sends no heartbeats: a job that blocks the event loop must
not take the others' messages along. The same thread gives back what nobody has extended for a lease, so that a lease
means the same here as with every other broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from camora.errors import CamoraError
from pamqp import commands

from camora_amqp import frames
from camora_amqp.confirming import Confirming
from camora_amqp.control import Control
from camora_amqp.declaring import Declarer
from camora_amqp.errors import Refused, WireLost
from camora_amqp.lent import Ledger, Lent
from camora_amqp.link import connect
from camora_amqp.messages import Outgoing, count_of, read, recounted
from camora_amqp.parking import Parking
from camora_amqp.store import Store
from camora_amqp.subscription import Subscription
from camora_amqp.watching import watch
from camora_amqp.wire import Channel, Wire

__all__ = ["Feed"]

logger = logging.getLogger(__name__)

_PAUSES = (0.05, 2.0)
"""Seconds until the next try to connect: at first, and at most."""
_GOODBYE = 2.0
"""Seconds that the server has to send nothing more."""
_IDLE = 0.01
"""Seconds after which a worker that does not ask any more is sent nothing more."""


class Feed:
    """Begins to deliver when it is started, as many as are asked for.

    `arrived()` is called, from its thread, when there is something to take where there was nothing, or when there is an
    error to be told.
    """

    def __init__(
        self, store: Store, queues: Sequence[str], *, lease: float, worker: str, arrived: Callable[[], None]
    ) -> None:
        self.ledger = Ledger()
        self.ready: deque[Lent] = deque()
        """What has come and was not taken yet."""
        self.error: Exception | None = None
        """Why nothing comes, while nothing does."""
        self._store = store
        self._queues = queues
        self._lease = lease
        self._worker = worker
        self._arrived = arrived
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._life: asyncio.Task[None] | None = None
        self._stopped = False
        self._closing = False
        self._wake: asyncio.Event | None = None
        self._pause = _PAUSES[0]
        self._wire: Wire | None = None
        self._to_ack: deque[Lent] = deque()
        self._ack_asked = False
        self._subscriptions: dict[Channel, Subscription] = {}
        self._asking = False
        self._asked = 0
        self._left = 0.0
        self._armed = False
        self._turn = asyncio.Lock()
        self._copies: Confirming | None = None
        self._copying: set[asyncio.Future[None]] = set()
        self._opening = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opened = threading.Event()

    # Called in the worker's loop, or in other threads

    def start(self) -> None:
        """Begin, in a thread of its own."""
        self._thread = threading.Thread(target=self._run, name=f"camora-amqp-{self._worker}", daemon=True)
        self._thread.start()
        self._opened.wait()

    def ask(self, count: int) -> None:
        """Let so many come: whoever asks waits for them from now on. Does not wait."""
        self._asking = True
        short = count > self._asked or not all(one.enough(count) for one in list(self._subscriptions.values()))
        if short:
            self._asked = count
            self._call(lambda: self._run_task(self._want()))

    def unask(self) -> None:
        """Nobody waits at this moment. Does not wait."""
        self._asking = False
        self._left = time.monotonic()
        if not self._armed and (self.ready or any(one.free for one in list(self._subscriptions.values()))):
            self._call(self._arm)

    def acknowledge(self, lent: Sequence[Lent]) -> None:
        """Tell the server that these are settled. Does not wait."""
        self._to_ack.extend(lent)
        if not self._ack_asked:
            self._ack_asked = True
            self._call(self._send_acks)

    async def heard(self, lent: Lent) -> bool:
        """Wait until the server has read this one's acknowledgement; False when nobody knows whether it has."""
        answer = False

        async def ask() -> None:
            nonlocal answer
            self._send_acks()
            with contextlib.suppress(WireLost, Refused):
                await lent.channel.call(commands.Channel.Flow(True))
                answer = True

        await self.run(ask)
        return answer

    def give_back(self, lent: Sequence[Lent]) -> None:
        """Have these delivered again, to whom it may be. Does not wait."""
        if lent:
            self._call(lambda: self._run_task(self._give_back(lent)))

    def _call(self, what: Callable[[], object]) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # it has ended: its connection is gone, and with it what was held
            self._loop.call_soon_threadsafe(what)

    async def run(self, what: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run this in the thread, and wait for it."""
        if self._loop is None or self._thread is None or not self._thread.is_alive():
            return
        coroutine = what()
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            return
        await asyncio.wrap_future(future)

    async def stop(self) -> None:
        """Take nothing more, and give back what was not taken."""
        if not self._stopped:
            self._stopped = True
            await self.run(self._cease)

    async def close(self) -> None:
        """End the connection and the thread."""
        await self.stop()
        if not self._closing:
            self._closing = True
            await self.run(self._bye)
            if self._thread is not None:
                await asyncio.to_thread(self._thread.join, 5.0)

    # Its own thread from here on

    def _run(self) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            self._opened.set()
            with contextlib.suppress(asyncio.CancelledError):
                runner.run(self._main())

    async def _main(self) -> None:
        self._life = asyncio.current_task()
        self._wake = asyncio.Event()
        while not self._is_closing():
            try:
                await self._consume()
            except (WireLost, Refused, CamoraError) as error:
                self._tell(error)
            except Exception as error:
                logger.exception("the connection of worker %s failed", self._worker)
                self._tell(error)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(random.uniform(self._pause / 2, self._pause)):  # noqa: S311 -- jitter
                    await self._wake.wait()
            self._pause = min(self._pause * 2, _PAUSES[1])

    def _is_closing(self) -> bool:
        return self._closing  # by another thread

    def _tell(self, error: Exception) -> None:
        if not self._closing:
            self.error = error
            self._arrived()

    async def _consume(self) -> None:
        """Connect, deliver until the connection ends, and raise why it did."""
        heartbeat = self._store.settings.heartbeat_of(self._lease)
        wire = await connect(self._store, purpose=self._worker, heartbeat=heartbeat)
        sweeping = asyncio.ensure_future(self._sweep(Parking(self._store, self.ledger, wire, self._copier)))
        watching: asyncio.Future[None] | None = None
        try:
            self._wire = wire
            await self._declare(self._queues)
            self._subscriptions = {}
            for queue in self._queues:
                await self._listen(wire, queue)
            watching = asyncio.ensure_future(self._watch(wire))
            self.error, self._pause = None, _PAUSES[0]
            await self._want()
            assert self._wake is not None
            waiting = asyncio.ensure_future(self._wake.wait())
            ends: set[asyncio.Future[Any]] = {waiting, wire.closed}
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
            if wire.error is not None:
                raise WireLost(str(wire.error))
        finally:
            sweeping.cancel()
            self._return(self.ledger.parked())  # the others go back by themselves
            await wire.close()
            if self._copies is not None:
                await self._copies.channel.wire.close()
            if watching is not None:
                watching.cancel()

    async def _declare(self, queues: Sequence[str]) -> None:
        control = Control(self._store, self._worker)
        try:
            await Declarer(self._store, control).queues(queues)
        finally:
            await control.close()

    async def _listen(self, wire: Wire, queue: str) -> None:
        declared = self._store.topology.queue(queue)
        channel = await wire.channel()
        limits = [limit for limit in (declared.prefetch, self._store.settings.prefetch) if limit is not None]
        self.ledger.open(channel)
        channel.on_close = lambda error: self._on_channel_close(wire, channel, queue, error)
        channel.on_cancel = lambda _: self._on_cancelled(wire, channel, queue)
        self._subscriptions[channel] = Subscription(
            channel,
            queue,
            self._store.names.queue(queue),
            most=min(limits, default=None),
            held=lambda: self.ledger.held(queue),
            priority=declared.consumer_priority,
            alone=bool(declared.arguments.get("x-single-active-consumer")),
            deliver=self._on_deliver,
        )

    async def _want(self) -> None:
        """Let come what was asked for."""
        async with self._turn:
            if self._stopped or not self._asked:
                return
            try:
                for one in list(self._subscriptions.values()):
                    await one.want(self._asked)
            except (WireLost, Refused):
                return  # all is made anew

    def _arm(self) -> None:
        """Look in a moment whether anybody asks again."""
        if not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_later(_IDLE, self._look_idle)

    def _look_idle(self) -> None:
        self._armed = False
        if self._asking or self._stopped:
            return
        if time.monotonic() - self._left < _IDLE:
            self._arm()
        else:
            self._run_task(self._rest())

    async def _rest(self, *, blocked: bool = False) -> None:
        """Be sent nothing more until somebody asks again; `blocked`: whoever asked does not take what has come."""
        async with self._turn:
            if self._asking and not blocked:
                return
            await self._unsubscribe()
            # What came at the last moment is for whoever asks first.
            by_queue: dict[str, list[Lent]] = {}
            while self.ready:
                with contextlib.suppress(IndexError):
                    one = self.ready.popleft()
                    by_queue.setdefault(one.queue, []).append(one)
        for some in by_queue.values():
            await self._replace(some)

    async def _unsubscribe(self) -> None:
        self._asked = 0
        try:
            for one in list(self._subscriptions.values()):
                await one.cease()
        except (WireLost, Refused):
            return

    def _on_channel_close(self, wire: Wire, channel: Channel, queue: str, error: Exception) -> None:
        self.ledger.lose(channel)
        self._subscriptions.pop(channel, None)
        if wire.error is None and not self._closing:
            logger.warning("the server has closed the channel of queue %r to worker %s: %s", queue, self._worker, error)
            self._run_task(self._renew(wire, queue))

    def _on_cancelled(self, wire: Wire, channel: Channel, queue: str) -> None:
        logger.warning("the server delivers no more from queue %r to worker %s: it was deleted, or its node is gone",
                       queue, self._worker)  # fmt: skip
        if self._subscriptions.pop(channel, None) is not None:
            # By this channel the server would take acknowledgements for those of the queue that is gone: only what came
            # by it is still answered there.
            channel.on_close = lambda _: self.ledger.lose(channel)
            self._run_task(self._renew(wire, queue))

    async def _watch(self, wire: Wire) -> None:
        async def forgotten(one: Subscription) -> None:
            logger.warning("the server has forgotten that worker %s listens to queue %r", self._worker, one.queue)
            # It remembers a queue that is gone, for as long as this connection lasts: all is made anew.
            self._send_acks()
            asyncio.get_running_loop().call_soon(wire.fail, WireLost(f"queue {one.queue!r} was forgotten"))

        async def silent(one: Subscription) -> None:
            async with self._turn:
                if not one.idle or self._stopped or one.channel not in self._subscriptions:
                    return
                one.channel.on_close = one.channel.on_deliver = one.channel.on_cancel = None
                self._subscriptions.pop(one.channel)
                self.ledger.lose(one.channel)
                one.channel.retire()
                await self._listen(wire, one.queue)
            await self._want()

        with contextlib.suppress(WireLost, Refused):
            await watch(wire, self._subscriptions, forgotten, silent)

    async def _renew(self, wire: Wire, queue: str) -> None:
        """Listen to one queue again, which is made again if need be; the others go on meanwhile."""
        pause, most = _PAUSES
        while wire.error is None and not self._stopped:
            try:
                await self._declare([queue])
                await self._listen(wire, queue)
                await self._want()
            except (WireLost, Refused, CamoraError) as error:
                logger.warning("worker %s cannot listen to queue %r: %s", self._worker, queue, error)
            else:
                return
            await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 -- jitter
            pause = min(pause * 2, most)

    # Messages that come

    def _on_deliver(self, by: Subscription, message: frames.Deliver) -> None:
        found = read(message)
        before = count_of(found, message.redelivered)
        lent = Lent(by.channel, message, by.queue, found, before + 1, time.monotonic() + self._lease)
        self.ledger.add(lent)
        if message.redelivered and "x-delivery-count" not in found.headers:
            # A classic queue marks what it delivers again, and does not count: the count goes along with a copy.
            self._run_task(self._replace([lent]))
            return
        self.ready.append(lent)
        if not self._asking:
            self._arm()
        elif len(self.ready) == 1:
            self._arrived()

    def _run_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _replace(self, some: Sequence[Lent]) -> None:
        """Put copies into the queue, with the count of deliveries that this one found, and take these away."""
        done = asyncio.get_running_loop().create_future()
        self._copying.add(done)
        try:
            await self._copy(some)
        finally:
            self._copying.discard(done)
            done.set_result(None)

    async def _copier(self) -> Confirming:
        """On a connection of its own: one that publishes is not read from while the server has an alarm.

        What is settled meanwhile must be heard all the same. Raises `WireLost` or `Refused`.
        """
        async with self._opening:
            if self._copies is None or self._copies.channel.error is not None:
                if self._copies is not None:
                    await self._copies.channel.wire.close()
                wire = await connect(self._store, purpose=f"{self._worker}: copies")
                try:
                    self._copies = await Confirming.on(wire)
                except BaseException:
                    wire.fail(WireLost("given up"))
                    raise
            return self._copies

    async def _copy(self, some: Sequence[Lent]) -> None:
        name = self._store.names.queue(some[0].queue)
        copies = [
            Outgoing("", "", name, recounted(one.message, one.properties, one.deliveries - 1), one.message.body)
            for one in some
        ]
        mine = [one for one, held in zip(some, self.ledger.begin(some), strict=True) if held]
        try:
            copier = await self._copier()
            reasons = await copier.send([copy for copy, one in zip(copies, some, strict=True) if one in mine])
        except (WireLost, Refused):
            # They come again: with their channel, or, where that is not closed, when their leases are over.
            self.ledger.undo(mine, time.monotonic())
            return
        stored = [one for one, reason in zip(mine, reasons, strict=True) if reason is None]
        self.ledger.undo([one for one in mine if one not in stored], time.monotonic())
        self.ledger.finish(stored)
        self.acknowledge(stored)

    # Answers that go

    def _send_acks(self) -> None:
        self._ack_asked = False
        by_channel: dict[Channel, list[int]] = {}
        subscriptions = self._subscriptions
        while self._to_ack:
            lent = self._to_ack.popleft()
            if (by := subscriptions.get(lent.channel)) is not None:
                by.answered(lent.message)
            by_channel.setdefault(lent.channel, []).append(lent.message.tag)
        for channel, tags in by_channel.items():
            upto, others = self.ledger.answered(channel, tags)
            if upto:
                channel.wire.write(frames.ack(channel.number, upto, multiple=True))
            for tag in others:
                channel.wire.write(frames.ack(channel.number, tag))
        if self._asking and any(one.limited and not one.enough(self._asked) for one in subscriptions.values()):
            self._run_task(self._want())
        # What was settled leaves room for more, and nobody may be asking for it.
        if not (self._asking or self._armed) and any(one.free for one in subscriptions.values()):
            self._arm()

    async def _give_back(self, lent: Sequence[Lent]) -> None:
        async with self._turn:
            if not self._asking:
                await self._unsubscribe()  # they are for others
            self._return(lent)

    def _return(self, lent: Sequence[Lent]) -> None:
        for one in lent:
            if (by := self._subscriptions.get(one.channel)) is not None:
                by.answered(one.message)
            if self.ledger.drop(one):
                one.channel.wire.write(frames.nack(one.channel.number, one.message.tag, requeue=not one.parked))

    async def _sweep(self, parking: Parking) -> None:
        """Give back what was not extended in time, and exchange what has been held for long."""
        long = self._store.settings.ack_timeout / 2
        pause = max(0.02, min(self._lease / 8, long / 8, 1.0))
        while True:
            await asyncio.sleep(pause)
            if old := self.ledger.old(time.monotonic() - long):
                await parking.move(old)
            now = time.monotonic()
            if any(one.deadline <= now for one in list(self.ready)):
                # The worker's loop stands still. What nobody took was in nobody's hands: that is no delivery.
                await self._rest(blocked=True)
                self._arrived()  # whoever waits asks anew
            if lapsed := self.ledger.lapsed(time.monotonic()):
                await self._give_back(lapsed)

    # The end

    async def _cease(self) -> None:
        # A server that is silent keeps nobody waiting for long; cut off, the call would take the connection along.
        ceasing = asyncio.ensure_future(self._end_subscriptions())
        await asyncio.wait([ceasing], timeout=_GOODBYE)

    async def _end_subscriptions(self) -> None:
        async with self._turn:
            await self._unsubscribe()
        if self._copying:
            # A connection that ends before its copies are confirmed leaves both, them and what they stand for.
            await asyncio.wait(self._copying)

    async def _bye(self) -> None:
        """Whatever it does at this moment, be it connecting: end it, and then the connection."""
        if self._life is not None:
            self._life.cancel()
