"""What is published arrives: whole, once, and in order."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from camora.errors import CamoraError, MessageTooLarge
from camora.testing.conformance.broker.base import BrokerSuite
from camora.testing.conformance.broker.rig import Rig
from camora.testing.conformance.elsewhere import all_at_once
from camora.testing.conformance.making import ack, envelope, fresh_id

__all__ = ["PublishingSuite"]

_MIB = 1024 * 1024
_LARGEST_TRIED = 64 * _MIB
_HOSTILE = (
    "a:b", "a*", "a.b.c", "a b", "../../etc/passwd", "x'; DROP TABLE messages; --", 'quo"te', "100%", "back\\slash",
    "ünïcödé", "文字", "[ab]", "{tag}", "new\nline", "nul\x00", "n" * 300,
)  # fmt: skip


class PublishingSuite(BrokerSuite):
    """Publishing."""

    async def test_messages_arrive_in_the_order_of_publishing(self, rig: Rig) -> None:
        consumer = await rig.consumer()
        ids = []
        for size in (1, 100, 0, 7, 150, 1):
            batch = [envelope() for _ in range(size)]
            assert await rig.publish(*batch) == [message.id for message in batch]
            ids += [message.id for message in batch]
        taken = await rig.some(consumer, len(ids), at_once=40)
        assert [delivery.id for delivery in taken] == ids

    async def test_an_empty_batch_is_nothing(self, rig: Rig) -> None:
        assert await rig.publish() == []
        consumer = await rig.consumer()
        assert await rig.settle(consumer) == []
        await rig.nothing(consumer)

    async def test_a_delivery_says_what_was_published(self, rig: Rig) -> None:
        message = envelope("work", b"payload")
        await rig.publish(message)
        delivery = await rig.one(await rig.consumer())
        assert (delivery.id, delivery.queue, delivery.body, delivery.deliveries) == (message.id, "work", b"payload", 1)

    @pytest.mark.parametrize(
        "body",
        [b"", b"\x00", b"\x00\x01\xff\xfe" * 10, bytes(range(256)), b"'\";--\\\r\n", "{é}".encode()],
        ids=["empty", "nul", "binary", "all-bytes", "quotes", "utf8"],
    )
    async def test_bodies_travel_byte_for_byte(self, rig: Rig, body: bytes) -> None:
        await rig.publish(envelope(body=body))
        delivery = await rig.one(await rig.consumer())
        assert delivery.body == body

    async def test_a_body_of_a_mebibyte_travels_whole(self, rig: Rig) -> None:
        size = min(_MIB, rig.broker.capabilities.largest or _MIB)
        body = bytes(range(256)) * (size // 256)
        await rig.publish(envelope(body=body))
        delivery = await rig.one(await rig.consumer())
        assert delivery.body == body

    async def test_a_body_above_the_declared_limit_is_refused_and_nothing_is_stored(self, rig: Rig) -> None:
        largest = rig.broker.capabilities.largest
        if largest is None or largest > _LARGEST_TRIED:
            pytest.skip("the broker declares no limit, or one too large to try")
        with pytest.raises(MessageTooLarge) as refused:
            await rig.publish(envelope(), envelope(body=b"x" * (largest + 1)))
        assert refused.value.size > refused.value.limit
        consumer = await rig.consumer()
        await rig.nothing(consumer)
        await rig.publish(envelope(body=b"x" * largest))
        assert len((await rig.one(consumer)).body) == largest

    async def test_queues_are_apart(self, rig: Rig) -> None:
        here, there = envelope("here"), envelope("there")
        await rig.publish(here, there)
        assert (await rig.one(await rig.consumer("there"))).id == there.id
        consumer = await rig.consumer("here")
        assert (await rig.one(consumer)).id == here.id
        await rig.nothing(consumer)

    async def test_one_consumer_serves_many_queues(self, rig: Rig) -> None:
        messages = [envelope(queue) for queue in ("a", "b", "c", "b", "a", "other")]
        await rig.publish(*messages)
        taken = await rig.some(await rig.consumer("a", "b", "c"), 5)
        assert {delivery.id: delivery.queue for delivery in taken} == {
            message.id: message.queue for message in messages[:5]
        }

    @pytest.mark.parametrize("name", _HOSTILE, ids=range(len(_HOSTILE)))
    async def test_a_hostile_queue_name_is_a_name_like_any_other_or_refused(self, rig: Rig, name: str) -> None:
        bystander = envelope("work")
        await rig.publish(bystander)
        message = envelope(name)
        try:
            await rig.publish(message)
        except (CamoraError, ValueError):
            await rig.nothing(await rig.consumer("other"))
        else:
            consumer = await rig.consumer(name)
            delivery = await rig.one(consumer)
            assert (delivery.id, delivery.queue) == (message.id, name)
            await rig.nothing(consumer)
            assert await rig.settle(consumer, ack(delivery)) == [True]
        assert (await rig.one(await rig.consumer("work"))).id == bystander.id

    async def test_publishing_from_many_threads_loses_nothing(self, rig: Rig) -> None:
        plans = [[[fresh_id() for _ in range(5)] for _ in range(6)] for _ in range(4)]

        def work_of(plan: list[list[str]]) -> Callable[[], Coroutine[Any, Any, None]]:
            async def work() -> None:
                async with rig.twin_here() as twin:
                    for batch in plan:
                        await twin.publish([envelope(id=job_id) for job_id in batch])

            return work

        await all_at_once(*[work_of(plan) for plan in plans])
        taken = [delivery.id for delivery in await rig.some(await rig.consumer(), 120)]
        assert len(set(taken)) == 120
        for plan in plans:
            mine = [job_id for batch in plan for job_id in batch]
            chosen = set(mine)
            assert [job_id for job_id in taken if job_id in chosen] == mine, "one publisher's order was not kept"
