"""Options of tasks that plugins own, on signatures of workflows: they reach the broker with each job."""

# mypy: disable-error-code="untyped-decorator, call-overload"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from camora import Camora
from camora.errors import UnsupportedCapability
from camora.interfaces import Consumer, ConsumerSettings
from camora.message import Envelope
from camora.outcome import Settlement
from camora_workflows import group

from tests.core.queues import bus_plugin
from tests.core.queues.bus_plugin import BusBroker, BusConsumer
from tests.core.queues.conftest import catalog_with


class Noting(BusConsumer):
    """Notes what follows jobs, too."""

    def __init__(self, broker: NotingBroker, settings: ConsumerSettings) -> None:
        super().__init__(broker.store, settings, broker.retried)
        self._followed = broker.published

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        self._followed.extend(envelope for one in settlements for envelope in one.successors)
        return await super().settle(settlements)


class NotingBroker(BusBroker):
    async def consumer(self, settings: ConsumerSettings) -> Consumer:
        return Noting(self, settings)


def asked(envelopes: Sequence[Envelope]) -> list[Any]:
    return [None if envelope.options is None else dict(envelope.options) for envelope in envelopes]


async def test_options_of_plugins_reach_the_broker_with_each_job() -> None:
    app: Any = Camora(NotingBroker(), catalog=catalog_with(bus_plugin))

    @app.task(stop="north")
    async def stopped(x: int) -> int:
        return x

    @app.task
    async def simple(x: int) -> int:
        return x

    async with app, app.worker():
        job = await (
            simple.s(1) >> stopped.options(copies=2).s() >> stopped.s() >> simple.options(copies=3).s()
        ).dispatch()
        assert await job.result(60) == 1
        assert asked(app.broker.published) == [None, {"stop": "north", "copies": 2}, {"stop": "north"}, {"copies": 3}]
        app.broker.published.clear()
        job = await group(stopped.options(copies=4).s(1), simple.s(2)).dispatch()
        assert await job.result(60) == [1, 2]
        assert asked(app.broker.published) == [{"stop": "north", "copies": 4}, None]


async def test_a_broker_that_does_not_read_them_refuses_before_anything_is_recorded() -> None:
    app: Any = Camora("memory://", catalog=catalog_with(bus_plugin))

    @app.task
    async def simple(x: int) -> int:
        return x

    async with app:
        with pytest.raises(UnsupportedCapability, match="does not know the option 'copies'"):
            await (simple.s(1) >> simple.options(copies=2).s()).dispatch()
        stores = await app.composer._host().stores()
        assert not await (await stores.workflows()).list()
