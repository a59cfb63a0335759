"""What a queue, a topic, a subscription and a rule are set to: the names and defaults of the management interface.

"Service Bus quotas", "Message expiration", "Duplicate detection", "Message transfers, locks, and settlement".
"""

from __future__ import annotations

import math
from typing import Any

import attrs

from tests.servers.servicebus.entities.errors import InvalidArgument, NotAllowed
from tests.servers.servicebus.entities.filters import Filter, TrueFilter

__all__ = ["STATUSES", "TIERS", "QueueOptions", "Rule", "SubscriptionOptions", "Tier", "TopicOptions"]

STATUSES = ("Active", "Disabled", "SendDisabled", "ReceiveDisabled")
MEGABYTE = 1024 * 1024


@attrs.frozen
class Tier:
    """What a tier allows ("Service Bus quotas"; "Service Bus Premium messaging tier": large messages). Bytes."""

    name: str
    message: int
    largest_message: int
    batch: int
    only_queues: bool = False
    """Basic: no topics, no sessions, no duplicate detection."""


TIERS = {
    "basic": Tier("Basic", 256 * 1024, 256 * 1024, 256 * 1024, only_queues=True),
    "standard": Tier("Standard", 256 * 1024, 256 * 1024, 256 * 1024),
    "premium": Tier("Premium", MEGABYTE, 100 * MEGABYTE, MEGABYTE),
}


def _check(good: bool, text: str) -> None:
    if not good:
        raise InvalidArgument(text)


@attrs.frozen(kw_only=True, slots=False)
class _Common:
    """What all of them have. Durations are seconds; infinite ones mean never."""

    default_time_to_live: float = math.inf
    status: str = "Active"
    auto_delete_on_idle: float = math.inf
    enable_batched_operations: bool = True
    user_metadata: str = ""

    def can_send(self) -> bool:
        return self.status in ("Active", "ReceiveDisabled")

    def can_receive(self) -> bool:
        return self.status in ("Active", "SendDisabled")

    def check(self, tier: Tier) -> None:
        """Raises `InvalidArgument` or `NotAllowed`, as the service does."""
        _check(self.status in STATUSES, f"Status: {self.status!r} is none of {', '.join(STATUSES)}")
        _check(self.default_time_to_live > 0, "DefaultMessageTimeToLive: must be more than zero")
        _check(len(self.user_metadata) <= 1024, "UserMetadata: longer than 1024 characters")


@attrs.frozen(kw_only=True, slots=False)
class _Sent:
    """What can be sent to: queues and topics."""

    max_size: int = 1024 * MEGABYTE
    """How much it holds, in bytes. The service takes whole gigabytes; tests may set less, so that it fills."""
    max_message_size: int | None = None
    """In bytes; `None` is the tier's."""
    requires_duplicate_detection: bool = False
    duplicate_detection_window: float = 600.0
    enable_partitioning: bool = False
    enable_express: bool = False

    def check_sent(self, tier: Tier) -> None:
        _check(self.max_size > 0, "MaxSizeInMegabytes: must be more than zero")
        if self.max_message_size is not None:
            in_range = 0 < self.max_message_size <= tier.largest_message
            limit = tier.largest_message // 1024
            _check(in_range, f"MaxMessageSizeInKilobytes: the tier {tier.name} takes up to {limit}")
        if self.requires_duplicate_detection:
            if tier.only_queues:
                raise NotAllowed(f"RequiresDuplicateDetection: the tier {tier.name} has none")
            in_range = 20 <= self.duplicate_detection_window <= 7 * 86400
            _check(in_range, "DuplicateDetectionHistoryTimeWindow: from 20 seconds to 7 days")


@attrs.frozen(kw_only=True, slots=False)
class _Received:
    """What can be received from: queues and subscriptions."""

    lock_duration: float = 60.0
    max_delivery_count: int = 10
    requires_session: bool = False
    dead_lettering_on_message_expiration: bool = False
    forward_to: str = ""
    forward_dead_lettered_to: str = ""

    def check_received(self, tier: Tier) -> None:
        # The service takes 5 s to 5 min; less is for tests that cannot wait.
        _check(0 < self.lock_duration <= 300, "LockDuration: up to 5 minutes")
        _check(1 <= self.max_delivery_count <= 2000, "MaxDeliveryCount: from 1 to 2000")
        if self.requires_session:
            if tier.only_queues:
                raise NotAllowed(f"RequiresSession: the tier {tier.name} has none")
            if self.forward_to:
                raise NotAllowed("ForwardTo: an entity with sessions cannot forward")


@attrs.frozen(kw_only=True, slots=False)
class QueueOptions(_Common, _Sent, _Received):
    """A queue's."""

    def check(self, tier: Tier) -> None:
        super().check(tier)
        self.check_sent(tier)
        self.check_received(tier)


@attrs.frozen(kw_only=True, slots=False)
class TopicOptions(_Common, _Sent):
    """A topic's."""

    support_ordering: bool = True

    def check(self, tier: Tier) -> None:
        super().check(tier)
        self.check_sent(tier)
        if tier.only_queues:
            raise NotAllowed(f"the tier {tier.name} has no topics")


@attrs.frozen
class Rule:
    """A filter of a subscription, by its name ("Topic filters and actions"). Actions are not imitated."""

    name: str
    filter: Filter
    created: float = 0.0


@attrs.frozen(kw_only=True, slots=False)
class SubscriptionOptions(_Common, _Received):
    """A subscription's. `default_rule` is its first rule, `$Default`, which takes all."""

    dead_lettering_on_filter_errors: bool = True
    default_rule: Rule = attrs.field(factory=lambda: Rule("$Default", TrueFilter()))

    def check(self, tier: Tier) -> None:
        super().check(tier)
        self.check_received(tier)


def changed(options: Any, **fields: Any) -> Any:
    """The same with other values."""
    return attrs.evolve(options, **fields)
