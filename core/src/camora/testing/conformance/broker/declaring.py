"""Hearing which queues there are: kinds that are served, kinds that are not, and options of plugins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import attrs
import pytest

from camora.errors import UnsupportedCapability
from camora.interfaces.broker import Broker
from camora.queue import Queue
from camora.testing.conformance.broker.base import BrokerSuite
from camora.testing.conformance.broker.rig import Rig
from camora.testing.conformance.making import envelope

__all__ = ["DeclaringSuite"]


@attrs.frozen
class StrangeQueue(Queue):
    """A kind of queue that no broker knows."""

    color: str = "red"


class DeclaringSuite(BrokerSuite):
    """Declarations are heard before it is opened and later, and what it does not serve is refused in words."""

    async def test_plain_queues_are_served_and_may_be_declared_again(self, rig: Rig) -> None:
        assert Queue in rig.broker.queue_kinds
        queues = [Queue("work", concurrency=2), Queue("other", rate_limit="5/s")]
        for declared in ([], queues[:1], queues, queues):
            rig.broker.declare(declared)
        message = envelope()
        await rig.publish(message)
        assert (await rig.one(await rig.consumer())).id == message.id

    async def test_a_broker_that_is_not_open_hears_of_queues_without_any_input_or_output(
        self, broker_factory: Callable[[], Broker]
    ) -> None:
        broker = broker_factory()
        broker.declare([Queue("work")])
        await broker.open()
        twin = broker.twin()
        twin.declare([Queue("work")])
        await twin.close()
        await broker.close()

    async def test_a_declaration_may_come_from_another_thread(self, rig: Rig) -> None:
        await asyncio.to_thread(rig.broker.declare, [Queue("work"), Queue("other")])
        message = envelope("other")
        await rig.publish(message)
        assert (await rig.one(await rig.consumer("other"))).id == message.id

    async def test_an_unknown_kind_is_refused_in_words_and_changes_nothing(self, rig: Rig) -> None:
        for broker in (rig.broker, rig.broker.twin()):
            with pytest.raises(UnsupportedCapability) as refused:
                broker.declare([Queue("work"), StrangeQueue("strange"), Queue("other")])
            text = str(refused.value)
            assert refused.value.capability == "queue_kinds"
            assert "'strange'" in text, "the text must name the queue"
            assert "StrangeQueue" in text, "the text must name its kind"
            assert repr(broker) in text, "the text must name the broker"
        rig.broker.declare([Queue("work")])
        message = envelope()
        await rig.publish(message)
        assert (await rig.one(await rig.consumer())).id == message.id

    async def test_twins_serve_the_same_kinds_and_read_the_same_options(self, rig: Rig) -> None:
        twin = rig.broker.twin()
        assert set(twin.queue_kinds) == set(rig.broker.queue_kinds)
        assert twin.task_options == rig.broker.task_options
        assert all(issubclass(kind, Queue) for kind in twin.queue_kinds)
        assert all(name.isidentifier() for name in twin.task_options)
