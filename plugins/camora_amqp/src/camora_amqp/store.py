"""What all who use the same virtual host in the same way share: where it is, settings, declarations."""

from __future__ import annotations

import os
import ssl
import threading
import weakref
from collections.abc import MutableMapping, Sequence
from typing import TYPE_CHECKING, Self

from camora_amqp.settings import Address, AmqpSettings, split_url
from camora_amqp.topology import Names, Topology

if TYPE_CHECKING:
    from camora_amqp.lent import Lent
    from camora_amqp.reply_queue import ReplyQueue

__all__ = ["Store"]


class Store:
    """For any thread: what changes in it is one attribute at a time, or stands behind a lock."""

    def __init__(self, address: Address, settings: AmqpSettings) -> None:
        self.address = address
        self.settings = settings
        self.topology = Topology(settings)
        self.context: ssl.SSLContext | None = address.context()
        self.running: MutableMapping[str, Lent] = weakref.WeakValueDictionary()
        """Deliveries in the hands of workers of this process whose results somebody waits for, by job."""
        self._replies: ReplyQueue | None = None
        self.external = False
        """Whether the certificate says who we are; known once a connection was made."""
        self._first = 0
        self._lock = threading.Lock()

    @classmethod
    def of_url(cls, url: str, settings: AmqpSettings | None = None) -> Self:
        """Of a URL, whose query adds to the settings. Raises `ConfigurationError`."""
        return cls(*split_url(url, settings))

    @property
    def names(self) -> Names:
        """What things are called on the server."""
        return self.topology.names

    @property
    def label(self) -> str:
        """Where it is, without secrets."""
        return self.address.label

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for stores of the same messages."""
        return (self.address.hosts, self.address.vhost, self.settings.prefix)

    def replies(self) -> ReplyQueue:
        """Where results come in: one for each process, so that a forked child does not take its parent's."""
        from camora_amqp.reply_queue import ReplyQueue

        with self._lock:
            if self._replies is None or self._replies.pid != os.getpid():
                self._replies = ReplyQueue(self)
            return self._replies

    def hosts(self) -> Sequence[tuple[str, int]]:
        """All nodes, the one first that answered last."""
        hosts, first = self.address.hosts, self._first
        return (*hosts[first:], *hosts[:first])

    def passed_by(self, host: tuple[str, int]) -> None:
        """This node did not answer: begin with the next one."""
        with self._lock:
            if self.address.hosts[self._first] == host:
                self._first = (self._first + 1) % len(self.address.hosts)
