"""Exchanges, queues and bindings as an app declares them, and the names they have on the server."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote, unquote

import attrs
import camora.queue
from camora.errors import ConfigurationError, UnsupportedCapability
from camora.settings import Duration
from camora.validators import check_name, seconds_or_none, whole

from camora_amqp.exchanges import Binding, Exchange, name_of
from camora_amqp.settings import AmqpSettings

__all__ = ["Names", "Queue", "Topology"]

_LONGEST = 255
_ODD = re.compile(r"[^A-Za-z0-9\-_.:@,/+]+")
_REMEMBERED = 10_000
_LONGEST_WORD = 190
"""Bytes: the ladder's own part of a routing key has 64."""
_LONGEST_TTL = 2**32 / 1000 - 1
"""Seconds: the server counts milliseconds in 32 bits."""


def _bindings(given: Iterable[Any]) -> tuple[Binding, ...]:
    found = tuple(given)
    if wrong := [one for one in found if not isinstance(one, Binding)]:
        raise ConfigurationError(f"bindings: expected objects of class Binding, found {wrong[0]!r}")
    return found


def _ttl(_: Any, attribute: Any, value: Any) -> None:
    if value is not None and not (isinstance(value, float) and 0.001 <= value <= _LONGEST_TTL):
        raise ConfigurationError(
            f"{attribute.name}={value!r}: seconds, or a text such as '10s', up to {_LONGEST_TTL // 86400:.0f} days"
        )


@attrs.frozen
class Queue(camora.queue.Queue):
    """A queue of RabbitMQ, with what makes it different from plain ones; None: as the broker's settings say.

    `durable=False` makes a classic queue that a restart of the server empties. `prefetch` is how many unacknowledged
    messages of it one worker process may hold: so many of its jobs run at once, at most. A worker with a higher
    `consumer_priority` gets messages before others do. `message_ttl` and `idle_ttl` are seconds: after which a message
    that nobody took goes to the dead letters, and after which the server deletes a queue that nobody uses; texts such
    as "10s" will do. A queue of `max_length` ready messages takes no more: a dispatch is refused. `arguments` are for
    the server, as they are. With `declare=False` the queue is somebody else's: it must exist, and is used as it is.
    Raises `ConfigurationError` for what cannot go together.
    """

    durable: bool = attrs.field(default=True, kw_only=True)
    queue_type: Literal["quorum", "classic"] | None = attrs.field(default=None, kw_only=True)
    prefetch: int | None = attrs.field(default=None, validator=whole(1, 65_535), kw_only=True)
    max_priority: int | None = attrs.field(default=None, validator=whole(1, 9), kw_only=True)
    consumer_priority: int | None = attrs.field(default=None, validator=whole(-1000, 1000), kw_only=True)
    message_ttl: Duration | None = attrs.field(default=None, converter=seconds_or_none, validator=_ttl, kw_only=True)
    idle_ttl: Duration | None = attrs.field(default=None, converter=seconds_or_none, validator=_ttl, kw_only=True)
    max_length: int | None = attrs.field(default=None, validator=whole(1, 2**31), kw_only=True)
    delivery_limit: int | None = attrs.field(default=None, validator=whole(1, 1_000_000), kw_only=True)
    bindings: tuple[Binding, ...] = attrs.field(default=(), converter=_bindings, kw_only=True)
    arguments: Mapping[str, Any] = attrs.field(factory=dict, kw_only=True, hash=False)
    declare: bool = attrs.field(default=True, kw_only=True)

    def __attrs_post_init__(self) -> None:
        wrong = ""
        if self.queue_type == "quorum" and not self.durable:
            wrong = "a quorum queue is always durable: leave one of the two out"
        elif self.queue_type == "quorum" and self.max_priority:
            wrong = "a quorum queue has no priorities: write queue_type='classic'"
        elif (self.queue_type == "classic" or not self.durable or self.max_priority) and self.delivery_limit:
            wrong = "a classic queue has no delivery limit: leave it out"
        if wrong:
            raise ConfigurationError(f"Queue({self.name!r}): {wrong}")

    def kind(self, settings: AmqpSettings) -> str:
        """Quorum or classic."""
        if self.queue_type is not None:
            return self.queue_type
        return "classic" if not self.durable or self.max_priority else settings.queue_type


class Names:
    """What things are called on the server.

    The client library knows only some ASCII characters in names of queues. All others are written as `#` and the
    hexadecimal digits of their bytes: `#` itself is in no name of a queue.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.dead = f"{prefix}camora.dead"
        """The exchange and the queue of dead letters."""
        self._queues: dict[str, str] = {}

    def queue(self, name: str) -> str:
        """Of a queue. Raises `ConfigurationError` for one that the server cannot have."""
        found = self._queues.get(name)
        if found is None:
            if len(self._queues) >= _REMEMBERED:
                self._queues.clear()
            found = self._queues[name] = self._queue(name)
        return found

    def _queue(self, name: str) -> str:
        check_name("queue", name)
        full = self.prefix + _ODD.sub(lambda odd: "".join(f"#{byte:02X}" for byte in odd[0].encode()), name)
        if full.startswith("amq."):
            raise ConfigurationError(f"queue name {full!r}: names that begin with 'amq.' belong to the server")
        return full if len(full) <= _LONGEST else f"{full[: _LONGEST - 50]}##{_digest(name)}"

    def of_queue(self, full: str, known: Iterable[str]) -> str:
        """The queue of this name on the server; a very long one is looked for among those that are known."""
        if "##" in full:
            return next((name for name in known if self.queue(name) == full), full)
        text = full.removeprefix(self.prefix)
        raw = re.sub(r"#([0-9A-F]{2})", lambda one: chr(int(one[1], 16)), text)
        try:
            return raw.encode("latin-1").decode() if raw != text else text
        except UnicodeError:
            return text  # it is not one of ours

    def exchange(self, name: str) -> str:
        """Of an exchange; those of the server itself have no prefix."""
        return name if name.startswith("amq.") else self.prefix + name

    @staticmethod
    def word(name: str) -> str:
        """A name on the server as one word of a routing key, whatever characters it has."""
        quoted = quote(name, safe="").replace(".", "%2E")
        return quoted if len(quoted) <= _LONGEST_WORD else f"%h{_digest(name)}"  # nothing quoted has this in it

    def of_word(self, word: str, known: Iterable[str]) -> str:
        """The queue whose name on the server this word is; a long one is looked for among those that are known."""
        if word.startswith("%h"):
            return next((name for name in known if self.word(self.queue(name)) == word), word)
        return self.of_queue(unquote(word), known)


def _digest(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:40]


class Topology:
    """What an app has declared. Shared by all who use the same store; for any thread, because it only grows."""

    def __init__(self, settings: AmqpSettings) -> None:
        self.settings = settings
        self.names = Names(settings.prefix)
        self.queues: dict[str, Queue] = {}
        self.exchanges: dict[str, Exchange] = {one.name: one for one in settings.exchanges}
        """Those that are declared here; others must exist."""
        self.seen: set[str] = {"default"}
        """Names of queues that were used, declared or not."""
        self.version = 0
        """Grows with each declaration."""

    def queue(self, name: str) -> Queue:
        """The queue of this name, a plain one if it was never declared."""
        found = self.queues.get(name)
        if found is None:
            found = Queue(name)
        return found

    def learn(self, queues: Sequence[camora.queue.Queue]) -> None:
        """Note these; a plain queue hides no declaration of more."""
        for queue in queues:
            self.seen.add(queue.name)
            if isinstance(queue, Queue):
                self._note(queue)

    def bind(self, queue: Queue | str, exchange: Exchange | str, routing_key: str, headers: Mapping[str, Any]) -> None:
        """Note that an exchange gives to a queue."""
        name = queue if isinstance(queue, str) else queue.name
        self.seen.add(name)
        known = queue if isinstance(queue, Queue) else self.queue(name)
        made = Binding(exchange, routing_key, dict(headers))
        bindings = {*known.bindings, *self.queue(name).bindings, made}
        self._note(attrs.evolve(known, bindings=_sorted(bindings)))

    def note_exchange(self, exchange: Exchange | str) -> str:
        """Its name. Raises `ConfigurationError` when it was declared otherwise before."""
        name = name_of(exchange)
        if isinstance(exchange, Exchange):
            known = self.exchanges.get(name)
            if known is None:
                self.exchanges[name] = exchange
                self.version += 1
            elif known != exchange:
                raise ConfigurationError(
                    f"exchange {name!r} is declared twice, as {known!r} and as {exchange!r}: keep one of them, and "
                    f"write its name, {name!r}, elsewhere"
                )
        return name

    def _note(self, queue: Queue) -> None:
        if self.queues.get(queue.name) == queue:
            return
        known = self.queues.get(queue.name)
        if known is not None:
            queue = attrs.evolve(queue, bindings=_sorted({*known.bindings, *queue.bindings}))
        for binding in queue.bindings:
            self.note_exchange(binding.exchange)
        self.queues[queue.name] = queue
        self.version += 1

    def priority(self, queue: str, priority: int, task: str) -> int | None:
        """The priority that the server is given: None where there are none.

        Levels below 0 are one; and so that there is one below 0, all others are one higher on the server. Raises
        `UnsupportedCapability` for a queue without priorities.
        """
        most = self.max_priority(self.queue(queue))
        if most is None:
            if not priority:
                return None
            raise UnsupportedCapability(
                f"{task}: queue {queue!r} has no priorities. Declare it as "
                f"camora_amqp.Queue({queue!r}, queue_type='classic', max_priority=9), or leave the priority out",
                capability="priority",
            )
        return max(-1, min(priority, most)) + 1

    @property
    def priorities(self) -> bool:
        """Whether any queue has some."""
        return self.max_priority(Queue("default")) is not None or any(
            self.max_priority(queue) is not None for queue in self.queues.values()
        )

    def max_priority(self, queue: Queue) -> int | None:
        """How many priorities above 0 a queue has; None: no priorities at all."""
        if queue.kind(self.settings) == "quorum":
            return None
        return queue.max_priority or self.settings.max_priority


def _sorted(bindings: Iterable[Binding]) -> tuple[Binding, ...]:
    return tuple(sorted(bindings, key=lambda one: (name_of(one.exchange), one.routing_key, repr(one.headers))))
