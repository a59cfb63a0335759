"""The broker in Azure Service Bus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import camora.queue
from camora.errors import BrokerUnavailable
from camora.interfaces.broker import Broker, BrokerState, Consumer, ConsumerSettings
from camora.interfaces.capabilities import Capabilities, Support
from camora.interfaces.dead_letters import DeadLetters
from camora.interfaces.queues import Queues
from camora.message import Envelope

from camora_servicebus.description import ServiceBusQueue
from camora_servicebus.settings import ServiceBusSettings
from camora_servicebus.store import Store

__all__ = ["ServiceBusBroker"]


class ServiceBusBroker(Broker):
    """Messages in queues of Azure Service Bus that any number of processes share.

    `url` is `servicebus://NAME.servicebus.windows.net`, with options of `ServiceBusSettings` in its query; or None,
    where the settings have a connection string. Raises `ConfigurationError` for what cannot be.
    """

    queue_kinds = (camora.queue.Queue, ServiceBusQueue)

    def __init__(self, url: str | None = None, settings: ServiceBusSettings | None = None) -> None:
        self._start(Store.of_url(url, settings))

    @classmethod
    def from_url(cls, url: str | None, settings: ServiceBusSettings | None = None) -> Self:
        """A broker at a URL."""
        return cls(url, settings)

    @classmethod
    def on(cls, store: Store) -> Self:
        """A broker on a store that others use, too."""
        made = cls.__new__(cls)
        made._start(store)  # noqa: SLF001 -- its own class
        return made

    def _start(self, store: Store) -> None:
        self._store = store
        self._state = BrokerState.NEW
        self.capabilities = Capabilities(
            delay=Support.NATIVE, leases=Support.NATIVE, shared=Support.NATIVE, durable=Support.NATIVE
        )

    def __repr__(self) -> str:
        return f"ServiceBusBroker({self._store.label!r}, {self._state.value})"

    @property
    def database(self) -> Store:
        """What its twins share with it."""
        return self._store

    def declare(self, queues: Sequence[camora.queue.Queue]) -> None:
        """Note which queues there are, and of which kind."""
        super().declare(queues)
        self._store.learn(queues)

    async def open(self) -> None:
        """Connect. Raises `BrokerUnavailable` or `ConfigurationError`."""
        raise BrokerUnavailable(f"{self!r}: nothing is there yet")

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """Store a batch."""
        raise BrokerUnavailable(f"{self!r}: nothing is there yet")

    async def consumer(self, settings: ConsumerSettings) -> Consumer:
        """A consumer with connections of its own, in a thread of its own."""
        raise BrokerUnavailable(f"{self!r}: nothing is there yet")

    def twin(self) -> Self:
        """Another broker in the same namespace, with connections of its own."""
        return self.on(self._store)

    @property
    def queues(self) -> Queues:
        """Lengths of queues, and emptying them."""
        raise NotImplementedError

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters."""
        raise NotImplementedError

    async def close(self) -> None:
        """Close all connections."""
        self._state = BrokerState.CLOSED
