"""Opening, twins, stopping, closing; and honesty about what a broker cannot do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from camora.errors import UnsupportedCapability
from camora.interfaces.capabilities import Capabilities
from camora.testing.conformance.broker.base import BrokerSuite
from camora.testing.conformance.broker.rig import Rig
from camora.testing.conformance.making import ack, envelope

__all__ = ["HonestySuite", "LivingSuite"]


class LivingSuite(BrokerSuite):
    """Life and end."""

    async def test_a_twin_sees_the_same_messages(self, rig: Rig) -> None:
        twin = await rig.twin()
        message = envelope()
        await twin.publish([message])
        assert (await rig.one(await rig.consumer())).id == message.id

    async def test_closing_a_twin_leaves_the_others_at_work(self, rig: Rig) -> None:
        first, second = await rig.twin(), await rig.twin()
        await first.publish([envelope()])
        await first.close()
        await second.publish([envelope()])
        await rig.some(await rig.consumer(), 2)

    async def test_a_twin_of_a_closed_broker_can_be_opened(self, rig: Rig) -> None:
        twin = rig.broker.twin()
        await twin.open()
        await twin.close()
        other = twin.twin()
        await other.open()
        await other.publish([envelope()])
        await other.close()
        await rig.one(await rig.consumer())

    async def test_closing_may_be_repeated(self, rig: Rig) -> None:
        twin = await rig.twin()
        consumer = await rig.consumer()
        leases = await asyncio.to_thread(consumer.leases)
        for _ in range(2):
            await asyncio.to_thread(leases.close)
            await consumer.stop()
            await consumer.close()
            await twin.close()

    async def test_a_broker_that_was_never_opened_can_be_closed(self, rig: Rig) -> None:
        await rig.broker.twin().close()

    async def test_stopping_ends_a_waiting_receive_at_once(self, rig: Rig) -> None:
        consumer = await rig.consumer()
        waiting = asyncio.create_task(consumer.receive(10, self.patience))
        await asyncio.sleep(0.05)
        begin = time.monotonic()
        await consumer.stop()
        assert not await waiting
        assert time.monotonic() - begin < self.prompt

    async def test_a_stopped_consumer_takes_nothing_and_still_settles_and_extends(self, rig: Rig) -> None:
        await rig.publish(envelope(), envelope())
        consumer = await rig.consumer(prefetch=1)
        delivery = await rig.one(consumer)
        await consumer.stop()
        assert not await consumer.receive(10, 0.1)
        assert len(await rig.extend(consumer, delivery)) == 1
        assert await rig.settle(consumer, ack(delivery)) == [True]
        await rig.one(await rig.consumer())

    async def test_stopping_gives_back_what_was_taken_ahead(self, rig: Rig) -> None:
        messages = [envelope() for _ in range(10)]
        await rig.publish(*messages)
        greedy = await rig.consumer(prefetch=10)
        mine = await rig.one(greedy)
        await greedy.stop()
        begin = time.monotonic()
        rest = await rig.some(await rig.consumer(), 9)
        assert time.monotonic() - begin < self.patience / 2, "they came back with the lease only"
        assert sorted([mine.id, *[one.id for one in rest]]) == sorted(message.id for message in messages)

    async def test_what_is_left_unsettled_survives_the_closing_of_its_broker(self, rig: Rig) -> None:
        rig.needs("leases")
        message = envelope()
        async with rig.consumer_here(lease=self.lease) as consumer:
            await rig.publish(message)
            await rig.one(consumer)
        assert (await rig.one(await rig.consumer())).id == message.id

    async def test_its_text_form_is_short_and_holds_no_secret(self, rig: Rig) -> None:
        text = repr(rig.broker)
        assert "password" not in text.lower()
        assert len(text) < 500


class HonestySuite(BrokerSuite):
    """What is declared as unsupported is refused, in words, and nothing is stored or changed."""

    async def test_capabilities_are_declared(self, rig: Rig) -> None:
        assert isinstance(rig.broker.capabilities, Capabilities)
        assert rig.broker.twin().capabilities == rig.broker.capabilities

    @pytest.mark.parametrize("capability", ["delay", "priority", "dedup"])
    async def test_an_unsupported_wish_of_a_message_is_refused(self, rig: Rig, capability: str) -> None:
        if getattr(rig.broker.capabilities, capability):
            pytest.skip("the broker supports it")
        changes = {"delay": {"due": round(time.time() * 1000) + 3_600_000}, "priority": {"priority": 5}}
        wish = envelope(**changes.get(capability, {"key": "k"}))
        with pytest.raises(UnsupportedCapability) as refused:
            await rig.publish(envelope(), wish)
        _says_what_helps(refused.value, capability)
        await rig.nothing(await rig.consumer())

    async def test_joining_a_transaction_is_refused_without_any(self, rig: Rig) -> None:
        if rig.broker.capabilities.transactions:
            pytest.skip("the broker supports it")
        with pytest.raises(UnsupportedCapability) as refused:
            await rig.broker.publish_within(object(), [envelope()])
        _says_what_helps(refused.value, "transactions")
        await rig.nothing(await rig.consumer())

    @pytest.mark.parametrize("capability", ["pause", "inspect", "cancel", "reschedule"])
    async def test_an_unsupported_look_or_control_is_refused(self, rig: Rig, capability: str) -> None:
        if getattr(rig.broker.capabilities, capability):
            pytest.skip("the broker supports it")
        queues = rig.broker.queues
        asked: dict[str, list[Callable[[], Awaitable[Any]]]] = {
            "pause": [lambda: queues.pause("work"), queues.paused],
            "inspect": [lambda: queues.find("x"), lambda: queues.list("work")],
            "cancel": [lambda: queues.cancel("x")],
            "reschedule": [lambda: queues.reschedule("x", 0)],
        }
        for ask in asked[capability]:
            with pytest.raises(UnsupportedCapability) as refused:
                await ask()
            _says_what_helps(refused.value, capability)


def _says_what_helps(error: UnsupportedCapability, capability: str) -> None:
    assert error.capability == capability
    assert len(str(error).split()) > 5, "the text must say what would provide the capability"
