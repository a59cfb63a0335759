"""What travels: a message, the envelope a broker carries it in, and the delivery it is lent out as.

The wire format is documented field by field in `docs/wire-format.md`. Structs with `gc=False` cannot be part of a
cycle, and need not be looked at by the garbage collector, which otherwise takes a third of a worker's time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

__all__ = ["WIRE_VERSION", "Delivery", "Envelope", "Message", "RetrySettings"]

WIRE_VERSION = 1


class RetrySettings(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """A durable retry policy as it travels with a message; times in seconds."""

    max_tries: int = 1
    delay: float = 0.0
    delay_max: float | None = None
    mode: str = "fixed"
    jitter: bool = False
    on: tuple[str, ...] = ()
    """Qualified names of the exception types that are retried; empty: only where the task asks for it."""


class Message(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request to run a task. Moments are milliseconds since the epoch, durations are seconds.

    Fields that this version does not know are kept when a message goes back to its broker: see `Codec.evolve`.
    """

    v: int = WIRE_VERSION
    id: str
    task: str
    queue: str = "default"
    args: list[Any] = msgspec.field(default_factory=list)
    kwargs: dict[str, Any] = msgspec.field(default_factory=dict)
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    created: int = 0
    due: int = 0
    expires: int | None = None
    priority: int = 0
    timeout: float | None = None
    retry: RetrySettings | None = None
    key: str | None = None
    key_ttl: float = 0
    keep_result: bool | None = None
    attempt: int = 1
    """Which attempt this is, from 1. Crashes of a worker are not attempts: see `Delivery.deliveries`."""
    misses: int = 0
    """How often a worker gave it back because it did not know the task or a guard refused to let it run."""
    life: int = 0
    """How often the job began anew under its id: it was suspended, or was taken out of the dead letters."""

    def __repr__(self) -> str:
        """Without its arguments: whoever prints it does not know which of them are secret."""
        count = len(self.args) + len(self.kwargs)
        return f"<Message {self.id} for {self.task} in {self.queue!r}, attempt {self.attempt}, {count} arguments>"


class Envelope(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What a broker carries: the encoded message and all a broker may read of it.

    `due` is 0 for "now". `key_ttl` (seconds) is how long `key` stays taken after the job has finished. `options` are
    those of plugins that this broker owns (see `TaskOption`), as far as they were given: for this publication, and not
    part of the message. A retry's envelope has those of the task, not those of the dispatch.
    """

    id: str
    task: str
    queue: str
    body: bytes
    due: int = 0
    expires: int | None = None
    priority: int = 0
    key: str | None = None
    key_ttl: float = 0.0
    options: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        """Without what is in it."""
        return f"<Envelope {self.id} for {self.task} in {self.queue!r}, {len(self.body)} bytes>"


class Delivery(msgspec.Struct, gc=False, frozen=True, kw_only=True, eq=False):
    """A message lent to one worker under a lease.

    `deliveries` counts how often it was taken without being settled, this time included. `receipt` belongs to the
    broker: it is the fencing token, different for each delivery of the same message. `sequence_number` is for people:
    what the broker's own tools call this message, where they number messages; else 0.
    """

    id: str
    queue: str
    body: bytes
    deliveries: int = 1
    receipt: Any = None
    sequence_number: int = 0

    def __repr__(self) -> str:
        """Without what is in it."""
        return f"<Delivery {self.id} from {self.queue!r}, {len(self.body)} bytes, taken {self.deliveries} times>"
