"""What the tests of a broker hold in their hands."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from camora.errors import BrokerUnavailable
from camora.interfaces.broker import Broker, Consumer, ConsumerSettings, LeaseVerdict
from camora.interfaces.results import ResultBackend
from camora.message import Delivery, Envelope
from camora.outcome import Settlement

__all__ = ["Rig"]

LONG_LEASE = 60.0


class Rig:
    """An open broker, the consumers made of it, and the ways the tests use them."""

    def __init__(self, broker: Broker, results: ResultBackend | None, *, lease: float, patience: float) -> None:
        self.broker = broker
        self.results = results
        self.lease = lease
        self.patience = patience
        self._undo = contextlib.AsyncExitStack()

    def needs(self, capability: str) -> None:
        """Skip the test when the broker declares that it cannot do this."""
        if not getattr(self.broker.capabilities, capability):
            pytest.skip(f"the broker declares {capability} as unsupported")

    def needs_results(self) -> ResultBackend:
        """The result backend that settlements write; skips the test when there is none."""
        if self.results is None or not self.broker.settles_into(self.results):
            pytest.skip("the broker does not settle into a result backend")
        return self.results

    async def twin(self) -> Broker:
        """Another open broker on the same store, closed after the test."""
        twin = self.broker.twin()
        await twin.open()
        self._undo.push_async_callback(twin.close)
        return twin

    @contextlib.asynccontextmanager
    async def twin_here(self) -> AsyncIterator[Broker]:
        """The same for the length of a block, in whatever loop this runs."""
        twin = self.broker.twin()
        await twin.open()
        try:
            yield twin
        finally:
            await twin.close()

    async def consumer(self, *queues: str, lease: float = LONG_LEASE, prefetch: int = 100) -> Consumer:
        """A consumer, closed after the test; its leases are long unless the test is about them."""
        consumer = await self.broker.consumer(_settings(queues, lease, prefetch))
        self._undo.push_async_callback(consumer.close)
        return consumer

    @contextlib.asynccontextmanager
    async def consumer_here(self, *queues: str, lease: float = LONG_LEASE) -> AsyncIterator[Consumer]:
        """A consumer of a twin for the length of a block, in whatever loop this runs."""
        async with self.twin_here() as twin:
            consumer = await twin.consumer(_settings(queues, lease, 100))
            try:
                yield consumer
            finally:
                await consumer.close()

    async def publish(self, *envelopes: Envelope) -> list[str]:
        """The ids that stand for them."""
        return list(await self.broker.publish(envelopes))

    async def one(self, consumer: Consumer) -> Delivery:
        """The next message; waits for it."""
        [delivery] = await self.some(consumer, 1)
        return delivery

    async def some(self, consumer: Consumer, count: int, *, at_once: int | None = None) -> list[Delivery]:
        """The next `count` messages, taken `at_once` by `at_once`; fails when they do not come."""
        taken: list[Delivery] = []
        until = time.monotonic() + self.patience
        while len(taken) < count:
            left = until - time.monotonic()
            assert left > 0, f"only {len(taken)} of {count} messages came within {self.patience} s"
            taken += await consumer.receive(min(at_once or count, count - len(taken)), left)
        assert len(taken) == count, "receive answered with more than its limit"
        return taken

    async def nothing(self, consumer: Consumer, wait: float = 0.02) -> None:
        """There is nothing to take now, nor for `wait` seconds."""
        extra = await consumer.receive(100, wait)
        assert not extra, f"{[delivery.id for delivery in extra]} came, and nothing should have"

    async def settle(self, consumer: Consumer, *settlements: Settlement) -> list[bool]:
        """One answer for each."""
        answers = list(await consumer.settle(settlements))
        assert len(answers) == len(settlements), "settle must answer each settlement"
        assert None not in answers, "all servers are there"
        return [answer is True for answer in answers]

    async def taken_over(self, envelope: Envelope) -> tuple[Consumer, Delivery, Consumer, Delivery]:
        """A message whose first holder fell silent: the old holder and its delivery, the new one and its delivery."""
        await self.publish(envelope)
        old = await self.consumer(envelope.queue, lease=self.lease)
        stale = await self.one(old)
        new = await self.consumer(envelope.queue)
        held = await self.one(new)
        assert held.id == stale.id
        return old, stale, new, held

    async def extend(self, consumer: Consumer, *deliveries: Delivery) -> Sequence[LeaseVerdict]:
        """One verdict for each, from the keeper's own thread."""

        def keeper() -> Sequence[LeaseVerdict]:
            leases = consumer.leases()
            until = time.monotonic() + self.patience
            try:
                while True:
                    try:
                        return leases.extend(deliveries)
                    except BrokerUnavailable:
                        # A server that is slow for once: keepers ask again, too.
                        if time.monotonic() > until:
                            raise
            finally:
                leases.close()

        return await asyncio.to_thread(keeper)

    async def cancelled(self, consumer: Consumer, *deliveries: Delivery) -> list[str]:
        """Ids of those that are to be cancelled, from the keeper's own thread."""

        def keeper() -> list[str]:
            leases = consumer.leases()
            try:
                return [delivery.id for delivery in leases.cancelled(deliveries)]
            finally:
                leases.close()

        return await asyncio.to_thread(keeper)

    async def close(self) -> None:
        """Close consumers and twins."""
        await self._undo.aclose()


def _settings(queues: tuple[str, ...], lease: float, prefetch: int) -> ConsumerSettings:
    return ConsumerSettings(
        queues=queues or ("work",), worker=f"worker-{time.monotonic_ns()}", lease=lease, prefetch=prefetch
    )
