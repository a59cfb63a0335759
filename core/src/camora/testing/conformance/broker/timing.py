"""Delay, priority, expiry: when a message is handed out, and before which others."""

from __future__ import annotations

import asyncio
import time

import pytest

from camora.errors import DispatchError
from camora.testing.conformance.broker.base import BrokerSuite
from camora.testing.conformance.broker.rig import Rig
from camora.testing.conformance.elsewhere import elsewhere
from camora.testing.conformance.making import ack, envelope

__all__ = ["TimingSuite"]

_YEAR = 365 * 24 * 3600.0


def _now() -> int:
    return round(time.time() * 1000)


class TimingSuite(BrokerSuite):
    """Delay, priority, expiry."""

    async def test_a_delayed_message_comes_when_it_is_due_and_not_before(self, rig: Rig) -> None:
        rig.needs("delay")
        consumer = await rig.consumer()
        due = _now() + 400
        await rig.publish(envelope(due=due))
        await rig.one(consumer)
        assert due <= time.time() * 1000 < due + self.prompt * 1000

    async def test_a_due_time_in_the_past_is_now(self, rig: Rig) -> None:
        consumer = await rig.consumer()
        for due in (_now() - 3_600_000, 1):
            await rig.publish(envelope(due=due))
            await rig.one(consumer)

    async def test_delayed_messages_come_in_the_order_they_are_due(self, rig: Rig) -> None:
        rig.needs("delay")
        now = _now()
        messages = [envelope(due=now + ms) for ms in (500, 200, 350)]
        await rig.publish(*messages)
        consumer = await rig.consumer()
        taken = [(await rig.one(consumer)).id for _ in messages]
        assert taken == [messages[1].id, messages[2].id, messages[0].id]

    async def test_a_message_that_is_due_does_not_wait_for_one_that_is_not(self, rig: Rig) -> None:
        rig.needs("delay")
        late, soon = envelope(due=_now() + 3_600_000), envelope()
        await rig.publish(late, soon)
        consumer = await rig.consumer()
        assert (await rig.one(consumer)).id == soon.id
        await rig.nothing(consumer)

    async def test_a_waiting_receive_notices_a_delayed_message_of_another_thread(self, rig: Rig) -> None:
        rig.needs("delay")
        consumer = await rig.consumer()
        waiting = asyncio.create_task(rig.one(consumer))
        due = _now() + 300

        async def publish() -> None:
            async with rig.twin_here() as twin:
                await twin.publish([envelope(due=due)])

        await elsewhere(publish)
        await waiting
        assert due <= time.time() * 1000 < due + self.prompt * 1000

    async def test_a_message_due_in_years_is_kept(self, rig: Rig) -> None:
        rig.needs("delay")
        longest = rig.broker.capabilities.longest_delay
        if longest is not None and longest < 10 * _YEAR:
            pytest.skip("the broker declares a shorter longest_delay")
        message = envelope(due=_now() + round(10 * _YEAR * 1000))
        await rig.publish(message)
        await rig.nothing(await rig.consumer(), wait=0.2)
        if rig.broker.capabilities.inspect:
            found = await rig.broker.queues.find(message.id)
            assert found is not None
            assert (found.state, found.due) == ("scheduled", message.due)

    async def test_a_delay_above_the_declared_limit_is_refused(self, rig: Rig) -> None:
        longest = rig.broker.capabilities.longest_delay
        if longest is None or not rig.broker.capabilities.delay:
            pytest.skip("the broker declares no limit")
        with pytest.raises(DispatchError):
            await rig.publish(envelope(due=_now() + round((longest + 60) * 1000)))

    async def test_a_backlog_of_delayed_messages_does_not_hide_those_that_are_due(self, rig: Rig) -> None:
        rig.needs("delay")
        far = _now() + 3_600_000
        await rig.publish(*[envelope(due=far + number) for number in range(500)])
        message = envelope()
        await rig.publish(message)
        assert (await rig.one(await rig.consumer())).id == message.id

    async def test_the_most_urgent_comes_first(self, rig: Rig) -> None:
        rig.needs("priority")
        messages = {priority: envelope(priority=priority) for priority in (0, 5, 1, 9, 3)}
        await rig.publish(*messages.values())
        consumer = await rig.consumer(prefetch=1)
        taken = [(await rig.one(consumer)).id for _ in messages]
        assert taken == [messages[priority].id for priority in (9, 5, 3, 1, 0)]

    async def test_a_batch_is_ordered_by_priority_then_by_publishing(self, rig: Rig) -> None:
        rig.needs("priority")
        messages = [envelope(priority=priority) for priority in (0, 7, 0, 7, 3, 0, 7)]
        await rig.publish(*messages)
        taken = [delivery.id for delivery in await rig.some(await rig.consumer(), len(messages))]
        expected = sorted(messages, key=lambda message: -message.priority)
        assert taken == [message.id for message in expected]

    async def test_a_negative_priority_comes_last(self, rig: Rig) -> None:
        rig.needs("priority")
        last, first = envelope(priority=-1), envelope(priority=0)
        await rig.publish(last, first)
        consumer = await rig.consumer(prefetch=1)
        assert [(await rig.one(consumer)).id for _ in range(2)] == [first.id, last.id]

    async def test_an_expired_message_is_delivered_for_its_end_to_be_recorded(self, rig: Rig) -> None:
        message = envelope(expires=_now() - 1000)
        await rig.publish(message)
        consumer = await rig.consumer()
        delivery = await rig.one(consumer)
        assert delivery.id == message.id
        assert await rig.settle(consumer, ack(delivery)) == [True]
