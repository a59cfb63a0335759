"""What all who use the same namespace in the same way share: where it is, settings, names, declarations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import camora.queue
from camora.errors import ConfigurationError

from camora_servicebus.description import ServiceBusQueue
from camora_servicebus.names import Names
from camora_servicebus.scheduled import Scheduled
from camora_servicebus.settings import Address, ServiceBusSettings, address_of
from camora_servicebus.topics import ServiceBusSubscription, ServiceBusTopic, path_of

__all__ = ["Store"]


class Store:
    """For any thread: what changes in it is one entry at a time. Making one does no I/O."""

    def __init__(self, address: Address, settings: ServiceBusSettings) -> None:
        self.address = address
        self.settings = settings
        self.names = Names(settings.prefix)
        self.queues: dict[str, camora.queue.Queue] = {}
        """The queues that were declared, by name."""
        self.seen: set[str] = {"default"}
        """Names of queues that were used, declared or not."""
        self.topics: dict[str, ServiceBusTopic | str] = {}
        """The topics that were declared or used, by name: a text for one of which nothing is said."""
        self.scheduled = Scheduled()
        """Jobs that this process has sent and that are not due yet."""

    @classmethod
    def of_url(cls, url: str | None, settings: ServiceBusSettings | None = None) -> Self:
        """Of a URL, whose query adds to the settings, or of a connection string. Raises `ConfigurationError`."""
        return cls(*address_of(url, settings))

    def learn(self, queues: Sequence[camora.queue.Queue]) -> None:
        """Note that there are these queues. Raises `ConfigurationError` for names that the service cannot have."""
        for queue in queues:
            if isinstance(queue, ServiceBusSubscription):
                self.names.place(queue.name, path_of(self.topic(queue.topic), queue.subscription))
            self.names.queue(queue.name)
            self.seen.add(queue.name)
            known = self.queues.get(queue.name)
            # A plain queue hides no declaration of more.
            if known is None or type(queue) is not camora.queue.Queue:
                self.queues[queue.name] = queue

    def topic(self, topic: ServiceBusTopic | str) -> str:
        """The entity of a topic. Raises `ConfigurationError` when it was declared otherwise before."""
        name = str(topic)
        known = self.topics.get(name, name)
        if isinstance(topic, ServiceBusTopic) and isinstance(known, ServiceBusTopic) and topic != known:
            raise ConfigurationError(f"topic {name!r} is declared twice: as {known!r}, and as {topic!r}")
        self.topics[name] = known if isinstance(known, ServiceBusTopic) else topic
        return self.names.topic(name)

    def detects_duplicates(self, name: str) -> bool:
        """Whether a queue, or a topic, drops a message whose id it has seen, as far as the app has declared it."""
        found = self.queues.get(name) or self.topics.get(name)
        return isinstance(found, ServiceBusQueue | ServiceBusTopic) and found.duplicate_detection is not None

    def has_sessions(self, queue: str) -> bool | None:
        """Whether each of its messages belongs to a session; None: nothing is said of it."""
        found = self.queues.get(queue)
        return found.sessions if isinstance(found, ServiceBusQueue | ServiceBusSubscription) else None

    def with_sessions(self, topic: str) -> list[str]:
        """The queues that get what is sent to this topic, and have sessions."""
        return [
            name
            for name, queue in self.queues.items()
            if isinstance(queue, ServiceBusSubscription) and queue.topic_name == topic and queue.sessions
        ]

    @property
    def label(self) -> str:
        """Where it is, without secrets."""
        return self.address.label

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for stores of the same messages."""
        return (self.address.host.lower(), self.address.port, self.settings.prefix.lower())
