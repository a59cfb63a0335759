"""Settling: each action does what it says, in one step, once."""

from __future__ import annotations

import asyncio
import time

from camora.outcome import Status
from camora.testing.conformance.broker.base import BrokerSuite
from camora.testing.conformance.broker.rig import Rig
from camora.testing.conformance.elsewhere import elsewhere
from camora.testing.conformance.making import ack, envelope, job_record, reject, release, retry

__all__ = ["SettlingSuite"]


class SettlingSuite(BrokerSuite):
    """Settling."""

    async def test_what_is_acknowledged_is_gone(self, rig: Rig) -> None:
        await rig.publish(envelope(), envelope())
        consumer = await rig.consumer(lease=self.lease)
        taken = await rig.some(consumer, 2)
        assert await rig.settle(consumer, *map(ack, taken)) == [True, True]
        await rig.nothing(await rig.consumer(), wait=self.lease * 1.5)

    async def test_a_settlement_may_be_repeated_and_is_applied_once(self, rig: Rig) -> None:
        await rig.publish(envelope())
        consumer = await rig.consumer()
        delivery = await rig.one(consumer)
        settlement = ack(delivery, successors=(envelope("next"),))
        assert await rig.settle(consumer, settlement) == [True]
        await rig.settle(consumer, settlement)
        following = await rig.consumer("next")
        await rig.one(following)
        await rig.nothing(following)

    async def test_two_settlements_of_one_delivery_in_a_batch_are_applied_once(self, rig: Rig) -> None:
        await rig.publish(envelope())
        consumer = await rig.consumer()
        delivery = await rig.one(consumer)
        answers = await rig.settle(consumer, ack(delivery), reject(delivery))
        assert answers == [True, False]
        assert await rig.broker.dead_letters.get(delivery.id) is None

    async def test_a_repeated_retry_does_not_touch_the_new_attempt(self, rig: Rig) -> None:
        await rig.publish(envelope())
        consumer = await rig.consumer()
        first = await rig.one(consumer)
        settlement = retry(first)
        assert await rig.settle(consumer, settlement) == [True]
        second = await rig.one(consumer)
        await rig.settle(consumer, settlement)
        assert await rig.settle(consumer, ack(first)) == [False]
        await rig.nothing(consumer)
        assert await rig.settle(consumer, ack(second)) == [True]

    async def test_a_retry_keeps_the_id_and_brings_the_new_body(self, rig: Rig) -> None:
        await rig.publish(envelope(body=b"first"))
        consumer = await rig.consumer()
        first = await rig.one(consumer)
        assert await rig.settle(consumer, retry(first, b"second")) == [True]
        second = await rig.one(consumer)
        assert (second.id, second.body, second.deliveries) == (first.id, b"second", 1)
        await rig.nothing(consumer)

    async def test_a_retry_comes_when_it_is_due_and_not_before(self, rig: Rig) -> None:
        rig.needs("delay")
        await rig.publish(envelope())
        consumer = await rig.consumer()
        first = await rig.one(consumer)
        due = round(time.time() * 1000) + 400
        assert await rig.settle(consumer, retry(first, due=due)) == [True]
        again = await rig.one(consumer)
        assert again.id == first.id
        assert time.time() * 1000 >= due, "the retry started early"

    async def test_a_release_brings_the_message_back_as_it_was(self, rig: Rig) -> None:
        await rig.publish(envelope(body=b"same"))
        consumer = await rig.consumer()
        first = await rig.one(consumer)
        assert await rig.settle(consumer, release(first, charged=True)) == [True]
        second = await rig.one(await rig.consumer())
        assert (second.id, second.body, second.deliveries) == (first.id, b"same", 2)
        assert await rig.settle(consumer, ack(first)) == [False]

    async def test_an_uncharged_release_is_taken_off_the_count(self, rig: Rig) -> None:
        await rig.publish(envelope())
        consumer = await rig.consumer()
        for _ in range(3):
            delivery = await rig.one(consumer)
            if self.refunds:
                assert delivery.deliveries == 1
            assert await rig.settle(consumer, release(delivery, charged=False)) == [True]

    async def test_a_release_with_a_delay_comes_back_after_it(self, rig: Rig) -> None:
        rig.needs("delay")
        await rig.publish(envelope())
        consumer = await rig.consumer()
        first = await rig.one(consumer)
        begin = time.monotonic()
        assert await rig.settle(consumer, release(first, delay=0.4)) == [True]
        assert (await rig.one(consumer)).id == first.id
        assert time.monotonic() - begin >= 0.39

    async def test_a_rejected_message_is_a_dead_letter_and_comes_no_more(self, rig: Rig) -> None:
        await rig.publish(envelope(body=b"dead"))
        consumer = await rig.consumer(lease=self.lease)
        delivery = await rig.one(consumer)
        assert await rig.settle(consumer, reject(delivery)) == [True]
        letter = await rig.broker.dead_letters.get(delivery.id)
        assert letter is not None
        assert letter.body == b"dead"
        await rig.nothing(await rig.consumer(), wait=self.lease * 1.5)

    async def test_successors_are_published_with_the_acknowledgement(self, rig: Rig) -> None:
        await rig.publish(envelope())
        consumer = await rig.consumer()
        delivery = await rig.one(consumer)
        successors = (envelope("next", b"1"), envelope("next", b"2"))
        assert await rig.settle(consumer, ack(delivery, successors=successors)) == [True]
        taken = await rig.some(await rig.consumer("next"), 2)
        assert [(one.id, one.body) for one in taken] == [(one.id, one.body) for one in successors]

    async def test_successors_come_with_a_rejection_too(self, rig: Rig) -> None:
        await rig.publish(envelope())
        consumer = await rig.consumer()
        delivery = await rig.one(consumer)
        assert await rig.settle(consumer, reject(delivery, successors=(envelope("alert"),))) == [True]
        await rig.one(await rig.consumer("alert"))

    async def test_a_successor_that_was_published_before_is_not_doubled(self, rig: Rig) -> None:
        rig.needs("dedup")
        successor = envelope("next")
        await rig.publish(envelope(), successor)
        consumer = await rig.consumer()
        delivery = await rig.one(consumer)
        assert await rig.settle(consumer, ack(delivery, successors=(successor,))) == [True]
        following = await rig.consumer("next")
        await rig.one(following)
        await rig.nothing(following)

    async def test_the_record_is_there_with_the_acknowledgement(self, rig: Rig) -> None:
        results = rig.needs_results()
        await rig.publish(envelope())
        consumer = await rig.consumer()
        delivery = await rig.one(consumer)
        assert await rig.settle(consumer, ack(delivery, record=job_record(delivery.id))) == [True]
        [record] = await results.fetch([delivery.id])
        assert record is not None
        assert (record.status, record.value) == (Status.SUCCEEDED, b"42")

    async def test_a_settlement_wakes_who_waits_for_the_result(self, rig: Rig) -> None:
        results = rig.needs_results()
        job = envelope()
        await rig.publish(job)

        async def work() -> None:
            async with rig.consumer_here() as consumer:
                delivery = await rig.one(consumer)
                await consumer.settle([ack(delivery, record=job_record(delivery.id))])

        waiting = asyncio.create_task(results.wait(job.id, self.patience))
        await elsewhere(work)
        record = await waiting
        assert record is not None
        assert record.id == job.id

    async def test_a_retry_leaves_an_unfinished_record(self, rig: Rig) -> None:
        results = rig.needs_results()
        await rig.publish(envelope())
        consumer = await rig.consumer()
        first = await rig.one(consumer)
        await rig.settle(consumer, retry(first, record=job_record(first.id, Status.RETRYING, attempts=1)))
        [record] = await results.fetch([first.id])
        assert record is not None
        assert (record.status, record.attempts) == (Status.RETRYING, 1)
        second = await rig.one(consumer)
        await rig.settle(consumer, ack(second, record=job_record(first.id, attempts=2)))
        [record] = await results.fetch([first.id])
        assert record is not None
        assert (record.status, record.attempts) == (Status.SUCCEEDED, 2)

    async def test_a_large_batch_is_settled_at_once(self, rig: Rig) -> None:
        await rig.publish(*[envelope() for _ in range(250)])
        consumer = await rig.consumer(prefetch=250)
        taken = await rig.some(consumer, 250)
        assert await rig.settle(consumer, *map(ack, taken)) == [True] * 250
        await rig.nothing(await rig.consumer())

    async def test_one_consumer_s_end_does_not_touch_another_one_s_deliveries(self, rig: Rig) -> None:
        await rig.publish(envelope(), envelope())
        leaving, staying = await rig.consumer(), await rig.consumer()
        await rig.one(leaving)
        delivery = await rig.one(staying)
        await leaving.close()
        assert await rig.settle(staying, ack(delivery)) == [True]
