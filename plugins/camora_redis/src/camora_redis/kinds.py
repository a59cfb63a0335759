"""Kinds of queues beside plain ones, and which queues are of which kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from camora.errors import ConfigurationError, UnsupportedCapability
from camora.message import Envelope
from camora.queue import Queue
from camora.validators import whole

__all__ = ["Kinds", "ListQueue", "PubSubQueue"]

_CHANNELS = frozenset({"finished", "schedules"})
"""Names of channels that Camora itself uses, behind the prefix."""


@attrs.frozen
class PubSubQueue(Queue):
    """A broadcast on a pub/sub channel: every worker process that serves the queue gets each job, and runs it.

    At most once. Nothing is stored: a dispatch reaches who is listening at that moment, and returns all the same when
    that is nobody. There are no leases and no dead letters; what a worker holds when it ends, or misses while it is not
    connected, is gone. An attempt that is tried again is tried by the same worker, out of its memory. Of the results
    the first one is kept.

    A dispatch with a delay, a priority or a key raises `UnsupportedCapability`, and so does pausing the queue.
    """

    buffer: int = attrs.field(default=10_000, validator=whole(1, 10_000_000), kw_only=True)
    """How many messages may wait in a worker that is too slow; beyond that the oldest are dropped, with a warning."""

    def __attrs_post_init__(self) -> None:
        if self.name in _CHANNELS:
            raise ConfigurationError(
                f"PubSubQueue({self.name!r}): the channel of this name is used by Camora itself: choose another name"
            )


def _list_key(_: Any, attribute: Any, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, str) or not value:
        raise ConfigurationError(f"{attribute.name}={value!r}: the name of a list, a text of at least one character")
    if ("{" in value or "}" in value) and _tag(value) == value:
        raise ConfigurationError(
            f"{attribute.name}={value!r}: braces in the name of a list must enclose its hash tag, as in {{app}}:jobs"
        )


def _tag(key: str) -> str:
    """What of a key decides its slot in a cluster."""
    start = key.find("{")
    end = key.find("}", start + 1)
    return key[start + 1 : end] if start >= 0 and end > start + 1 else key


@attrs.frozen
class ListQueue(Queue):
    """A plain list, shared with other programs: they RPUSH messages in the wire format, or BLPOP what is dispatched.

    A worker moves messages from the list into the queue's own stream, in a script, and from there on they are jobs like
    all others: leases, retries and dead letters included. Until then they belong to whoever takes them first.

    A dispatch with a key raises `UnsupportedCapability`.
    """

    key: str | None = attrs.field(default=None, validator=_list_key, kw_only=True)
    """The name of the list; None: that of the queue."""

    @property
    def list_key(self) -> str:
        """The name of the list."""
        return self.key or self.name

    @property
    def tag(self) -> str:
        """What decides the slot of the list, and so of everything that belongs to the queue."""
        return _tag(self.list_key)


class Kinds:
    """Queues by name that are not plain. Shared by all who use the same store; for any thread."""

    def __init__(self) -> None:
        self.broadcasts: dict[str, PubSubQueue] = {}
        self.lists: dict[str, ListQueue] = {}
        self.plain = True
        """True while no queue is of another kind."""
        self._others: list[Kinds] = []

    def learn(self, queues: Sequence[Queue]) -> None:
        """Note these. Raises `ConfigurationError` for two queues on one list; then nothing has changed."""
        lists = dict(self.lists)
        broadcasts = dict(self.broadcasts)
        for queue in queues:
            if isinstance(queue, PubSubQueue):
                broadcasts[queue.name] = queue
            elif isinstance(queue, ListQueue):
                lists[queue.name] = queue
        by_key: dict[str, str] = {}
        for name, one in lists.items():
            other = by_key.setdefault(one.list_key, name)
            if other != name:
                raise ConfigurationError(f"the queues {other!r} and {name!r} are both on the list {one.list_key!r}")
        self.lists, self.broadcasts = lists, broadcasts
        self.plain = not (lists or broadcasts)
        for sharer in self._others:
            sharer.learn(queues)

    def share(self, other: Kinds) -> None:
        """Tell another one of the same data, now and later. May be repeated."""
        if other is not self and all(known is not other for known in self._others):
            self._others.append(other)
            other.learn((*self.lists.values(), *self.broadcasts.values()))

    def special(self, queue: str) -> bool:
        """Whether this queue is not plain."""
        return queue in self.broadcasts or queue in self.lists

    def check(self, envelopes: Sequence[Envelope]) -> None:
        """Raises `UnsupportedCapability` for a message that its kind of queue cannot carry."""
        for envelope in envelopes:
            if envelope.queue in self.broadcasts:
                _check_broadcast(envelope)
            elif envelope.queue in self.lists and envelope.key:
                raise UnsupportedCapability(
                    f"{envelope.task}: queue {envelope.queue!r} is a ListQueue: nobody knows which keys are taken. "
                    "Leave the key out, or use a plain queue",
                    capability="dedup",
                )


_BROADCAST_LACKS = (
    ("due", "delay", "nobody keeps a message until later. Leave delay and eta out, schedule the task"),
    ("priority", "priority", "every worker hears each message at once. Leave the priority out"),
    ("key", "dedup", "nobody knows which keys are taken. Leave the key out"),
)


def _check_broadcast(envelope: Envelope) -> None:
    for field, capability, text in _BROADCAST_LACKS:
        if getattr(envelope, field):
            raise UnsupportedCapability(
                f"{envelope.task}: queue {envelope.queue!r} is a PubSubQueue: {text}, or use a plain queue",
                capability=capability,
            )
    if envelope.options and envelope.options.get("wait_replicas"):
        raise UnsupportedCapability(
            f"{envelope.task}: queue {envelope.queue!r} is a PubSubQueue: nothing is stored that replicas could "
            "have. Leave wait_replicas out, or use a plain queue",
            capability="task_options",
        )
