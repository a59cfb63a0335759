"""The names of keys.

All keys of one queue begin with the name of its stream in braces: in a cluster they lie in one slot, so that one script
can change them together. The scripts make the same names (see `scripts/common.lua`).
"""

from __future__ import annotations

from typing import Any
from zlib import crc32

import attrs
from camora.errors import ConfigurationError

from camora_redis.kinds import Kinds

__all__ = ["Keys", "tag_of"]

_SHARDS = 64
"""How many slots items without a queue share in a cluster. Fixed: where an item is follows from it."""
_ESCAPED = str.maketrans({"%": "%25", "{": "%7B", "}": "%7D"})


def _is_name(_: Any, attribute: Any, value: Any) -> None:
    if value is None:
        return
    name = _SHOWN.get(attribute.name, attribute.name)
    if not isinstance(value, str) or not value.strip():
        raise ConfigurationError(f"{name} = {value!r}: expected a name")
    if attribute.name == "stream" and set(value) & {"{", "}"}:
        raise ConfigurationError(
            f"{name} = {value!r}: must not have braces in it; keys that go with it have them around its name"
        )


_SHOWN = {"failures": "failure_stream"}


@attrs.frozen
class Keys:
    """`prefix` begins every name; `stream` and `failures`, if given, are the names of the streams of `default`.

    In a cluster the failures of `default` lie in the slot of its stream: `{STREAM}…`. Raises `ConfigurationError` for
    names that cannot be.

    With `clustered`, the records of jobs lie in the slot of their queue; else nobody needs to know a job's queue to
    find its record.
    """

    prefix: str = attrs.field(default="camora", validator=_is_name)
    group: str = attrs.field(default="camora", validator=_is_name)
    clustered: bool = False
    database: int = 0
    stream: str | None = attrs.field(default=None, validator=_is_name)
    failures: str | None = attrs.field(default=None, validator=_is_name)
    kinds: Kinds = attrs.field(factory=Kinds, eq=False, repr=False)
    """Which queues are not plain. Declared later than the names are made, so it changes."""

    def __attrs_post_init__(self) -> None:
        if self.failures is None:
            return
        if self.failures == self.of_queue("default"):
            raise ConfigurationError(f"failure_stream = {self.failures!r}: it is the same stream as the queue's own")
        beside = f"{{{self.of_queue('default')}}}"
        if self.clustered and not self.failures.startswith(beside):
            raise ConfigurationError(
                f"failure_stream = {self.failures!r}: in a cluster it must lie beside its stream, for example "
                f"failure_stream = {beside + ':failures'!r}"
            )

    def of_queue(self, queue: str) -> str:
        """The stream of a queue. Braces in names would decide the slot of a key, so they are escaped.

        That of a list queue begins with the hash tag of its list, and so do all other keys of the queue.
        """
        if not self.kinds.plain and queue in self.kinds.lists:
            return f"{{{self.kinds.lists[queue].tag}}}:{self.prefix}:{queue}"
        if self.stream is not None:
            return self.stream if queue == "default" else f"{self.stream}:{queue.translate(_ESCAPED)}"
        return f"{self.prefix}:{queue.translate(_ESCAPED)}"

    def failures_of(self, queue: str) -> str:
        """The stream of a queue's dead letters."""
        if self.failures is not None and (queue == "default" or not self.clustered):
            return self.failures if queue == "default" else f"{self.failures}:{queue.translate(_ESCAPED)}"
        return self.helper(queue, "dead")

    def helper(self, queue: str, name: str) -> str:
        """Another key of a queue."""
        stream = self.of_queue(queue)
        return f"{stream}:{name}" if stream.startswith("{") else f"{{{stream}}}:{name}"

    def record(self, queue: str, job_id: str) -> str:
        """The record of a job."""
        if self.clustered:
            return self.helper(queue, f"result:{job_id}")
        return f"{self.prefix}:result:{job_id}"

    def own(self, name: str) -> str:
        """A key that belongs to no queue."""
        return f"{{{self.prefix}}}:{name}"

    def shard(self, item: str, name: str) -> str:
        """A key that belongs to no queue, but to an item: in a cluster all keys of one item lie in one of 64 slots."""
        return self.own(name) if not self.clustered else _shard(self.prefix, crc32(item.encode()) % _SHARDS, name)

    def shards(self, name: str) -> list[str]:
        """That key of every shard."""
        if not self.clustered:
            return [self.own(name)]
        return [_shard(self.prefix, number, name) for number in range(_SHARDS)]

    @property
    def queues(self) -> str:
        """The set of all queues' names."""
        return self.own("queues")

    def channel(self, queue: str) -> str:
        """The channel of a broadcast queue."""
        return f"{self.prefix}:{queue}"

    @property
    def finished(self) -> str:
        """The channel on which the ids of finished jobs are told."""
        # Channels know no databases. No queue has a `#` in its name.
        return f"{self.prefix}:finished#{self.database}"


def _shard(prefix: str, number: int, name: str) -> str:
    # No queue has a `#` in its name.
    return f"{{{prefix}#{number}}}:{name}"


def tag_of(key: str) -> str:
    """What of a key decides its slot in a cluster: what is in the first braces, or all of it."""
    _, opened, rest = key.partition("{")
    tag, closed, _ = rest.partition("}")
    return tag if opened and closed and tag else key
