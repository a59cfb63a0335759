"""Publishing with confirmations: any number in flight, and one future for each batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from camora_amqp import frames
from camora_amqp.errors import WireLost
from camora_amqp.frames import Deliver
from camora_amqp.messages import Outgoing
from camora_amqp.wire import Channel, Wire

__all__ = ["Confirming"]

_BREATH = 500
"""Messages between two looks whether the network keeps up."""
_NACKED = "refused by the queue (it is full, or its node has a fault)"


class _Batch:
    __slots__ = ("done", "left", "reasons", "written")

    def __init__(self, size: int) -> None:
        self.left = size
        self.written = 0
        self.reasons: list[str | None] = [None] * size
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class _Sent:
    __slots__ = ("batch", "message", "place", "tag")

    def __init__(self, tag: int, batch: _Batch, place: int, message: Outgoing) -> None:
        self.tag = tag
        self.batch = batch
        self.place = place
        self.message = message


class Confirming:
    """A channel on which the server confirms what it has stored. Belongs to its wire's loop."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self._wire = channel.wire
        self._last = 0
        self._flight: deque[_Sent] = deque()
        """In the order in which they were sent; those that were answered out of turn have no batch any more."""
        self.refused = False
        """Whether the server has refused a message here."""
        self._moved = 0.0
        self._watch: asyncio.TimerHandle | None = None
        channel.on_confirm = self._on_confirm
        channel.on_return = self._on_return
        channel.on_close = self._on_close

    @classmethod
    async def on(cls, wire: Wire) -> Confirming:
        """Open one. Raises `WireLost` or `Refused`."""
        return cls(await wire.channel(confirms=True))

    @property
    def in_flight(self) -> int:
        """How many are not confirmed yet."""
        return len(self._flight)

    async def send(self, messages: Sequence[Outgoing]) -> Sequence[str | None]:
        """Publish, and wait until the server answers for each: None, or why it did not store it.

        Raises `WireLost`; its `sent` says whether any may have been stored. Cancelling leaves them on their way.
        """
        wire, channel = self._wire, self.channel
        if channel.error is not None:
            raise WireLost(str(channel.error))
        if not messages:
            return []
        batch = _Batch(len(messages))
        loop = asyncio.get_running_loop()
        if not self._flight:
            self._moved = loop.time()
        for place, message in enumerate(messages):
            if place % _BREATH == _BREATH - 1:
                try:
                    await wire.writable()
                except Exception as error:
                    raise WireLost(str(error), sent=True) from error
                if channel.error is not None:
                    raise WireLost(str(channel.error), sent=True)
            self._last += 1
            batch.written += 1
            self._flight.append(_Sent(self._last, batch, place, message))
            wire.write(
                frames.publish(
                    channel.number,
                    message.exchange,
                    message.routing_key,
                    message.header,
                    message.body,
                    wire.largest,
                    mandatory=message.mandatory,
                )
            )
        if self._watch is None:
            self._watch = loop.call_later(wire.timeout / 2, self._look)
        await batch.done
        return batch.reasons

    # The server's answers

    def _on_confirm(self, tag: int, multiple: bool, stored: bool) -> None:
        self._moved = self._wire.heard
        flight = self._flight
        if multiple:
            while flight and flight[0].tag <= tag:
                self._answered(flight.popleft(), stored)
        elif flight and flight[0].tag == tag:
            self._answered(flight.popleft(), stored)
        elif flight:
            # The tags in flight have no gaps but at the front.
            place = tag - flight[0].tag
            if 0 <= place < len(flight):
                self._answered(flight[place], stored)
        while flight and flight[0].batch is _DONE:
            flight.popleft()

    def _answered(self, sent: _Sent, stored: bool) -> None:
        batch, sent.batch = sent.batch, _DONE
        if batch is _DONE:
            return
        if not stored:
            self.refused = True
            batch.reasons[sent.place] = batch.reasons[sent.place] or _NACKED
        batch.left -= 1
        if not batch.left and not batch.done.done():
            batch.done.set_result(None)

    def _on_return(self, reason: str, returned: Deliver) -> None:
        """It comes before its confirmation, and without its number: but what is the same in all makes no difference."""
        alike: _Sent | None = None
        for sent in self._flight:
            message = sent.message
            if (
                sent.batch is not _DONE
                and sent.batch.reasons[sent.place] is None
                and message.routing_key == returned.routing_key
                and message.exchange == returned.exchange
                and message.body == returned.body
            ):
                if message.header == returned.properties:
                    sent.batch.reasons[sent.place] = reason
                    return
                alike = alike or sent
        if alike is not None:  # the server leaves some headers out
            alike.batch.reasons[alike.place] = reason

    def _look(self) -> None:
        """Cut a connection on which no confirmation comes any more."""
        loop = asyncio.get_running_loop()
        self._watch = None
        if not self._flight or self.channel.error is not None:
            return
        waited = loop.time() - self._moved
        if waited > self._wire.timeout:
            why = f" (it takes no messages: {self._wire.blocked})" if self._wire.blocked else ""
            self._wire.fail(WireLost(f"no confirmation within {self._wire.timeout:g} s{why}", sent=True))
            return
        self._watch = loop.call_later(self._wire.timeout / 4, self._look)

    def _on_close(self, error: Exception) -> None:
        flight, self._flight = self._flight, deque()
        open_ones: dict[_Batch, set[int]] = {}
        for sent in flight:
            if sent.batch is not _DONE and not sent.batch.done.done():
                open_ones.setdefault(sent.batch, set()).add(sent.place)
        for batch, places in open_ones.items():
            stored = [
                place < batch.written and place not in places and reason is None
                for place, reason in enumerate(batch.reasons)
            ]
            batch.done.set_exception(WireLost(str(error), sent=True, stored=stored))
            batch.done.exception()  # whoever was cancelled does not look
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None


class _Done(_Batch):
    def __init__(self) -> None:
        self.left = 0


_DONE = _Done()
