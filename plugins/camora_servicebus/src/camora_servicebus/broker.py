"""The broker in Azure Service Bus."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Self

import camora.queue
from camora.errors import BrokerUnavailable, UnsupportedCapability
from camora.interfaces.broker import Broker, BrokerState, Consumer, ConsumerSettings
from camora.interfaces.capabilities import Capabilities, Support
from camora.interfaces.dead_letters import DeadLetters
from camora.interfaces.queues import Queues
from camora.message import Envelope

from camora_servicebus.admin import Admin
from camora_servicebus.applying import create_missing
from camora_servicebus.claims import ClaimingConsumer, Claims
from camora_servicebus.client import Connector
from camora_servicebus.consumer import ServiceBusConsumer
from camora_servicebus.counting import Counting
from camora_servicebus.dead_letters import ServiceBusDeadLetters
from camora_servicebus.deferred import Deferred
from camora_servicebus.description import ServiceBusQueue
from camora_servicebus.handles import Handles
from camora_servicebus.line import too_large
from camora_servicebus.publishing import Publisher
from camora_servicebus.queues import ServiceBusQueues
from camora_servicebus.routes import outgoing_of
from camora_servicebus.settings import ServiceBusSettings
from camora_servicebus.store import Store
from camora_servicebus.task_options import OPTIONS
from camora_servicebus.topics import ServiceBusSubscription
from camora_servicebus.wanting import wanted_of_store

__all__ = ["ServiceBusBroker"]

_PROPERTIES = 8 * 1024
"""Bytes that are kept free for what a message has beside its body."""


class ServiceBusBroker(Broker):
    """Messages in queues of Azure Service Bus that any number of processes share.

    `url` is `servicebus://NAME.servicebus.windows.net`, with options of `ServiceBusSettings` in its query; or None,
    where the settings have a connection string. Raises `ConfigurationError` for what cannot be.
    """

    queue_kinds = (camora.queue.Queue, ServiceBusQueue, ServiceBusSubscription)
    task_options = OPTIONS

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
        self._who = f"ServiceBusBroker({store.label})"
        self._home: asyncio.AbstractEventLoop | None = None
        self._connector = Connector(store)
        self._publisher = Publisher(self._connector, self._who)
        self._claims = _claims_of(store)
        self._handles = Handles(store, self._who)
        self._counting = Counting(store)
        self._queues = ServiceBusQueues(store, self._handles, self._counting, self._who)
        self._dead_letters = ServiceBusDeadLetters(store, self._handles, self._publisher)
        self._deferred = Deferred(store, self._handles, self._publisher)
        self.capabilities = Capabilities(
            delay=Support.NATIVE,
            leases=Support.NATIVE,
            shared=Support.NATIVE,
            durable=Support.NATIVE,
            cancel_scheduled=Support.NATIVE,
            fanout=Support.NATIVE,
            largest=None if self._claims else store.settings.max_message_size - _PROPERTIES,
        )

    def __repr__(self) -> str:
        return f"ServiceBusBroker({self._store.label!r}, {self._state.value})"

    @property
    def database(self) -> Store:
        """What its twins share with it."""
        return self._store

    # What there is

    def declare(self, queues: Sequence[camora.queue.Queue]) -> None:
        """Note which queues there are, and of which kind."""
        super().declare(queues)
        self._store.learn(queues)

    # Life

    async def open(self) -> None:
        """Connect, and let the service judge the credentials; with `create`, make the queues that are missing.

        Raises `BrokerUnavailable`, or `ConfigurationError` for credentials that are not accepted.
        """
        if self._state is BrokerState.CLOSED:
            raise BrokerUnavailable(f"{self!r} cannot be opened again; use its twin()")
        self._home = asyncio.get_running_loop()
        if self._store.settings.create:
            async with Admin(self._store) as admin:
                await create_missing(admin, wanted_of_store(self._store, self._store.seen))
        # Some queue's: a key may be for one alone.
        entity = self._store.address.entity or self._store.names.queue(next(iter(self._store.queues), "default"))
        await self._publisher.open(entity)
        if self._claims:
            await self._claims.open()
        self._state = BrokerState.OPEN

    def _check_open(self) -> None:
        if self._state is not BrokerState.OPEN:
            raise BrokerUnavailable(f"{self!r} is not open; call open() first, or use twin() for one that is")

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """Store a batch; the service answers for each message of it."""
        self._check_open()
        if not envelopes:
            return []
        for envelope in envelopes:
            if envelope.priority:
                raise UnsupportedCapability(
                    f"{envelope.task}: Azure Service Bus has no priorities. Leave the priority out, give urgent jobs a "
                    "queue of their own, or use a broker that has them",
                    capability="priority",
                )
            if envelope.key:
                raise UnsupportedCapability(
                    f"{envelope.task}: Azure Service Bus does not know which keys are taken. Leave the key out, or use "
                    "a broker in Redis or a database (camora-redis, camora-sql)",
                    capability="dedup",
                )
        if self._claims:
            envelopes = await self._claims.check_in(envelopes)
        messages = [outgoing_of(envelope, self._store) for envelope in envelopes]
        largest = self._store.settings.max_message_size - _PROPERTIES
        for message in messages:
            if len(message.body) > largest:
                raise too_large(message, len(message.body), largest)
        self._store.seen.update(envelope.queue for envelope in envelopes)
        numbers = await self._publisher.publish(messages)
        for message, number in zip(messages, numbers, strict=True):
            if number is not None:
                self._store.scheduled.remember(message.job_id, message.target, number, message.due)
        return [envelope.id for envelope in envelopes]

    async def consumer(self, settings: ConsumerSettings) -> Consumer:
        """A consumer with connections of its own, in a thread of its own."""
        self._check_open()
        self._store.seen.update(settings.queues)
        made = ServiceBusConsumer(self._store, self._publisher, settings, self._who)
        return ClaimingConsumer(made, self._claims, self._who)

    def twin(self) -> Self:
        """Another broker in the same namespace, with connections of its own."""
        return self.on(self._store)

    @property
    def queues(self) -> Queues:
        """Lengths of queues, emptying them, and calling off what is not due yet."""
        return self._queues

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters."""
        return self._dead_letters

    @property
    def deferred(self) -> Deferred:
        """Jobs that have set themselves aside by `Defer`."""
        return self._deferred

    def abandon(self) -> None:
        """Let go of the sockets of a loop that is gone."""
        self._publisher.abandon()
        self._handles.abandon()
        if self._claims:
            self._claims.abandon()

    async def close(self) -> None:
        """Close all connections."""
        self._state = BrokerState.CLOSED
        await self._handles.close()
        await self._counting.close()
        await self._publisher.close()
        await self._connector.close()
        if self._claims:
            await self._claims.close()


def _claims_of(store: Store) -> Claims | None:
    settings = store.settings
    if settings.claim_check is None:
        return None
    return Claims(settings.claim_check, limit=settings.max_message_size - _PROPERTIES, ttl=settings.claim_ttl)
