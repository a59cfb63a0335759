"""Leases: they lapse, they are kept, and whoever lost one cannot settle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from camora.interfaces.broker import LeaseVerdict
from camora.testing.conformance.broker.base import BrokerSuite
from camora.testing.conformance.broker.rig import Rig
from camora.testing.conformance.making import ack, envelope, job_record, reject, release, retry

__all__ = ["LeaseSuite"]

_HELD, _LOST = LeaseVerdict.HELD, LeaseVerdict.LOST


class LeaseSuite(BrokerSuite):
    """Leases and fencing."""

    async def test_a_silent_holder_s_message_comes_to_another_one(self, rig: Rig) -> None:
        rig.needs("leases")
        await rig.publish(envelope(body=b"whole"))
        begin = time.monotonic()
        first = await rig.one(await rig.consumer(lease=self.lease))
        second = await rig.one(await rig.consumer())
        assert time.monotonic() - begin >= self.lease * 0.9, "it came before the lease was over"
        assert (second.id, second.body, second.deliveries) == (first.id, b"whole", 2)
        assert second.receipt != first.receipt, "each delivery needs a receipt of its own"

    async def test_the_same_consumer_gets_it_again_when_nobody_else_is_there(self, rig: Rig) -> None:
        rig.needs("leases")
        await rig.publish(envelope())
        consumer = await rig.consumer(lease=self.lease)
        first = await rig.one(consumer)
        second = await rig.one(consumer)
        assert (second.id, second.deliveries) == (first.id, 2)

    async def test_a_consumer_that_was_closed_leaves_its_messages_to_the_lease(self, rig: Rig) -> None:
        rig.needs("leases")
        await rig.publish(envelope())
        consumer = await rig.consumer(lease=self.lease)
        first = await rig.one(consumer)
        await consumer.close()
        assert (await rig.one(await rig.consumer())).id == first.id

    async def test_deliveries_are_counted_up_each_time(self, rig: Rig) -> None:
        rig.needs("leases")
        await rig.publish(envelope())
        consumer = await rig.consumer(lease=self.lease)
        assert [(await rig.one(consumer)).deliveries for _ in range(3)] == [1, 2, 3]

    async def test_a_held_message_is_not_handed_out(self, rig: Rig) -> None:
        rig.needs("leases")
        await rig.publish(envelope())
        await rig.one(await rig.consumer())
        await rig.nothing(await rig.consumer(), wait=0.15)

    async def test_extending_keeps_it(self, rig: Rig) -> None:
        rig.needs("leases")
        for queue, lease in self._longer(2 * self.lease):
            if await self._keeps(rig, queue, lease):
                return
        pytest.fail("this machine is too slow for leases")

    async def _keeps(self, rig: Rig, queue: str, lease: float) -> bool:
        """Whether there was no pause of a lease's length between two extensions. If so, they have kept it."""
        last = begin = time.monotonic()
        await rig.publish(envelope(queue))
        consumer = await rig.consumer(queue, lease=lease)
        delivery = await rig.one(consumer)
        other = await rig.consumer(queue)
        while time.monotonic() - begin < lease * 1.3:
            now = time.monotonic()
            verdicts = await rig.extend(consumer, delivery)
            if time.monotonic() - last > lease:
                return False
            assert verdicts == [_HELD]
            last = now
            came = await other.receive(100, lease / 6)
            if time.monotonic() - last > lease:
                return False
            assert not came
        settled = await rig.settle(consumer, ack(delivery))
        if time.monotonic() - last > lease:
            return False
        assert settled == [True]
        return True

    async def test_an_extended_lease_lasts_its_full_length_and_then_lapses(self, rig: Rig) -> None:
        rig.needs("leases")
        for queue, lease in self._longer(self.lease):
            taken = time.monotonic()
            await rig.publish(envelope(queue))
            consumer = await rig.consumer(queue, lease=lease)
            delivery = await rig.one(consumer)
            begin = time.monotonic()
            verdicts = await rig.extend(consumer, delivery)
            if time.monotonic() - taken > lease:
                continue
            assert verdicts == [_HELD]
            assert (await rig.one(await rig.consumer(queue))).id == delivery.id
            assert time.monotonic() - begin >= lease * 0.9
            return
        pytest.fail("this machine is too slow for leases")

    @staticmethod
    def _longer(lease: float) -> Iterator[tuple[str, float]]:
        """Queues and leases: who was slower than a lease is long has seen nothing, and tries it with a longer one."""
        for times, queue in enumerate(("work", "next", "other")):
            yield queue, lease * 4**times

    async def test_extending_does_not_revive_what_another_one_has_taken(self, rig: Rig) -> None:
        rig.needs("leases")
        old, stale, new, held = await rig.taken_over(envelope())
        assert await rig.extend(old, stale) == [_LOST]
        assert await rig.extend(new, held) == [_HELD]
        assert await rig.settle(old, ack(stale)) == [False]
        assert await rig.settle(new, ack(held)) == [True]

    async def test_verdicts_stand_in_the_order_of_the_deliveries(self, rig: Rig) -> None:
        rig.needs("leases")
        old, stale, new, held = await rig.taken_over(envelope())
        await rig.publish(envelope())
        other = await rig.one(new)
        assert await rig.extend(new, other, stale, held) == [_HELD, _LOST, _HELD]
        assert list(await rig.extend(old)) == []

    async def test_what_is_settled_is_lost_to_its_keeper(self, rig: Rig) -> None:
        rig.needs("leases")
        await rig.publish(envelope())
        consumer = await rig.consumer()
        delivery = await rig.one(consumer)
        assert await rig.settle(consumer, ack(delivery)) == [True]
        assert await rig.extend(consumer, delivery) == [_LOST]

    async def test_a_keeper_works_while_the_event_loop_is_blocked(self, rig: Rig) -> None:
        rig.needs("leases")
        await rig.publish(envelope())
        consumer = await rig.consumer()
        delivery = await rig.one(consumer)
        extending = asyncio.create_task(rig.extend(consumer, delivery))
        await asyncio.sleep(0.05)
        time.sleep(0.3)  # noqa: ASYNC251 -- the loop is blocked on purpose
        assert await extending == [_HELD]

    async def test_a_stale_acknowledgement_changes_nothing(self, rig: Rig) -> None:
        rig.needs("leases")
        old, stale, new, held = await rig.taken_over(envelope())
        successor = envelope("next")
        answers = await rig.settle(old, ack(stale, successors=(successor,)))
        assert answers == [False]
        await rig.nothing(await rig.consumer("next"))
        assert await rig.settle(new, ack(held)) == [True]

    async def test_a_stale_rejection_leaves_no_letter(self, rig: Rig) -> None:
        rig.needs("leases")
        old, stale, new, held = await rig.taken_over(envelope())
        assert await rig.settle(old, reject(stale)) == [False]
        assert await rig.broker.dead_letters.get(stale.id) is None
        assert await rig.settle(new, ack(held)) == [True]

    async def test_a_stale_retry_or_release_does_not_bring_a_second_copy(self, rig: Rig) -> None:
        rig.needs("leases")
        old, stale, new, held = await rig.taken_over(envelope())
        assert await rig.settle(old, retry(stale)) == [False]
        assert await rig.settle(old, release(stale)) == [False]
        await rig.nothing(await rig.consumer())
        assert await rig.settle(new, ack(held)) == [True]
        await rig.nothing(await rig.consumer())

    async def test_a_stale_settlement_writes_no_record(self, rig: Rig) -> None:
        rig.needs("leases")
        results = rig.needs_results()
        old, stale, new, held = await rig.taken_over(envelope())
        assert await rig.settle(old, ack(stale, record=job_record(stale.id, value=b"stale"))) == [False]
        assert await results.fetch([stale.id]) == [None]
        assert await rig.settle(new, ack(held, record=job_record(held.id, value=b"held"))) == [True]
        [record] = await results.fetch([held.id])
        assert record is not None
        assert record.value == b"held"

    async def test_a_batch_with_a_stale_settlement_applies_the_others(self, rig: Rig) -> None:
        rig.needs("leases")
        _, stale, new, held = await rig.taken_over(envelope())
        await rig.publish(envelope(), envelope())
        first, second = await rig.some(new, 2)
        assert await rig.settle(new, ack(first), ack(stale), reject(second), ack(held)) == [True, False, True, True]
        assert await rig.broker.dead_letters.get(second.id) is not None
