"""Receiving: it waits, is woken, takes no more than asked, and loses nothing when it is cancelled."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from camora.message import Delivery
from camora.testing.conformance.broker.base import BrokerSuite
from camora.testing.conformance.broker.rig import Rig
from camora.testing.conformance.elsewhere import all_at_once, elsewhere
from camora.testing.conformance.making import ack, envelope

__all__ = ["ReceivingSuite"]


class ReceivingSuite(BrokerSuite):
    """Receiving."""

    async def test_with_no_wait_an_empty_queue_answers_at_once(self, rig: Rig) -> None:
        consumer = await rig.consumer()
        begin = time.monotonic()
        assert not await consumer.receive(10, 0)
        assert time.monotonic() - begin < self.prompt

    async def test_it_waits_as_long_as_it_was_told_when_nothing_comes(self, rig: Rig) -> None:
        consumer = await rig.consumer()
        begin = time.monotonic()
        assert not await consumer.receive(10, 0.3)
        assert 0.25 <= time.monotonic() - begin < 0.3 + self.prompt

    async def test_it_returns_what_is_there_without_waiting_for_more(self, rig: Rig) -> None:
        consumer = await rig.consumer()
        await rig.publish(envelope(), envelope())
        begin = time.monotonic()
        taken = list(await consumer.receive(100, self.patience))
        assert taken
        assert time.monotonic() - begin < self.patience / 2

    async def test_the_limit_is_respected(self, rig: Rig) -> None:
        consumer = await rig.consumer()
        await rig.publish(*[envelope() for _ in range(7)])
        sizes = [len(await consumer.receive(3, self.prompt)) for _ in range(3)]
        assert all(0 < size <= 3 for size in sizes)
        assert len(await rig.some(consumer, 7 - sum(sizes))) == 7 - sum(sizes)

    async def test_a_publication_in_the_same_loop_wakes_it(self, rig: Rig) -> None:
        consumer = await rig.consumer()
        waiting = asyncio.create_task(consumer.receive(1, self.patience))
        await asyncio.sleep(0)
        message = envelope()
        await rig.publish(message)
        async with asyncio.timeout(self.prompt):
            [delivery] = await waiting
        assert delivery.id == message.id

    async def test_a_publication_in_another_thread_wakes_it_every_time(self, rig: Rig) -> None:
        consumer = await rig.consumer()
        for _ in range(10):
            waiting = asyncio.create_task(consumer.receive(1, self.patience))
            message = envelope()

            async def publish() -> float:
                async with rig.twin_here() as twin:
                    await twin.publish([message])  # noqa: B023 -- called before the next round
                    return time.monotonic()

            published = await elsewhere(publish)
            [delivery] = await waiting
            assert delivery.id == message.id
            assert time.monotonic() - published < self.prompt, "the publication was noticed late"
            await rig.settle(consumer, ack(delivery))

    async def test_every_waiting_consumer_of_a_queue_gets_something(self, rig: Rig) -> None:
        consumers = [await rig.consumer() for _ in range(4)]
        waiting = [asyncio.create_task(rig.one(consumer)) for consumer in consumers]
        await asyncio.sleep(0)
        messages = [envelope() for _ in range(4)]
        for message in messages:
            await rig.publish(message)
        taken = await asyncio.gather(*waiting)
        assert sorted(delivery.id for delivery in taken) == sorted(message.id for message in messages)

    async def test_a_message_is_never_with_two_consumers_at_once(self, rig: Rig) -> None:
        messages = [envelope() for _ in range(300)]
        await rig.publish(*messages)

        taken: list[str] = []
        until = time.monotonic() + self.patience

        def worker(seed: int) -> Callable[[], Coroutine[Any, Any, None]]:
            chance = random.Random(seed)  # noqa: S311 -- chance that can be repeated

            async def work() -> None:
                async with rig.consumer_here() as consumer:
                    while len(taken) < len(messages) and time.monotonic() < until:
                        batch = await consumer.receive(chance.randrange(1, 30), 0.1)
                        taken.extend(delivery.id for delivery in batch)
                        await consumer.settle([ack(delivery) for delivery in batch])

            return work

        await all_at_once(*[worker(seed) for seed in range(4)])
        assert len(taken) == len(set(taken)), "a message was handed out twice"
        assert set(taken) == {message.id for message in messages}

    @pytest.mark.parametrize("seed", range(3))
    async def test_cancelling_it_loses_nothing(self, rig: Rig, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 -- chance that can be repeated
        consumer = await rig.consumer(lease=self.lease)
        twin = await rig.twin()
        missing: set[str] = set()

        def note(taken: list[Delivery]) -> None:
            missing.difference_update(delivery.id for delivery in taken)

        for _ in range(15):
            waiting = asyncio.create_task(consumer.receive(5, self.patience))
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            message = envelope()
            missing.add(message.id)
            await twin.publish([message])
            await asyncio.sleep(chance.choice([0, 0, 0.001, 0.004]))
            waiting.cancel()
            try:
                taken = list(await waiting)
            except asyncio.CancelledError:
                continue
            await rig.settle(consumer, *map(ack, taken))
            note(taken)
        until = time.monotonic() + self.patience
        while missing:
            assert time.monotonic() < until, f"{len(missing)} messages were lost with a cancelled receive"
            taken = list(await consumer.receive(5, self.lease))
            await rig.settle(consumer, *map(ack, taken))
            note(taken)

    async def test_what_is_not_due_or_paused_does_not_keep_it_from_waiting(self, rig: Rig) -> None:
        rig.needs("delay")
        consumer = await rig.consumer()
        await rig.publish(envelope(due=_in(3600)))
        begin = time.monotonic()
        assert not await consumer.receive(10, 0.2)
        assert time.monotonic() - begin >= 0.15


def _in(seconds: float) -> int:
    return round((time.time() + seconds) * 1000)
