"""Making a message that waits due at another moment."""

from __future__ import annotations

import asyncio
import time

from camora.outcome import CancelResult
from camora.testing.conformance.broker.base import BrokerSuite
from camora.testing.conformance.broker.rig import Rig
from camora.testing.conformance.elsewhere import all_at_once, elsewhere
from camora.testing.conformance.making import ack, envelope, reject, release, retry

__all__ = ["ReschedulingSuite"]

_HOUR = 3600.0


def _in(seconds: float) -> int:
    return round((time.time() + seconds) * 1000)


class ReschedulingSuite(BrokerSuite):
    """`Queues.reschedule`: one atomic step, for what waits and nothing else."""

    async def test_what_was_to_come_later_comes_now(self, rig: Rig) -> None:
        rig.needs("reschedule")
        rig.needs("delay")
        late, other = envelope(body=b"late", due=_in(_HOUR)), envelope(due=_in(_HOUR))
        await rig.publish(late, other)
        consumer = await rig.consumer()
        await rig.nothing(consumer)
        assert await rig.broker.queues.reschedule(late.id, _in(0)) is True
        delivery = await rig.one(consumer)
        assert (delivery.id, delivery.body, delivery.deliveries) == (late.id, b"late", 1)
        await rig.nothing(consumer)
        assert await rig.settle(consumer, ack(delivery)) == [True]

    async def test_a_moment_long_past_is_now(self, rig: Rig) -> None:
        rig.needs("reschedule")
        rig.needs("delay")
        messages = [envelope(due=_in(_HOUR)) for _ in range(3)]
        await rig.publish(*messages)
        for message, due in zip(messages, (_in(-_HOUR), 1, 0), strict=True):
            assert await rig.broker.queues.reschedule(message.id, due) is True
        taken = await rig.some(await rig.consumer(), 3)
        assert {delivery.id for delivery in taken} == {message.id for message in messages}

    async def test_what_was_ready_comes_when_it_is_due_and_not_before(self, rig: Rig) -> None:
        rig.needs("reschedule")
        rig.needs("delay")
        first, second, third = [envelope() for _ in range(3)]
        await rig.publish(first, second, third)
        due = _in(0.5)
        assert await rig.broker.queues.reschedule(second.id, due) is True
        consumer = await rig.consumer()
        taken = [await rig.one(consumer) for _ in range(3)]
        assert [delivery.id for delivery in taken] == [first.id, third.id, second.id]
        assert time.time() * 1000 >= due
        await rig.nothing(consumer)
        assert await rig.settle(consumer, *[ack(delivery) for delivery in taken]) == [True] * 3

    async def test_it_may_be_moved_to_and_fro_and_comes_once(self, rig: Rig) -> None:
        rig.needs("reschedule")
        rig.needs("delay")
        message, witness = envelope(), envelope()
        await rig.publish(message, witness)
        for seconds in (_HOUR, -1, -1, _HOUR, 2 * _HOUR, 0, _HOUR, -1):
            assert await rig.broker.queues.reschedule(message.id, _in(seconds)) is True
        consumer = await rig.consumer()
        taken = await rig.some(consumer, 2)
        assert {delivery.id for delivery in taken} == {message.id, witness.id}
        assert await rig.settle(consumer, *[ack(delivery) for delivery in taken]) == [True] * 2
        await rig.nothing(consumer, wait=0.2)
        assert await rig.broker.queues.reschedule(message.id, _in(0)) is False

    async def test_a_later_moment_is_kept(self, rig: Rig) -> None:
        rig.needs("reschedule")
        rig.needs("delay")
        soon = envelope(due=_in(0.3))
        await rig.publish(soon)
        assert await rig.broker.queues.reschedule(soon.id, due := _in(_HOUR)) is True
        await rig.nothing(await rig.consumer(), wait=0.6)
        if rig.broker.capabilities.inspect:
            found = await rig.broker.queues.find(soon.id)
            assert found is not None
            assert (found.state, found.due) == ("scheduled", due)

    async def test_what_does_not_wait_is_not_moved(self, rig: Rig) -> None:
        rig.needs("reschedule")
        await rig.publish(envelope(), envelope(), envelope())
        consumer = await rig.consumer()
        running, done, dead = await rig.some(consumer, 3)
        assert await rig.settle(consumer, ack(done), reject(dead)) == [True, True]
        for job_id in (running.id, done.id, dead.id, "never-was"):
            for seconds in (-1, _HOUR):
                assert await rig.broker.queues.reschedule(job_id, _in(seconds)) is False
        await rig.nothing(consumer)
        # Who runs it keeps it.
        assert await rig.settle(consumer, ack(running)) == [True]
        letter = await rig.broker.dead_letters.get(dead.id)
        assert letter is not None

    async def test_nothing_else_of_the_message_changes(self, rig: Rig) -> None:
        rig.needs("reschedule")
        rig.needs("delay")
        rig.needs("priority")
        plain = envelope(body=b"plain")
        urgent = envelope(body=b"urgent", due=_in(_HOUR), priority=5)
        await rig.publish(plain, urgent)
        assert await rig.broker.queues.reschedule(urgent.id, _in(-1)) is True
        consumer = await rig.consumer()
        taken = [await rig.one(consumer) for _ in range(2)]
        assert [delivery.body for delivery in taken] == [b"urgent", b"plain"]

    async def test_its_key_stays_taken_until_it_has_ended(self, rig: Rig) -> None:
        rig.needs("reschedule")
        rig.needs("delay")
        rig.needs("dedup")
        first, second, third = [envelope(key="k", due=_in(_HOUR)) for _ in range(3)]
        assert await rig.publish(first) == [first.id]
        assert await rig.broker.queues.reschedule(first.id, _in(-1)) is True
        assert await rig.publish(second) == [first.id]
        assert await rig.publish(first) == [first.id]
        consumer = await rig.consumer()
        assert await rig.settle(consumer, ack(await rig.one(consumer))) == [True]
        assert await rig.publish(third) == [third.id]
        assert await rig.broker.queues.reschedule(third.id, _in(-1)) is True
        assert (await rig.one(consumer)).id == third.id

    async def test_a_retry_and_what_was_given_back_wait_too(self, rig: Rig) -> None:
        rig.needs("reschedule")
        rig.needs("delay")
        await rig.publish(envelope(), envelope())
        consumer = await rig.consumer()
        again, back = await rig.some(consumer, 2)
        assert await rig.settle(consumer, retry(again, b"again", due=_in(_HOUR)), release(back, delay=_HOUR)) == [
            True,
            True,
        ]
        await rig.nothing(consumer)
        for delivery in (again, back):
            assert await rig.broker.queues.reschedule(delivery.id, _in(-1)) is True
        found = {delivery.id: delivery for delivery in await rig.some(consumer, 2)}
        assert found[again.id].body == b"again"
        assert found[back.id].deliveries == 2
        # What was moved away is not what was lent before: that delivery is stale.
        assert await rig.settle(consumer, ack(again), ack(back)) == [False, False]

    async def test_a_waiting_receive_notices_it_from_another_thread(self, rig: Rig) -> None:
        rig.needs("reschedule")
        rig.needs("delay")
        message = envelope(due=_in(_HOUR))
        await rig.publish(message)
        consumer = await rig.consumer()
        waiting = asyncio.create_task(rig.one(consumer))
        await asyncio.sleep(0)

        async def move() -> bool:
            async with rig.twin_here() as twin:
                return await twin.queues.reschedule(message.id, _in(-1))

        begin = time.monotonic()
        assert await elsewhere(move) is True
        assert (await waiting).id == message.id
        assert time.monotonic() - begin < self.prompt * 3

    async def test_it_can_be_cancelled_afterwards(self, rig: Rig) -> None:
        rig.needs("reschedule")
        rig.needs("cancel")
        rig.needs("delay")
        here, there = envelope(due=_in(_HOUR)), envelope()
        await rig.publish(here, there)
        assert await rig.broker.queues.reschedule(here.id, _in(-1)) is True
        assert await rig.broker.queues.reschedule(there.id, _in(_HOUR)) is True
        for message in (here, there):
            assert await rig.broker.queues.cancel(message.id) is CancelResult.REMOVED
            assert await rig.broker.queues.reschedule(message.id, _in(-1)) is False
        await rig.nothing(await rig.consumer(), wait=0.1)

    async def test_what_is_moved_while_others_take_comes_once(self, rig: Rig) -> None:
        rig.needs("reschedule")
        rig.needs("delay")
        messages = [envelope(due=_in(_HOUR) if number % 2 else 0) for number in range(40)]
        await rig.publish(*messages)

        async def move() -> list[str]:
            async with rig.twin_here() as twin:
                for _ in range(2):
                    for message in messages:
                        await twin.queues.reschedule(message.id, _in(-1))
            return []

        async def take() -> list[str]:
            taken: list[str] = []
            until = time.monotonic() + self.patience
            async with rig.consumer_here() as consumer:
                while len(done) < len(messages) and time.monotonic() < until:
                    for delivery in await consumer.receive(3, 0.05):
                        assert list(await consumer.settle([ack(delivery)])) == [True]
                        taken.append(delivery.id)
                        done.add(delivery.id)
            return taken

        done: set[str] = set()
        told = await all_at_once(move, take, take)
        assert sorted(job_id for taken in told for job_id in taken) == sorted(message.id for message in messages)
        await rig.nothing(await rig.consumer(), wait=0.1)
