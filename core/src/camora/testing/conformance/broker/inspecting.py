"""Looking into queues, pausing, cancelling, purging."""

from __future__ import annotations

import asyncio
import time

import pytest

from camora.errors import UnsupportedCapability
from camora.outcome import CancelResult
from camora.testing.conformance.broker.base import BrokerSuite
from camora.testing.conformance.broker.rig import Rig
from camora.testing.conformance.elsewhere import elsewhere
from camora.testing.conformance.making import ack, envelope, reject, retry

__all__ = ["InspectingSuite"]

_TOO_LATE = {CancelResult.FINISHED, CancelResult.UNKNOWN}


class InspectingSuite(BrokerSuite):
    """Inspection and control."""

    async def test_a_paused_queue_hands_out_nothing_until_it_is_resumed(self, rig: Rig) -> None:
        rig.needs("pause")
        await rig.broker.queues.pause("work")
        await rig.broker.queues.pause("work")
        message = envelope()
        await rig.publish(message, envelope("other"))
        consumer = await rig.consumer()
        await rig.nothing(consumer, wait=0.2)
        await rig.one(await rig.consumer("other"))
        waiting = asyncio.create_task(rig.one(consumer))
        await asyncio.sleep(0)
        begin = time.monotonic()
        await rig.broker.queues.pause("work", paused=False)
        assert (await waiting).id == message.id
        assert time.monotonic() - begin < self.prompt * 3

    async def test_paused_names_the_paused_queues_to_every_twin(self, rig: Rig) -> None:
        rig.needs("pause")
        await rig.broker.queues.pause("b")
        await rig.broker.queues.pause("a")

        async def ask() -> list[str]:
            async with rig.twin_here() as twin:
                return list(await twin.queues.paused())

        assert sorted(await elsewhere(ask)) == ["a", "b"]
        await rig.broker.queues.pause("b", paused=False)
        await rig.broker.queues.pause("never", paused=False)
        assert list(await rig.broker.queues.paused()) == ["a"]

    async def test_what_runs_in_a_paused_queue_can_be_settled(self, rig: Rig) -> None:
        rig.needs("pause")
        await rig.publish(envelope())
        consumer = await rig.consumer()
        delivery = await rig.one(consumer)
        await rig.broker.queues.pause("work")
        assert await rig.settle(consumer, ack(delivery)) == [True]

    async def test_counts_tell_how_many_are_in_which_state(self, rig: Rig) -> None:
        rig.needs("inspect")
        assert not any(sum(states.values()) for states in (await rig.broker.queues.counts()).values())
        await rig.publish(*[envelope() for _ in range(4)], envelope("other"))
        if rig.broker.capabilities.delay:
            await rig.publish(envelope(due=_in_an_hour()))
        consumer = await rig.consumer()
        dead, _ = await rig.some(consumer, 2)
        await rig.settle(consumer, reject(dead))
        counts = await rig.broker.queues.counts()
        seen = {
            queue: {state: number for state, number in states.items() if number} for queue, states in counts.items()
        }
        scheduled = {"scheduled": 1} if rig.broker.capabilities.delay else {}
        assert seen == {"work": {"ready": 2, "leased": 1, "dead": 1, **scheduled}, "other": {"ready": 1}}

    async def test_counts_tell_at_least_what_is_ready(self, rig: Rig) -> None:
        """Every broker that counts at all; it may take a moment."""
        await rig.publish(*[envelope() for _ in range(3)], envelope("other"))
        ready: dict[str, int] = {}
        until = time.monotonic() + self.patience
        while ready != {"work": 3, "other": 1} and time.monotonic() < until:
            try:
                counts = await rig.broker.queues.counts()
            except UnsupportedCapability:
                pytest.skip("the broker cannot count")
            ready = {queue: states["ready"] for queue, states in counts.items() if states.get("ready")}
        assert ready == {"work": 3, "other": 1}

    async def test_find_tells_where_a_message_lies(self, rig: Rig) -> None:
        rig.needs("inspect")
        queues = rig.broker.queues
        message = envelope(body=b"seen")
        await rig.publish(message)
        found = await queues.find(message.id)
        assert found is not None
        assert (found.state, found.queue, found.task, found.body) == ("ready", "work", "a.task", b"seen")
        consumer = await rig.consumer()
        delivery = await rig.one(consumer)
        found = await queues.find(message.id)
        assert found is not None
        assert (found.state, found.deliveries) == ("leased", 1)
        assert found.worker.startswith("worker-")
        await rig.settle(consumer, retry(delivery, b"new", due=_in_an_hour() if rig.broker.capabilities.delay else 0))
        found = await queues.find(message.id)
        assert found is not None
        assert (found.state, found.body) == ("scheduled" if rig.broker.capabilities.delay else "ready", b"new")

    async def test_find_knows_the_dead_and_not_the_finished(self, rig: Rig) -> None:
        rig.needs("inspect")
        await rig.publish(envelope(), envelope())
        consumer = await rig.consumer()
        dead, done = await rig.some(consumer, 2)
        await rig.settle(consumer, reject(dead), ack(done))
        found = await rig.broker.queues.find(dead.id)
        assert found is not None
        assert found.state == "dead"
        assert await rig.broker.queues.find(done.id) is None
        assert await rig.broker.queues.find("never-was") is None

    async def test_list_gives_pages_in_order_of_id_without_bodies(self, rig: Rig) -> None:
        rig.needs("inspect")
        messages = [envelope(body=b"x" * 100) for _ in range(25)]
        await rig.publish(*messages, envelope("other"))
        await rig.one(await rig.consumer())
        seen, after = [], ""
        while page := await rig.broker.queues.list("work", limit=10, after=after):
            assert len(page) <= 10
            seen += [job.id for job in page]
            assert not any(job.body for job in page)
            after = page[-1].id
        assert seen == sorted(message.id for message in messages)

    async def test_a_cancelled_waiting_message_never_comes(self, rig: Rig) -> None:
        rig.needs("cancel")
        first, second, third = [envelope() for _ in range(3)]
        await rig.publish(first, second, third)
        assert await rig.broker.queues.cancel(second.id) is CancelResult.REMOVED
        assert await rig.broker.queues.cancel(second.id) in _TOO_LATE
        consumer = await rig.consumer()
        assert [one.id for one in await rig.some(consumer, 2)] == [first.id, third.id]
        await rig.nothing(consumer)

    async def test_a_cancelled_delayed_message_never_comes(self, rig: Rig) -> None:
        rig.needs("cancel")
        rig.needs("delay")
        message = envelope(due=round(time.time() * 1000) + 300)
        await rig.publish(message)
        assert await rig.broker.queues.cancel(message.id) is CancelResult.REMOVED
        await rig.nothing(await rig.consumer(), wait=0.6)

    async def test_cancelling_a_running_job_tells_its_worker(self, rig: Rig) -> None:
        rig.needs("cancel")
        await rig.publish(envelope(), envelope())
        consumer = await rig.consumer()
        first, second = await rig.some(consumer, 2)
        assert not await rig.cancelled(consumer, first, second)
        assert await rig.broker.queues.cancel(second.id) is CancelResult.SIGNALLED
        assert await rig.broker.queues.cancel(second.id) is CancelResult.SIGNALLED
        assert await rig.cancelled(consumer, first, second) == [second.id]
        assert await rig.settle(consumer, ack(first), ack(second)) == [True, True]

    async def test_cancelling_outlives_the_worker_it_was_told(self, rig: Rig) -> None:
        rig.needs("cancel")
        rig.needs("leases")
        await rig.publish(envelope())
        await rig.one(await rig.consumer(lease=self.lease))
        [job] = await rig.broker.queues.list("work")
        assert await rig.broker.queues.cancel(job.id) is CancelResult.SIGNALLED
        heir = await rig.consumer()
        delivery = await rig.one(heir)
        assert await rig.cancelled(heir, delivery) == [job.id]

    async def test_cancelling_what_is_over_or_unknown_says_so(self, rig: Rig) -> None:
        rig.needs("cancel")
        await rig.publish(envelope(), envelope())
        consumer = await rig.consumer()
        done, dead = await rig.some(consumer, 2)
        await rig.settle(consumer, ack(done), reject(dead))
        assert await rig.broker.queues.cancel(done.id) in _TOO_LATE
        assert await rig.broker.queues.cancel(dead.id) in _TOO_LATE
        assert await rig.broker.queues.cancel("never-was") is CancelResult.UNKNOWN
        assert await rig.broker.dead_letters.get(dead.id) is not None

    async def test_what_is_not_due_yet_can_be_cancelled(self, rig: Rig) -> None:
        if not (rig.broker.capabilities.cancel or rig.broker.capabilities.cancel_scheduled):
            pytest.skip("the broker declares cancel and cancel_scheduled as unsupported")
        rig.needs("delay")
        soon, here, there, later = [envelope(due=_in(delay)) for delay in (1.0, 3600, 3600, 1.5)]
        await rig.publish(soon, here, there, later)
        assert await rig.broker.queues.cancel(soon.id) is CancelResult.REMOVED
        assert await rig.broker.queues.cancel(here.id) is CancelResult.REMOVED

        async def cancel() -> CancelResult:
            async with rig.twin_here() as twin:
                return await twin.queues.cancel(there.id)

        assert await elsewhere(cancel) is CancelResult.REMOVED
        for gone in (soon, here, there):
            assert await _answer(rig, gone.id) in {*_TOO_LATE, None}
        assert await _answer(rig, "never-was") in {CancelResult.UNKNOWN, None}
        consumer = await rig.consumer()
        delivery = await rig.one(consumer)
        assert delivery.id == later.id
        # A retry that waits for its time is the same job.
        assert await rig.settle(consumer, retry(delivery, b"again", due=_in(3600))) == [True]
        assert await rig.broker.queues.cancel(later.id) is CancelResult.REMOVED
        await rig.nothing(consumer, wait=0.2)

    async def test_purging_a_queue_deletes_what_waits_and_leaves_what_runs(self, rig: Rig) -> None:
        await rig.publish(*[envelope() for _ in range(3)], envelope("other"))
        expected = {2}
        if rig.broker.capabilities.delay:
            await rig.publish(envelope(due=_in_an_hour()))
            # Who cannot look for messages may not find those of one queue that are not due yet.
            expected = {3} if rig.broker.capabilities.inspect else {2, 3}
        consumer = await rig.consumer()
        delivery = await rig.one(consumer)
        assert await rig.broker.queues.purge("work") in expected
        assert await rig.broker.queues.purge("work") == 0
        await rig.nothing(await rig.consumer())
        assert await rig.settle(consumer, ack(delivery)) == [True]
        await rig.one(await rig.consumer("other"))


async def _answer(rig: Rig, job_id: str) -> CancelResult | None:
    """None when it is refused, which is right of who can cancel only what is not due yet."""
    try:
        return await rig.broker.queues.cancel(job_id)
    except UnsupportedCapability:
        if rig.broker.capabilities.cancel:
            raise
        return None


def _in(seconds: float) -> int:
    return round((time.time() + seconds) * 1000)


def _in_an_hour() -> int:
    return _in(3600)
