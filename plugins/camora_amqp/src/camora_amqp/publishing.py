"""The way of a message to the server: what must exist for it is made, and it is sent until the server has it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from camora.errors import BrokerUnavailable, ConfigurationError, DispatchUncertain, UnsupportedCapability
from camora.message import Envelope
from pamqp import commands

from camora_amqp import frames, ladder, plugin_delay
from camora_amqp.confirming import Confirming
from camora_amqp.control import Control
from camora_amqp.declaring import Declarer
from camora_amqp.errors import Refused, WireLost
from camora_amqp.exchanges import Route, route_of
from camora_amqp.link import connect
from camora_amqp.messages import Outgoing
from camora_amqp.store import Store
from camora_amqp.wire import Wire

__all__ = ["Publisher", "Unroutable"]

_NO_ROUTE = "NO_ROUTE"
_SAME_CHANNEL = 1.0
"""Seconds between two tries on another channel, where the server refuses messages."""
_ALARM = 86_400.0
"""Seconds for which a connection is kept on which the server takes no messages."""


class Unroutable(Exception):
    """Some messages were not stored: for each of the batch None, or why."""

    def __init__(self, reasons: Sequence[str | None]) -> None:
        super().__init__(next(reason for reason in reasons if reason is not None))
        self.reasons = reasons


@attrs.frozen
class _Way:
    """Exchange and routing key, and headers that the way needs."""

    exchange: str
    key: str
    headers: Mapping[str, Any] = attrs.field(factory=dict)
    mandatory: bool = True


class Publisher:
    """One connection of one event loop, for all that it publishes."""

    def __init__(self, store: Store, control: Control, who: str) -> None:
        self._store = store
        self._who = who
        self.declarer = Declarer(store, control)
        self._channel: Confirming | None = None
        self._next_channel = 0.0
        self._turn = asyncio.Lock()
        self._changed = asyncio.Event()
        """The server has begun or ceased to take no messages."""

    # What a message becomes

    async def jobs(self, envelopes: Sequence[Envelope], *, reply_to: str = "") -> list[Outgoing]:
        """Addressed messages, once all that they need exists."""
        topology, declarer = self._store.topology, self.declarer
        topology.seen.update(envelope.queue for envelope in envelopes)
        made = []
        for envelope in envelopes:
            route = route_of(envelope.task, envelope.options) if envelope.options else None
            if route is not None:
                made.append(await self._to_exchange(envelope, route, reply_to))
                continue
            if not declarer.known("queue", envelope.queue):
                await declarer.queues([envelope.queue])
            made.append(await self.addressed(envelope, reply_to=reply_to))
        return made

    async def addressed(self, envelope: Envelope, *, reply_to: str = "", header: bytes = b"") -> Outgoing:
        """For its own queue, by way of what delays it if it is not due yet; `header` are its properties, if any."""
        topology, declarer = self._store.topology, self.declarer
        way = _Way("", topology.names.queue(envelope.queue))
        priority = topology.priority(envelope.queue, envelope.priority, envelope.task)
        if _left(envelope) > 0:
            if not declarer.known("queue", envelope.queue):
                await declarer.queues([envelope.queue])
            if self._by_plugin:
                way = self._kept(envelope, plugin_delay.of_queues(self._store.settings.prefix)[0], way)
            else:
                way = await self._up(envelope, topology.names.word(way.key), way)
        if header:
            if way.headers:
                header = frames.with_headers(header, {**frames.read_properties(header).headers, **way.headers})
            return Outgoing(envelope.id, way.exchange, way.key, header, envelope.body, mandatory=way.mandatory)
        return self._outgoing(envelope, way, priority, reply_to)

    async def _to_exchange(self, envelope: Envelope, route: Route, reply_to: str) -> Outgoing:
        topology, declarer = self._store.topology, self.declarer
        name = topology.note_exchange(route.exchange)
        if not declarer.known("exchange", name):
            await declarer.exchanges([name])
        way = _Way(topology.names.exchange(name), route.routing_key or envelope.queue, route.headers)
        if _left(envelope) > 0:
            if self._by_plugin:
                before, _ = plugin_delay.of_exchange(self._store.settings.prefix, way.exchange)
                if not declarer.known("delayed", before):
                    await declarer.delayed_exchange(way.exchange)
                way = self._kept(envelope, before, way)
            else:
                word = f"%x{hashlib.sha256(repr((way.exchange, way.key)).encode()).hexdigest()[:40]}"
                if not declarer.known("exit", word):
                    await declarer.turnout(word, name, way.key)
                way = await self._up(envelope, word, way)
        # Whoever has no priorities ignores this.
        return self._outgoing(envelope, way, max(-1, min(9, envelope.priority)) + 1, reply_to)

    @staticmethod
    def _outgoing(envelope: Envelope, way: _Way, priority: int | None, reply_to: str) -> Outgoing:
        return Outgoing.of(
            envelope,
            way.exchange,
            way.key,
            priority=priority,
            reply_to=reply_to,
            headers=way.headers,
            mandatory=way.mandatory,
        )

    # What is not due yet

    @property
    def _by_plugin(self) -> bool:
        return self._store.settings.delay == "plugin"

    async def _up(self, envelope: Envelope, word: str, way: _Way) -> _Way:
        """By the ladder, which is made as high as this message needs it."""
        left = self._not_too_late(envelope, ladder.LONGEST)
        top = ladder.top(left)
        if not self.declarer.known("level", str(top)):
            await self.declarer.ladder(top)
        left = _left(envelope)
        if left <= 0:  # it has come due meanwhile: making what is needed took its time
            return way
        return _Way(*ladder.entrance(self.declarer.ladder_kind, left, word), way.headers)

    def _kept(self, envelope: Envelope, exchange: str, way: _Way) -> _Way:
        """By the server's plugin, which says of everything that it reaches no queue: it does not yet."""
        left = self._not_too_late(envelope, plugin_delay.LONGEST)
        return _Way(exchange, way.key, {**way.headers, **plugin_delay.headers(left)}, mandatory=False)

    @staticmethod
    def _not_too_late(envelope: Envelope, longest: int) -> float:
        left = _left(envelope)
        if left > longest:
            raise UnsupportedCapability(
                f"{envelope.task}: due in {left / 1000:.0f} s; RabbitMQ delays at most {longest // 1000} s this way",
                capability="delay",
            )
        return left

    # Sending

    async def publish(self, messages: Sequence[Outgoing]) -> None:
        """Store them all. Raises `BrokerUnavailable`, `DispatchUncertain`, or `Unroutable`."""
        try:
            reasons = await self._send(messages)
        except Refused as error:
            raise self._away(error) from error
        except WireLost as error:
            if not error.sent:
                raise self._away(error) from error
            raise self._uncertain(error, messages[0].id) from error
        if any(reason is not None for reason in reasons):
            raise Unroutable(reasons)

    async def tell(self, messages: Sequence[Outgoing]) -> None:
        """As `publish`, of what is no loss where nobody listens any more."""
        with contextlib.suppress(Unroutable):
            await self.publish(messages)

    def _away(self, error: Exception) -> BrokerUnavailable:
        return BrokerUnavailable(f"{self._who}: {error}")

    def _uncertain(self, error: Exception, job_id: str) -> DispatchUncertain:
        return DispatchUncertain(
            f"{self._who}: {error}. The job may be enqueued; RabbitMQ does not know ids, so dispatching it again may "
            f"run it twice (job_id={job_id!r} keeps its id)",
            job_id=job_id,
        )

    async def _send(self, messages: Sequence[Outgoing]) -> Sequence[str | None]:
        channel = await self._ready()
        reasons = list(await channel.send(messages))
        # A reply for which there is no queue has nobody any more who waits for it.
        lost = [place for place, reason in enumerate(reasons) if reason == _NO_ROUTE and not messages[place].reply]
        if lost:
            # Somebody has deleted what was there when this connection looked.
            self.declarer.forget()
            if await self._restore():
                await self._again(channel, messages, lost, reasons)
        return reasons

    async def _again(
        self, channel: Confirming, messages: Sequence[Outgoing], lost: Sequence[int], reasons: list[str | None]
    ) -> None:
        """Send those of a batch once more that reached no queue."""
        try:
            again = await channel.send([messages[place] for place in lost])
        except WireLost as error:
            kept = [reason is None for reason in reasons]
            for place, stored in itertools.zip_longest(lost, error.stored[: len(lost)], fillvalue=False):
                kept[place] = stored
            if not any(kept) and not error.sent:
                raise
            raise WireLost(str(error), sent=True, stored=kept) from error
        for place, reason in zip(lost, again, strict=True):
            reasons[place] = reason

    async def _restore(self) -> bool:
        topology = self._store.topology
        with contextlib.suppress(BrokerUnavailable):
            await self.declarer.queues(topology.seen | topology.queues.keys())
            return True
        return False

    async def open(self) -> None:
        """Connect. Raises `BrokerUnavailable`, or `ConfigurationError` for what no waiting mends."""
        try:
            await self._connected()
        except Refused as error:
            raise ConfigurationError(f"{self._who}: {error}") from error
        except WireLost as error:
            raise self._away(error) from error

    async def _ready(self) -> Confirming:
        channel = await self._connected()
        if channel.channel.wire.blocked:
            await self._wait_unblocked(channel)
        return channel

    async def _connected(self) -> Confirming:
        channel = self._channel
        if channel is None or channel.channel.error is not None:
            async with self._turn:
                channel = self._channel
                if channel is None or channel.channel.error is not None:
                    channel = self._channel = await self._open(channel)
        if channel.refused and asyncio.get_running_loop().time() >= self._next_channel:
            channel = await self._another(channel)
        return channel

    async def _another(self, before: Confirming) -> Confirming:
        """Another channel on the same connection.

        One that began to publish to a quorum queue while its leader's node was lost goes on asking that node, and
        refuses everything until it is back (RabbitMQ 3.10).
        """
        async with self._turn:
            if self._channel is before:
                loop = asyncio.get_running_loop()
                self._next_channel = loop.time() + _SAME_CHANNEL
                self._channel = await Confirming.on(before.channel.wire)
                loop.call_later(self._store.settings.timeout * 2, before.channel.retire)
            return self._channel or before

    async def _open(self, before: Confirming | None) -> Confirming:
        self.declarer.forget()
        if before is not None:
            # The server may have closed the channel alone.
            before.channel.wire.fail(WireLost(str(before.channel.error)), gently=True)
        wire = await connect(self._store, purpose="publishing")
        wire.on_blocked = self._changed.set
        try:
            made = await Confirming.on(wire)
            await self._knock(wire)
        except BaseException:
            wire.fail(WireLost("given up"))
            raise
        return made

    async def _knock(self, wire: Wire) -> None:
        """Learn whether the server takes messages: of an alarm it tells only those who publish.

        By a message for nobody, on a channel of its own. Without it the first that counts would lie in the network
        until the alarm is over, and whoever dispatches it again meanwhile would add another one each time.
        """
        channel = await wire.channel()
        nothing = frames.properties(message_id="")
        self._changed.clear()
        wire.write(frames.publish(channel.number, "", "", nothing, b"", wire.largest, mandatory=False))
        answer = asyncio.ensure_future(channel.call(commands.Channel.Close(200, "", 0, 0), timeout=_ALARM))
        answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        answer.add_done_callback(lambda _: channel.fail(WireLost("closed")))
        await self._hear(wire, answer)
        if not (answer.done() or wire.blocked):
            raise WireLost(f"no answer within {wire.timeout:g} s")

    async def _hear(self, wire: Wire, *others: asyncio.Future[Any]) -> None:
        """Wait until the server says something of taking messages, or one of these is done, or it takes too long."""
        news = asyncio.ensure_future(self._changed.wait())
        ends: set[asyncio.Future[Any]] = {news, wire.closed, *others}
        try:
            await asyncio.wait(ends, timeout=wire.timeout, return_when=asyncio.FIRST_COMPLETED)
        finally:
            news.cancel()
        if wire.error is not None:
            raise WireLost(str(wire.error))

    @property
    def blocked(self) -> str:
        """Why the server takes no messages, as it has said on the last connection; empty where it has not."""
        return "" if self._channel is None else self._channel.channel.wire.blocked

    @property
    def waiting(self) -> bool:
        """Whether it is sure that nothing can be published at this moment: whoever tries would wait."""
        return self._channel is not None and self._channel.channel.wire.error is None and bool(self.blocked)

    async def _wait_unblocked(self, channel: Confirming) -> None:
        """An alarm of the server's (memory, disk): nothing was sent yet, so that waiting loses nothing."""
        wire = channel.channel.wire
        self._changed.clear()
        await self._hear(wire)
        if wire.blocked:
            raise WireLost(f"the server takes no messages at this moment: {wire.blocked}")

    async def close(self) -> None:
        """Close the connection."""
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.channel.wire.close()

    def abandon(self) -> None:
        """Let go of the socket of a loop that is gone."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.channel.wire.abandon()


def _left(envelope: Envelope) -> float:
    """Milliseconds until it is due."""
    return envelope.due - time.time() * 1000 if envelope.due else 0
