"""The exam of brokers: it lets through who declares honestly, and catches who does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Self

import pytest
from camora import Queue
from camora.builtin.memory import MemoryBroker
from camora.errors import UnsupportedCapability
from camora.interfaces import Broker
from camora.testing.conformance.broker.declaring import DeclaringSuite
from camora.testing.conformance.broker.rig import Rig

from tests.core.queues.bus_plugin import BusBroker


class TestBroker(DeclaringSuite):
    """One with a kind and options of its own."""

    @pytest.fixture
    def broker_factory(self) -> Callable[[], Broker]:
        return BusBroker


class Credulous(MemoryBroker):
    def declare(self, queues: Sequence[Queue]) -> None:
        """Takes whatever comes."""


class Curt(MemoryBroker):
    def declare(self, queues: Sequence[Queue]) -> None:
        if any(type(queue) is not Queue for queue in queues):
            raise UnsupportedCapability("no", capability="queue_kinds")


class Fickle(MemoryBroker):
    task_options = frozenset({"copies"})

    def twin(self) -> Self:
        twin = super().twin()
        twin.task_options = frozenset()
        return twin


@pytest.mark.parametrize(
    ("broker", "test"),
    [
        (Credulous, DeclaringSuite.test_an_unknown_kind_is_refused_in_words_and_changes_nothing),
        (Curt, DeclaringSuite.test_an_unknown_kind_is_refused_in_words_and_changes_nothing),
        (Fickle, DeclaringSuite.test_twins_serve_the_same_kinds_and_read_the_same_options),
    ],
    ids=["credulous", "curt", "fickle"],
)
async def test_who_does_not_keep_the_promise_is_caught(broker: type[MemoryBroker], test: Callable[..., object]) -> None:
    made = broker()
    await made.open()
    rig = Rig(made, None, lease=0.5, patience=5.0)
    try:
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            await test(DeclaringSuite(), rig)  # type: ignore[misc]
    finally:
        await rig.close()
        await made.close()
