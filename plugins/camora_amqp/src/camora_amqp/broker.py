"""The RabbitMQ broker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import attrs
import camora.queue
from camora.errors import BrokerUnavailable, DispatchError, DispatchUncertain, UnsupportedCapability
from camora.interfaces.broker import Broker, BrokerState, Consumer, ConsumerSettings
from camora.interfaces.capabilities import Capabilities, Support
from camora.interfaces.dead_letters import DeadLetters
from camora.interfaces.queues import Queues
from camora.interfaces.results import ResultBackend
from camora.interfaces.schedule import ScheduleStore
from camora.message import Envelope

from camora_amqp import ladder, plugin_delay
from camora_amqp.consumer import AmqpConsumer
from camora_amqp.control import Control
from camora_amqp.dead_letters import AmqpDeadLetters
from camora_amqp.exchanges import Exchange
from camora_amqp.publishing import Publisher, Unroutable
from camora_amqp.queues import AmqpQueues
from camora_amqp.settings import AmqpSettings
from camora_amqp.store import Store
from camora_amqp.topology import Queue

if TYPE_CHECKING:
    from camora_amqp.results import AmqpResultBackend

__all__ = ["AmqpBroker"]

_LARGEST = 128 * 1024 * 1024
"""Bytes: what a server of before version 4 takes; later ones take 16 MiB unless their operator says more."""


class AmqpBroker(Broker):
    """Messages in queues of RabbitMQ that any number of processes share.

    `url` may name several nodes of a cluster, `amqp://user:password@one:5672,two:5672/vhost`, and options of
    `AmqpSettings` in its query. Raises `ConfigurationError` for what cannot be.
    """

    queue_kinds = (camora.queue.Queue, Queue)
    task_options = frozenset({"exchange", "routing_key", "message_headers", "route"})

    def __init__(self, url: str = "amqp://localhost", settings: AmqpSettings | None = None) -> None:
        self._start(Store.of_url(url, settings))

    @classmethod
    def from_url(cls, url: str, settings: AmqpSettings | None = None) -> Self:
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
        who = f"AmqpBroker({store.label})"
        self._who = who
        self._control = Control(store, who)
        self._publisher = Publisher(store, self._control, who)
        self._queues = AmqpQueues(store, self._control, who)
        self._dead_letters = AmqpDeadLetters(store, self._control, self._publisher)
        self._results: AmqpResultBackend | None = None
        self._able = Capabilities(
            delay=Support.NATIVE if store.settings.delay == "plugin" else Support.EMULATED,
            fanout=Support.NATIVE,
            leases=Support.NATIVE,
            shared=Support.NATIVE,
            durable=Support.NATIVE,
            largest=_LARGEST,
            longest_delay=(plugin_delay if store.settings.delay == "plugin" else ladder).LONGEST / 1000,
        )

    def __repr__(self) -> str:
        return f"AmqpBroker({self._store.label!r}, {self._state.value})"

    @property
    def capabilities(self) -> Capabilities:  # type: ignore[override]
        """There are priorities when any queue has them; a job for another queue is refused when it is published."""
        if self._store.topology.priorities:
            return attrs.evolve(self._able, priority=Support.NATIVE)
        return self._able

    @property
    def database(self) -> Store:
        """What its twins share with it."""
        return self._store

    # What there is

    def declare(self, queues: Sequence[camora.queue.Queue]) -> None:
        """Note which queues there are, and of which kind."""
        super().declare(queues)
        for queue in queues:
            self._store.names.queue(queue.name)
        self._store.topology.learn(queues)

    def bind(
        self,
        queue: Queue | str,
        exchange: Exchange | str,
        routing_key: str = "",
        *,
        headers: Mapping[str, Any] | None = None,
    ) -> None:
        """Have an exchange give messages with this routing key (or with these headers) to a queue.

        Both, and the binding, are made on the server when they are first used. Raises `ConfigurationError` for an
        exchange that was declared otherwise before.
        """
        self._store.topology.bind(queue, exchange, routing_key, headers or {})

    # Life

    async def open(self) -> None:
        """Connect. Raises `BrokerUnavailable`, or `ConfigurationError` when what is declared exists differently."""
        if self._state is BrokerState.CLOSED:
            raise BrokerUnavailable(f"{self!r} cannot be opened again; use its twin()")
        await self._publisher.open()
        declarer = self._publisher.declarer
        await declarer.queues(["default"] if not self._store.topology.queues else self._store.topology.queues)
        self._state = BrokerState.OPEN

    def _check_open(self) -> None:
        if self._state is not BrokerState.OPEN:
            raise BrokerUnavailable(f"{self!r} is not open; call open() first, or use twin() for one that is")

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """Store a batch; the server confirms each message when it is as safe as its queue makes it."""
        self._check_open()
        if not envelopes:
            return []
        for envelope in envelopes:
            if envelope.key:
                raise UnsupportedCapability(
                    f"{envelope.task}: RabbitMQ does not know which keys are taken. Leave the key out, or use a broker "
                    "in Redis or a database (camora-redis, camora-sql)",
                    capability="dedup",
                )
        reply_to = "" if self._results is None else await self._results.listening()
        messages = await self._publisher.jobs(envelopes, reply_to=reply_to)
        try:
            await self._publisher.publish(messages)
        except Unroutable as error:
            raise self._unroutable(envelopes, messages, error) from error
        return [envelope.id for envelope in envelopes]

    def _unroutable(self, envelopes: Sequence[Envelope], messages: Sequence[Any], error: Unroutable) -> Exception:
        place = next(place for place, reason in enumerate(error.reasons) if reason is not None)
        envelope, message = envelopes[place], messages[place]
        if error.reasons[place] == "NO_ROUTE":
            what = (
                f"no queue is bound to exchange {message.exchange!r} with routing key {message.routing_key!r}: "
                "broker.bind(queue, exchange, routing_key), or start the worker that does"
            )
        else:
            what = f"{error.reasons[place]}"
        text = f"{self._who}: {envelope.task}: {what}"
        stored = sum(reason is None for reason in error.reasons)
        if not stored and error.reasons[place] == "NO_ROUTE" and envelope.options and not envelope.due:
            return DispatchError(f"{text}. Nothing was enqueued")
        if not stored:
            # Room may come, and what Camora itself has declared is made again with the next try.
            return BrokerUnavailable(f"{text}. Nothing was enqueued")
        return DispatchUncertain(
            f"{text}. {stored} of the {len(envelopes)} messages of this batch were enqueued",
            job_id=envelope.id,
            final=True,
        )

    async def consumer(self, settings: ConsumerSettings) -> Consumer:
        """A consumer with a connection of its own, in a thread of its own."""
        self._check_open()
        self._store.topology.seen.update(settings.queues)
        await self._publisher.declarer.queues(settings.queues)
        return AmqpConsumer(self._store, self._publisher, settings, self._who)

    def twin(self) -> Self:
        """Another broker on the same server, with connections of its own."""
        return self.on(self._store)

    def own_results(self) -> ResultBackend:
        """Results by way of a reply queue, to whoever dispatched the job."""
        from camora_amqp.results import AmqpResultBackend

        return AmqpResultBackend.on(self._store)

    def own_schedules(self) -> ScheduleStore:
        """Schedules in a message of their own."""
        from camora_amqp.schedules import AmqpScheduleStore

        return AmqpScheduleStore(self._store)

    def settles_into(self, results: ResultBackend) -> bool:
        """True for results in a reply queue: jobs that are dispatched from now on are answered there."""
        from camora_amqp.results import AmqpResultBackend

        if not isinstance(results, AmqpResultBackend) or results.database.identity != self._store.identity:
            return False
        self._results = results
        results.attach(self._store.running, self._publisher.tell)
        return True

    @property
    def queues(self) -> Queues:
        """Lengths of queues, and emptying them."""
        return self._queues

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters."""
        return self._dead_letters

    def abandon(self) -> None:
        """Let go of the sockets of a loop that is gone."""
        self._publisher.abandon()
        self._control.abandon()

    async def close(self) -> None:
        """Close all connections."""
        self._state = BrokerState.CLOSED
        await self._publisher.close()
        await self._control.close()
