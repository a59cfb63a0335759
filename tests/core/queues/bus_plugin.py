"""A plugin with a broker, a kind of queue and two options of its own, which are what these tests are about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import attrs
from camora import MadeFrom, Provider, Queue, hookimpl
from camora.builtin.memory import MemoryBroker, MemoryStore
from camora.builtin.memory.consumer import MemoryConsumer
from camora.interfaces import Broker, Consumer, ConsumerSettings, TaskOption
from camora.message import Envelope
from camora.outcome import Settlement
from camora.settings import Duration


@attrs.frozen
class BusQueue(Queue):
    """A queue that every worker hears."""

    loud: bool = False
    """Whether it is announced."""
    memory: Duration = 0.0
    """How long late listeners still hear what was said."""


class BusConsumer(MemoryConsumer):
    """Notes the messages that take another's place."""

    def __init__(self, store: MemoryStore, settings: ConsumerSettings, retried: list[Envelope]) -> None:
        super().__init__(store, settings)
        self._retried = retried

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        self._retried.extend(one.envelope for one in settlements if one.envelope is not None)
        return await super().settle(settlements)


class BusBroker(MemoryBroker):
    """Notes what it is told, what is published, and what is tried again."""

    queue_kinds = (Queue, BusQueue)
    task_options = frozenset({"copies", "stop"})

    def __init__(self, store: MemoryStore | None = None, *, name: str = "") -> None:
        super().__init__(store, name=name)
        self.told: list[tuple[Queue, ...]] = []
        self.published: list[Envelope] = []
        self.retried: list[Envelope] = []
        self.twins: list[BusBroker] = []

    def declare(self, queues: Sequence[Queue]) -> None:
        super().declare(queues)
        self.told.append(tuple(queues))

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        self.published.extend(envelopes)
        return await super().publish(envelopes)

    async def consumer(self, settings: ConsumerSettings) -> Consumer:
        return BusConsumer(self.store, settings, self.retried)

    def twin(self) -> Self:
        twin = super().twin()
        self.twins.append(twin)
        return twin


def at_least_one(value: int) -> int:
    if value < 1:
        raise ValueError(f"expected 1 or more, found {value}")
    return value


def _broker(made: MadeFrom) -> Broker:
    return BusBroker()


def _queue(made: MadeFrom) -> Queue:
    queue: BusQueue = made.settings
    return queue


@hookimpl
def camora_brokers() -> Sequence[Provider[Broker]]:
    return [Provider("bus", _broker, schemes=("bus",), help="in this process")]


@hookimpl
def camora_queue_kinds() -> Sequence[Provider[Queue]]:
    return [Provider("bus", _queue, settings=BusQueue, help="every worker hears it")]


@hookimpl
def camora_task_options() -> Sequence[TaskOption]:
    return [
        TaskOption("copies", int, check=at_least_one, dispatch=True, help="how many stores must have it"),
        TaskOption("stop", str, help="where it goes"),
    ]
