"""What one sends to: a queue, or a topic with its subscriptions."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tests.servers.servicebus.entities.duplicates import History, Identity
from tests.servers.servicebus.entities.entity import Entity
from tests.servers.servicebus.entities.errors import (
    Disabled,
    InvalidArgument,
    NotAllowed,
    QuotaExceeded,
    TooLarge,
)
from tests.servers.servicebus.entities.messages import Incoming, Stored
from tests.servers.servicebus.entities.options import QueueOptions, Tier, TopicOptions

__all__ = ["Target"]

ID_LENGTH = 128  # "Service Bus quotas": message id, session id and partition key
PROPERTY_SIZE = 32 * 1024  # "Service Bus quotas": message property size for each, and together
PROPERTIES_SIZE = 64 * 1024


class Target:
    """A queue to send to. `entity` keeps what is scheduled, and for a queue all else too."""

    def __init__(self, entity: Entity, tier: Tier) -> None:
        self.entity = entity
        self.tier = tier
        self.history = History()

    @property
    def path(self) -> str:
        return self.entity.path

    @property
    def options(self) -> QueueOptions | TopicOptions:
        options = self.entity.options
        assert isinstance(options, QueueOptions | TopicOptions)
        return options

    @property
    def max_message_size(self) -> int:
        """Bytes."""
        return self.options.max_message_size or self.tier.message

    def send(self, messages: Sequence[Incoming]) -> list[int]:
        """Store all of them or none; their sequence numbers, 0 for a duplicate, which is silently not stored.

        What has `scheduled` in the future is scheduled. Raises `TooLarge`, `QuotaExceeded`, `Disabled`,
        `InvalidArgument`, `NotAllowed`.
        """
        now = self.entity.advance()
        self.check(messages)
        numbers = [self._one(message, now) for message in messages]
        self.entity.ground.done()
        return numbers

    def schedule(self, messages: Sequence[Incoming]) -> list[int]:
        """The same; the sequence numbers are those to cancel with."""
        return self.send(messages)

    def cancel(self, numbers: Sequence[int]) -> None:
        """Take scheduled messages back, all or none. Raises `MessageNotFound` if one is due already, or never was."""
        self.entity.advance()
        self.entity.cancel_scheduled(numbers)
        self.entity.ground.done()

    def forwarded(self, stored: Stored, now: float) -> None:
        """A message of another entity comes here ("Chaining Service Bus entities with auto-forwarding").

        Raises `EntityError` if this cannot take it.
        """
        self.check([stored.incoming])
        if not self._is_duplicate(stored.incoming, now):
            left = math.inf if stored.expires == math.inf else stored.expires - now
            self.entity.admit(stored.incoming, now, left, stored)

    def check(self, messages: Sequence[Incoming]) -> None:
        """Raises what refuses them."""
        options = self.options
        if not options.can_send():
            raise Disabled(f"{self.path}: is {options.status}; set its status to Active to send")
        whole = 0
        for message in messages:
            self._check_one(message)
            whole += message.size
        if len(messages) > 1 and whole > self.tier.batch:
            raise TooLarge(f"{self.path}: a batch of {whole} bytes; the tier {self.tier.name} takes {self.tier.batch}")
        if self.stored_size() + whole > options.max_size:
            raise QuotaExceeded(f"{self.path}: is full, it holds {options.max_size} bytes; receive messages first")

    def stored_size(self) -> int:
        """Bytes, as they count for the quota."""
        return self.entity.whole_size()

    def accepts_without_session(self) -> bool:
        return not self.options.requires_session if isinstance(self.options, QueueOptions) else True

    def _one(self, message: Incoming, now: float) -> int:
        if self._is_duplicate(message, now):
            self.entity.tell_of(message, "duplicate")
            return 0
        if message.scheduled is not None and message.scheduled > now:
            return self.entity.admit_scheduled(message, now, message.scheduled)
        return self.entity.admit(message, now)

    def _check_one(self, message: Incoming) -> None:
        if message.size > self.max_message_size:
            limit = self.max_message_size
            raise TooLarge(f"{self.path}: a message of {message.size} bytes; the limit is {limit} bytes")
        for name, value in (
            ("MessageId", message.message_id),
            ("SessionId", message.session_id),
            ("PartitionKey", message.partition_key),
        ):
            if value is not None and len(value) > ID_LENGTH:
                raise InvalidArgument(f"{self.path}: {name} has {len(value)} characters; {ID_LENGTH} are allowed")
        if message.session_id and message.partition_key and message.session_id != message.partition_key:
            raise InvalidArgument(
                f"{self.path}: PartitionKey and SessionId differ ("
                f"{message.partition_key!r}, {message.session_id!r}); set one, or both alike"
            )
        if message.session_id is None and not self.accepts_without_session():
            raise NotAllowed(f"{self.path}: requires sessions; send with a session id")
        if message.size > PROPERTY_SIZE:  # else no property can be too large
            _check_properties(self.path, message)

    def _is_duplicate(self, message: Incoming, now: float) -> bool:
        """By message id only; where the entity is partitioned, with the partition key ("Duplicate detection")."""
        options = self.options
        if not options.requires_duplicate_detection or message.message_id is None:
            return False
        key = (message.session_id or message.partition_key or "") if options.enable_partitioning else ""
        identity = (key, message.message_id)
        if self.history.knows(identity, now):
            return True
        self.remember(identity, now + options.duplicate_detection_window)
        return False

    def remember(self, identity: Identity, until: float) -> None:
        self.history.remember(identity, until)
        self.entity.ground.journal.append(("seen", self.path, identity, until))


def _check_properties(path: str, message: Incoming) -> None:
    sizes = {
        name: len(str(name).encode()) + (len(value) if isinstance(value, bytes) else len(str(value).encode()))
        for name, value in message.application_properties.items()
    }
    for name, size in sizes.items():
        if size > PROPERTY_SIZE:
            raise TooLarge(f"{path}: the property {name!r} has {size} bytes; the limit is {PROPERTY_SIZE} bytes")
    if (whole := sum(sizes.values())) > PROPERTIES_SIZE:
        raise TooLarge(f"{path}: the properties have {whole} bytes; the limit is {PROPERTIES_SIZE} bytes together")
