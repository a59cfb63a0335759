"""The dead letters: kept whole, listed, requeued, purged."""

from __future__ import annotations

import asyncio

from camora.message import Envelope
from camora.outcome import DeadLetter, ErrorInfo
from camora.testing.conformance.broker.base import BrokerSuite
from camora.testing.conformance.broker.rig import Rig
from camora.testing.conformance.elsewhere import elsewhere
from camora.testing.conformance.making import ack, envelope, reject

__all__ = ["BuryingSuite"]


async def _bury(rig: Rig, *messages: Envelope) -> None:
    await rig.publish(*messages)
    consumer = await rig.consumer(*{message.queue for message in messages})
    taken = await rig.some(consumer, len(messages))
    assert all(await rig.settle(consumer, *map(reject, taken)))
    # What is put back is not for this one: a broker that pushes would hand it out here, and count that as a delivery.
    await consumer.close()


class BuryingSuite(BrokerSuite):
    """Dead letters."""

    async def test_a_letter_is_kept_whole(self, rig: Rig) -> None:
        await rig.publish(envelope(body=b"\xff\x00 not a message"))
        consumer = await rig.consumer()
        delivery = await rig.one(consumer)
        letter = DeadLetter(
            id=delivery.id,
            queue="work",
            task="a.task",
            body=delivery.body,
            reason="undecodable",
            error=ErrorInfo(type="camora.errors.DecodeError", text="é\x00\n'", traceback="Traceback …", timeout=True),
            attempts=3,
            deliveries=2,
            died=1_700_000_000_123,
        )
        assert await rig.settle(consumer, reject(delivery, letter=letter)) == [True]

        async def fetch() -> DeadLetter | None:
            async with rig.twin_here() as twin:
                return await twin.dead_letters.get(delivery.id)

        assert await elsewhere(fetch) == letter

    async def test_an_unknown_letter_is_none(self, rig: Rig) -> None:
        assert await rig.broker.dead_letters.get("never-was") is None
        assert await rig.broker.dead_letters.requeue("never-was") is False
        assert await rig.broker.dead_letters.purge(ids=["never-was"]) == 0
        assert list(await rig.broker.dead_letters.list()) == []

    async def test_letters_come_in_pages_in_order_of_id(self, rig: Rig) -> None:
        messages = [envelope("ab"[number % 2]) for number in range(25)]
        await _bury(rig, *messages)
        for queue in (None, "a", "b", "c"):
            seen, after = [], ""
            while page := await rig.broker.dead_letters.list(queue=queue, limit=4, after=after):
                assert len(page) <= 4
                seen += [letter.id for letter in page]
                after = page[-1].id
            assert seen == sorted(message.id for message in messages if queue in (None, message.queue))

    async def test_a_requeued_message_comes_again_under_its_id(self, rig: Rig) -> None:
        message = envelope(body=b"again")
        await _bury(rig, message)
        assert await rig.broker.dead_letters.requeue(message.id) is True
        assert await rig.broker.dead_letters.get(message.id) is None
        assert await rig.broker.dead_letters.requeue(message.id) is False
        consumer = await rig.consumer()
        delivery = await rig.one(consumer)
        assert (delivery.id, delivery.body, delivery.deliveries) == (message.id, b"again", 1)
        assert await rig.settle(consumer, ack(delivery)) == [True]

    async def test_a_requeued_message_may_get_a_new_body(self, rig: Rig) -> None:
        message = envelope(body=b"old")
        await _bury(rig, message)
        assert await rig.broker.dead_letters.requeue(message.id, body=b"new") is True
        assert (await rig.one(await rig.consumer())).body == b"new"

    async def test_a_requeued_message_can_die_again(self, rig: Rig) -> None:
        message = envelope()
        await _bury(rig, message)
        await rig.broker.dead_letters.requeue(message.id)
        consumer = await rig.consumer()
        assert await rig.settle(consumer, reject(await rig.one(consumer))) == [True]
        assert await rig.broker.dead_letters.get(message.id) is not None

    async def test_requeueing_wakes_a_waiting_consumer_of_another_twin(self, rig: Rig) -> None:
        message = envelope()
        await _bury(rig, message)
        waiting = asyncio.create_task(rig.one(await rig.consumer()))

        async def requeue() -> bool:
            async with rig.twin_here() as twin:
                return await twin.dead_letters.requeue(message.id)

        assert await elsewhere(requeue) is True
        assert (await waiting).id == message.id

    async def test_purging_takes_a_queue_or_ids_or_all(self, rig: Rig) -> None:
        messages = [envelope(queue) for queue in ("a", "a", "b", "b", "c")]
        await _bury(rig, *messages)
        letters = rig.broker.dead_letters
        assert await letters.purge(ids=[]) == 0
        assert await letters.purge(ids=[messages[0].id, "never-was"]) == 1
        assert await letters.purge(queue="a") == 1
        assert await letters.purge(queue="a", ids=[messages[2].id]) == 0
        assert [letter.id for letter in await letters.list()] == sorted(message.id for message in messages[2:])
        assert await letters.purge() == 3
        assert list(await letters.list()) == []
        await rig.nothing(await rig.consumer("a", "b", "c"))
