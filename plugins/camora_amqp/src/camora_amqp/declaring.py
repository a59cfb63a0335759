"""What exists on the server: queues, exchanges, bindings, the ladder, made when they are first needed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

import aiormq.exceptions
from camora.errors import BrokerUnavailable, ConfigurationError

from camora_amqp import ladder, plugin_delay
from camora_amqp.control import Control
from camora_amqp.exchanges import name_of
from camora_amqp.store import Store
from camora_amqp.topology import Queue

__all__ = ["Declarer", "queue_arguments", "server_version"]


def queue_arguments(queue: Queue, store: Store) -> dict[str, Any]:
    """What a queue is declared with."""
    settings, names = store.settings, store.names
    kind = queue.kind(settings)
    made: dict[str, Any] = {
        "x-queue-type": kind,
        "x-dead-letter-exchange": names.dead,
        "x-dead-letter-routing-key": names.queue(queue.name),
    }
    if kind == "quorum":
        made["x-delivery-limit"] = queue.delivery_limit or settings.delivery_limit
        # What is dead-lettered is never between two queues, whichever node dies.
        made |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
    most = store.topology.max_priority(queue)
    if most is not None:
        made["x-max-priority"] = most + 1
    if queue.message_ttl is not None:
        made["x-message-ttl"] = round(queue.message_ttl * 1000)
    if queue.idle_ttl is not None:
        made["x-expires"] = round(queue.idle_ttl * 1000)
    if queue.max_length is not None:
        made |= {"x-max-length": queue.max_length, "x-overflow": "reject-publish"}
    return made | dict(queue.arguments)


class Declarer:
    """Remembers what was made, so that each thing is made once for a connection. Belongs to one event loop.

    All methods raise `BrokerUnavailable`, and `ConfigurationError` where something exists that is different.
    """

    def __init__(self, store: Store, control: Control) -> None:
        self._store = store
        self._control = control
        self._made: set[tuple[str, str]] = set()
        self._version = -1
        self._turn = asyncio.Lock()
        self.ladder_kind: str = store.settings.queue_type
        """Of which kind the ladder's queues are that were made here."""

    def forget(self) -> None:
        """Nothing is known any more: something that was made is gone."""
        self._made.clear()

    def known(self, what: str, name: str) -> bool:
        """Whether this was made: the hot path's look before it asks for more."""
        if self._version != self._store.topology.version:
            self._version = self._store.topology.version
            self._made.clear()
        return (what, name) in self._made

    @contextlib.asynccontextmanager
    async def _making(self, what: str, names: Iterable[str]) -> AsyncIterator[tuple[Any, Sequence[str]]]:
        """A channel, and which of these are still to be made once it is this one's turn.

        Many find at once that something is missing: the first one makes it, for all.
        """
        names = list(names)
        if all(self.known(what, name) for name in names):
            yield None, ()
            return
        async with self._turn:
            missing = [name for name in names if not self.known(what, name)]
            if not missing:
                yield None, ()
                return
            async with self._control.channel() as channel:
                yield channel, missing

    async def queues(self, names: Iterable[str]) -> None:
        """Queues, where dead letters go, exchanges that they are bound to, and the bindings."""
        async with self._making("queue", names) as (channel, missing):
            if missing:
                await self._dead_letters(channel)
            for name in missing:
                await self._queue(channel, name)
                self._made.add(("queue", name))

    async def _dead_letters(self, channel: Any) -> None:
        name = self._store.names.dead
        if self.known("dead", name):
            return
        version = server_version(channel)
        arguments: dict[str, Any] = {"x-queue-type": self._store.settings.queue_type}
        if self._store.settings.queue_type == "quorum" and version >= (4,):
            arguments["x-delivery-limit"] = -1  # looking at letters counts as taking them
        await channel.exchange_declare(exchange=name, exchange_type="topic", durable=True)
        await channel.queue_declare(queue=name, durable=True, arguments=arguments)
        await channel.queue_bind(queue=name, exchange=name, routing_key="#")
        self._made.add(("dead", name))

    async def _queue(self, channel: Any, name: str) -> None:
        store = self._store
        queue = store.topology.queue(name)
        full = store.names.queue(name)
        if queue.declare:
            await channel.queue_declare(queue=full, durable=queue.durable, arguments=queue_arguments(queue, store))
        else:
            await self._look("queue", full, "declare it, or leave declare=False out of its declaration here")
        await self._exit(channel, full)
        for binding in queue.bindings:
            exchange = name_of(binding.exchange)
            await self._exchange(channel, exchange)
            await channel.queue_bind(
                queue=full,
                exchange=store.names.exchange(exchange),
                routing_key=binding.routing_key,
                arguments=dict(binding.headers),
            )

    async def exchanges(self, names: Iterable[str]) -> None:
        """Exchanges, and what the app has declared to be bound to them: so that nothing sent there is lost."""
        missing = [name for name in names if not self.known("exchange", name)]
        if not missing:
            return
        bound = [
            queue.name
            for queue in self._store.topology.queues.values()
            if any(name_of(binding.exchange) in missing for binding in queue.bindings)
        ]
        await self.queues(bound)
        async with self._making("exchange", missing) as (channel, still):
            for name in still:
                await self._exchange(channel, name)

    async def _exchange(self, channel: Any, name: str) -> None:
        if self.known("exchange", name):
            return
        exchange = self._store.topology.exchanges.get(name)
        full = self._store.names.exchange(name)
        if exchange is not None:
            await channel.exchange_declare(
                exchange=full,
                exchange_type=exchange.type.value,
                durable=exchange.durable,
                auto_delete=exchange.auto_delete,
                arguments=dict(exchange.arguments),
            )
        elif not name.startswith("amq."):
            await self._look("exchange", full, f"declare it, Exchange({name!r}, …), where its name stands now")
        self._made.add(("exchange", name))

    async def _look(self, kind: str, name: str, otherwise: str) -> None:
        """Whether it exists, as it may be. On a channel of its own: asking for what does not exist closes it."""
        try:
            async with self._control.channel() as channel:
                if kind == "queue":
                    await channel.queue_declare(queue=name, passive=True)
                else:
                    await channel.exchange_declare(exchange=name, passive=True)
        except BrokerUnavailable as error:
            if isinstance(error.__cause__, aiormq.exceptions.ChannelNotFoundEntity):
                raise ConfigurationError(
                    f"{self._store.label}: there is no {kind} {name!r} on the server: {otherwise}"
                ) from error
            raise

    # What is not due yet

    async def _exit(self, channel: Any, queue: str) -> None:
        """What comes due for this queue, by its name on the server, goes there: also what was sent before it existed.

        What waits for a queue that is gone when it comes due goes to the dead letters.
        """
        names, settings = self._store.names, self._store.settings
        if settings.delay == "plugin":
            exchange, kind = plugin_delay.of_queues(settings.prefix)
            await self._delayed(channel, exchange, kind)
            await channel.queue_bind(queue=queue, exchange=exchange, routing_key=queue)
            return
        await self._due(channel)
        key = ladder.binding_of(names.word(queue))
        await channel.queue_bind(queue=queue, exchange=ladder.DUE, routing_key=key)
        await channel.exchange_bind(destination=names.dead, source=ladder.STRAY, routing_key=key)

    async def _due(self, channel: Any) -> None:
        if self.known("exchange of the ladder", ladder.DUE):
            return
        await channel.exchange_declare(exchange=ladder.STRAY, exchange_type="topic", durable=True)
        await channel.exchange_declare(
            exchange=ladder.DUE, exchange_type="topic", durable=True, arguments={"alternate-exchange": ladder.STRAY}
        )
        self._made.add(("exchange of the ladder", ladder.DUE))

    async def _delayed(self, channel: Any, exchange: str, kind: str) -> None:
        """An exchange of the server's plugin. Raises `ConfigurationError` where there is no such plugin."""
        if self.known("delayed", exchange):
            return
        try:
            await channel.exchange_declare(
                exchange=exchange, exchange_type=plugin_delay.TYPE, durable=True, arguments={"x-delayed-type": kind}
            )
        except (aiormq.exceptions.ConnectionCommandInvalid, aiormq.exceptions.ChannelPreconditionFailed) as error:
            if "exchange type" not in str(error):
                raise
            raise ConfigurationError(
                f"{self._store.label}: delay = 'plugin': the server has no plugin for delayed messages. Leave the "
                "setting out, for queues do it as well; or have the operator install and enable "
                "rabbitmq_delayed_message_exchange"
            ) from error
        self._made.add(("delayed", exchange))

    async def delayed_exchange(self, exchange: str) -> None:
        """What the plugin keeps for this exchange, by its name on the server, comes there."""
        before, kind = plugin_delay.of_exchange(self._store.settings.prefix, exchange)
        async with self._making("delayed", [before]) as (channel, missing):
            if missing:
                await self._delayed(channel, before, kind)
                await channel.exchange_bind(destination=exchange, source=before, routing_key="")

    async def ladder(self, top: int) -> None:
        """The levels of the ladder up to this one: a queue costs the server about as much as a thousand messages."""
        async with self._making("level", map(str, range(top + 1))) as (channel, missing):
            if not missing:
                return
            kind = self.ladder_kind = self._kind_of_levels(channel)
            await self._due(channel)
            for number, level in zip(range(top + 1), ladder.levels(kind), strict=False):
                if str(number) not in missing:
                    continue
                await channel.exchange_declare(exchange=level.name, exchange_type="topic", durable=True)
                await channel.queue_declare(queue=level.name, durable=True, arguments=dict(level.arguments(kind)))
                await channel.queue_bind(queue=level.name, exchange=level.name, routing_key=level.into)
                await channel.exchange_bind(destination=level.following, source=level.name, routing_key=level.past)
                self._made.add(("level", str(number)))

    def _kind_of_levels(self, channel: Any) -> str:
        """Quorum queues, if the server can, also for classic ones: what expires there is not between two queues."""
        return "quorum" if server_version(channel) >= (3, 10) else self._store.settings.queue_type

    async def turnout(self, destination: str, exchange: str, routing_key: str) -> None:
        """What comes out of the ladder for this destination goes to an exchange, with this routing key.

        Through a queue in which nothing stays: what comes in expires at once, and is dead-lettered to the exchange.
        A quorum queue, if the server can: what reaches no queue there waits until it does.
        """
        name = f"{self._store.settings.prefix}camora.due.{destination.removeprefix('%')}"
        async with self._making("exit", [destination]) as (channel, missing):
            if not missing:
                return
            kind = self._kind_of_levels(channel)
            arguments: Mapping[str, Any] = ladder.Level(
                name=name, following=self._store.names.exchange(exchange), ttl=0, into="", past=""
            ).arguments(kind)
            await self._due(channel)
            await channel.queue_declare(
                queue=name, durable=True, arguments={**arguments, "x-dead-letter-routing-key": routing_key}
            )
            await channel.queue_bind(queue=name, exchange=ladder.DUE, routing_key=ladder.binding_of(destination))
            self._made.add(("exit", destination))


def server_version(channel: Any) -> tuple[int, ...]:
    """The first two numbers of the version of the server that this channel goes to."""
    told = channel.connection.server_properties.get("version", "")
    text = told.decode() if isinstance(told, bytes) else str(told)
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())
