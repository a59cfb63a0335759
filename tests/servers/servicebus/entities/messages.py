"""A message: as it came in, as an entity keeps it, and as somebody has it locked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from operator import attrgetter
from typing import Any
from uuid import UUID

import attrs

__all__ = ["Counts", "Incoming", "Locked", "Stored", "incoming_from", "incoming_values"]


@attrs.define(slots=True, eq=True)
class Incoming:
    """A message as it was sent. `encoded` is all of it, kept as it came; the other fields are what rules look at."""

    encoded: bytes
    message_id: str | None = None
    session_id: str | None = None
    partition_key: str | None = None
    time_to_live: float | None = None
    """Seconds."""
    scheduled: float | None = None
    """Seconds since 1970: not before this."""
    subject: str | None = None
    correlation_id: str | None = None
    to: str | None = None
    reply_to: str | None = None
    reply_to_session_id: str | None = None
    content_type: str | None = None
    application_properties: Mapping[str, Any] = attrs.field(factory=dict)
    size: int = -1
    """Bytes; of `encoded` unless given."""

    def __attrs_post_init__(self) -> None:
        if self.size < 0:
            self.size = len(self.encoded)


_names = tuple(field.name for field in attrs.fields(Incoming))
incoming_values = attrgetter(*_names)
"""The fields of an `Incoming` in order, for the journal."""


def incoming_from(values: tuple[Any, ...]) -> Incoming:
    """The opposite of `incoming_values`."""
    return Incoming(*values)


@attrs.define(slots=True, eq=False)
class Stored:
    """A message in an entity: live, not a copy. Times are seconds since 1970."""

    sequence_number: int
    incoming: Incoming
    enqueued: float
    enqueued_sequence: int
    """The number that it had first, where it was sent to: another one after a topic or a forwarding."""
    expires: float = math.inf
    delivery_count: int = 0
    """How often it was delivered and came back, as in AMQP's header: 0 at the first delivery."""
    scheduled: bool = False
    deferred: bool = False
    properties: dict[str, Any] = attrs.field(factory=dict)
    """What settlements put over its application properties, the reason and description of a dead letter too."""
    dead_letter_source: str = ""
    """The path of the entity in which it was dead-lettered, else empty."""
    hops: int = 0
    token: UUID | None = None
    """The lock that it is under."""
    locked_until: float = 0.0
    holder: object = None

    @property
    def state(self) -> str:
        """ "active" (locked or not), "deferred" or "scheduled": what peeking shows."""
        return "scheduled" if self.scheduled else "deferred" if self.deferred else "active"

    @property
    def message_id(self) -> str | None:
        return self.incoming.message_id

    @property
    def session_id(self) -> str | None:
        return self.incoming.session_id

    @property
    def dead_letter_reason(self) -> str:
        return str(self.properties.get("DeadLetterReason", ""))

    @property
    def dead_letter_description(self) -> str:
        return str(self.properties.get("DeadLetterErrorDescription", ""))

    @property
    def application_properties(self) -> dict[str, Any]:
        """As sent, with what settlements changed over them."""
        return {**self.incoming.application_properties, **self.properties}


@attrs.frozen(slots=True, eq=False)
class Locked:
    """A message that was given to somebody under a lock, as it was then."""

    stored: Stored
    token: UUID
    locked_until: float
    delivery_count: int

    @property
    def sequence_number(self) -> int:
        return self.stored.sequence_number

    @property
    def incoming(self) -> Incoming:
        return self.stored.incoming

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self.stored, name)


@attrs.frozen
class Counts:
    """How many messages of which kind ("Message counters"): active ones are with the locked and the deferred."""

    active: int = 0
    dead: int = 0
    scheduled: int = 0
    deferred: int = 0
    transfer: int = 0
    transfer_dead: int = 0
    size: int = 0
    """Bytes."""
