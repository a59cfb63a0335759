"""From the outbox to the broker: each message is published under its own id, then taken out of the outbox.

What is repeated, after a crash between the two, the broker recognises by its id. Any number of relays may run; each
message is lent to one of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Sequence

from camora.clock import Clock
from camora.errors import BrokerUnavailable, CamoraError, DecodeError, DispatchError, DispatchUncertain
from camora.failures import describe
from camora.interfaces.broker import Broker, Consumer, ConsumerSettings
from camora.message import Delivery, Envelope
from camora.outbox import unpacked
from camora.outcome import Action, DeadLetter, Settlement

__all__ = ["Relay"]

_BATCH, _WAIT = 200, 5.0
"""Messages that are taken at a time, and seconds that they are waited for."""
_MOST_TRIES = 8
"""Tries of a message that fails in a way which no broker announces."""
_AWAY = (BrokerUnavailable, DispatchUncertain)
"""The broker is, or its answers are lost. It may have got the messages: published again, they bear the same ids."""


class Relay:
    """One worker's share of the way. Runs until it is stopped, whatever becomes of outbox and broker."""

    def __init__(
        self,
        queue: str,
        outbox: Callable[[], Awaitable[Broker | None]],
        broker: Broker,
        *,
        worker: str,
        lease: float,
        clock: Clock,
        logger: logging.Logger,
    ) -> None:
        self._queue = queue
        self._outbox = outbox
        self._broker = broker
        self._worker = worker
        self._lease = lease
        self._patience = lease / 3
        """Seconds that a publication may take: nobody else must have got the messages meanwhile."""
        self._clock = clock
        self._logger = logger
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._consumer: Consumer | None = None
        self._away = False

    def start(self) -> None:
        """Begin, in this loop."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="the relay of the outbox")
        self._task.add_done_callback(self._start_again)

    def _start_again(self, ended: asyncio.Task[None]) -> None:
        """A job that cancels every task it can find must not keep messages from their way."""
        if ended is self._task and not self._stopped.is_set():
            self.start()

    async def stop(self, patience: float) -> None:
        """Finish what is on its way within so many seconds, and end; the rest comes back with its lease."""
        self._stopped.set()
        if self._consumer is not None:
            await self._consumer.stop()
        if self._task is not None and not (await asyncio.wait([self._task], timeout=patience))[0]:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        tries = 0
        while not self._stopped.is_set():
            try:
                await self._relay(self._consumer or await self._consume())
                tries = 0
            except Exception as error:  # noqa: BLE001 -- it must not end: messages would wait for ever
                self._tell_away(error)
                tries += 1
                await self._rest(random.uniform(0.05, min(5.0, 0.1 * 2 ** min(tries, 6))))  # noqa: S311 -- jitter
        if self._consumer is not None:
            with contextlib.suppress(CamoraError):
                await self._consumer.close()

    async def _consume(self) -> Consumer:
        outbox = await self._outbox()
        assert outbox is not None
        self._consumer = await outbox.consumer(
            ConsumerSettings(queues=(self._queue,), worker=self._worker, lease=self._lease)
        )
        return self._consumer

    def _tell_away(self, error: Exception) -> None:
        if not self._away:
            expected = isinstance(error, CamoraError)
            self._logger.warning("the outbox waits: %s", error, exc_info=None if expected else error)
        self._away = True

    async def _rest(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopped.wait()

    async def _relay(self, consumer: Consumer) -> None:
        deliveries = await consumer.receive(_BATCH, _WAIT)
        if not deliveries:
            return
        settlements: list[Settlement] = []
        ready: list[tuple[Delivery, Envelope]] = []
        for delivery in deliveries:
            try:
                ready.append((delivery, unpacked(delivery.body)))
            except DecodeError as error:
                settlements.append(self._refused(delivery, error, "undecodable"))
        failure: Exception | None = None
        if ready:
            try:
                await self._publish([envelope for _, envelope in ready])
                settlements += [Settlement(delivery=one, action=Action.ACK) for one, _ in ready]
            except _AWAY as error:
                failure = error
                settlements += [_back(one) for one, _ in ready]
            except Exception:  # noqa: BLE001 -- one of them is at fault, and must not hold up the others
                found, failure = await self._one_by_one(ready)
                settlements += found
        # What cannot be settled now comes back with its lease, and is recognised when it is published again.
        await consumer.settle(settlements)
        if failure is not None:
            raise failure
        if self._away:
            self._away = False
            self._logger.info("the outbox is relayed again")

    async def _publish(self, envelopes: Sequence[Envelope]) -> None:
        try:
            async with asyncio.timeout(self._patience):
                await self._broker.publish(envelopes)
        except TimeoutError as error:
            raise BrokerUnavailable(f"{self._broker!r} did not answer within {self._patience:g} s") from error

    async def _one_by_one(
        self, ready: Sequence[tuple[Delivery, Envelope]]
    ) -> tuple[list[Settlement], Exception | None]:
        """What becomes of each; and the error, if it is the broker that is away."""
        settlements: list[Settlement] = []
        for place, (delivery, envelope) in enumerate(ready):
            try:
                await self._publish([envelope])
                settlements.append(Settlement(delivery=delivery, action=Action.ACK))
            except _AWAY as error:
                # So it is for those behind it, and to ask for each would take longer than they are lent.
                return [*settlements, *(_back(one) for one, _ in ready[place:])], error
            except DispatchError as error:
                settlements.append(self._refused(delivery, error, "refused"))
            except Exception as error:
                # Somebody's mistake, which may pass or be mended; for good only when it has stayed so.
                self._logger.exception("the outbox cannot relay %s of %s", envelope.id, envelope.task)
                lasting = delivery.deliveries >= _MOST_TRIES
                settlements.append(
                    self._refused(delivery, error, "refused") if lasting else _back(delivery, charged=True)
                )
        return settlements, None

    def _refused(self, delivery: Delivery, error: Exception, reason: str) -> Settlement:
        """Kept whole among the dead letters of the outbox."""
        self._logger.error(
            "job %s cannot leave the outbox, and lies in its dead letters (%s): %s", delivery.id, reason, error
        )
        letter = DeadLetter(
            id=delivery.id,
            queue=delivery.queue,
            body=delivery.body,
            reason=reason,
            error=describe(error),
            deliveries=delivery.deliveries,
            died=self._clock.now_ms(),
        )
        return Settlement(delivery=delivery, action=Action.REJECT, letter=letter)


def _back(delivery: Delivery, *, charged: bool = False) -> Settlement:
    pause = random.uniform(0.2, 1.0) * 2 ** (delivery.deliveries if charged else 0)  # noqa: S311 -- jitter
    return Settlement(delivery=delivery, action=Action.RELEASE, delay=pause, charged=charged)
