"""Topics, and the queues that get a copy of what is sent to one: its subscriptions.

A topic keeps nothing: each subscription has the messages that its filter lets in, and workers take them from there as
from a queue. What is for one subscription alone (a retry, a job that is given back by a copy, a dead letter that is
requeued, a job dispatched to that queue by name) goes by the topic, too, for there is no other way in: it has the
property `camora_to`, and a rule that `camora servicebus apply` makes lets it in nowhere else.
"""

from __future__ import annotations

import re
from typing import Any

import attrs
from camora.errors import ConfigurationError
from camora.settings import Duration, Size
from camora.validators import check_name, seconds_or_none

from camora_servicebus.bounds import DAY, GIB, KIB, LONGEST, MIB, MINUTE, amount, as_bytes, flag, time
from camora_servicebus.entity import ServiceBusEntity

__all__ = ["RULE", "ServiceBusSubscription", "ServiceBusTopic", "path_of", "rule_text", "split", "topic_name"]

RULE = "camora"
"""The name of the one rule that a subscription of ours has."""
_BETWEEN = "/Subscriptions/"
# "Service Bus quotas": the name of a subscription has up to 50 letters, digits, periods, hyphens and underscores.
_SUBSCRIPTION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,48}[A-Za-z0-9])?")
_LONGEST_FILTER = 1024
"""Characters of a filter ("Service Bus quotas")."""


@attrs.frozen
class ServiceBusTopic:
    """A topic as an app declares it. None: not said. Raises `ConfigurationError` for what cannot be.

    With `declare=False` it is somebody else's: it must exist, and is used as it is.
    """

    name: str = attrs.field()
    duplicate_detection: Duration | None = attrs.field(
        default=None, converter=seconds_or_none, validator=time(20, 7 * DAY), kw_only=True
    )
    """For how long the topic drops messages with an id that it has seen: 20 s to 7 days; None: it does not."""
    time_to_live: Duration | None = attrs.field(
        default=None, converter=seconds_or_none, validator=time(1, LONGEST), kw_only=True
    )
    """After which a message is removed that nobody took; a subscription may say less."""
    max_size: Size | None = attrs.field(
        default=None, converter=as_bytes, validator=amount(GIB, 80 * GIB, GIB), kw_only=True
    )
    max_message_size: Size | None = attrs.field(
        default=None, converter=as_bytes, validator=amount(MIB, 100 * MIB, KIB), kw_only=True
    )
    partitioned: bool | None = attrs.field(default=None, validator=flag, kw_only=True)
    idle_ttl: Duration | None = attrs.field(
        default=None, converter=seconds_or_none, validator=time(5 * MINUTE, LONGEST), kw_only=True
    )
    declare: bool = attrs.field(default=True, validator=flag, kw_only=True)

    @name.validator
    def _check_name(self, _: Any, value: Any) -> None:
        check_name("topic", value)

    def __str__(self) -> str:
        return self.name


def topic_name(value: Any) -> Any:
    """A topic, or the name of one. Raises `ConfigurationError`."""
    if not isinstance(value, ServiceBusTopic):
        check_name("topic", value)
    return value


def _topic(_: Any, attribute: Any, value: Any) -> None:
    del attribute
    topic_name(value)


def _filter(_: Any, attribute: Any, value: Any) -> None:
    if value is not None and (not isinstance(value, str) or not value.strip()):
        raise ConfigurationError(f"{attribute.name}={value!r}: a condition, such as \"region = 'eu'\"")


@attrs.frozen
class ServiceBusSubscription(ServiceBusEntity):
    """A queue that gets a copy of what is sent to a topic: `ServiceBusSubscription("mail", topic="events")`.

    `filter` is a condition in the service's SQL over the properties of a message, such as `"region = 'eu'"`; without
    one all messages are let in. `subscription` is its name at the topic, that of the queue if it is not said. The
    other fields are those of `ServiceBusQueue`. Raises `ConfigurationError`.
    """

    topic: ServiceBusTopic | str = attrs.field(validator=_topic, kw_only=True)
    subscription: str = attrs.field(default=attrs.Factory(lambda self: self.name, takes_self=True), kw_only=True)
    filter: str | None = attrs.field(default=None, validator=_filter, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if not _SUBSCRIPTION.fullmatch(str(self.subscription)):
            raise ConfigurationError(
                f"{self._who}: subscription {self.subscription!r}: 1 to 50 ASCII letters, digits and . - _, with a "
                "letter or a digit at both ends; say another one by subscription=…"
            )
        if len(rule_text(self.subscription, self.filter)) > _LONGEST_FILTER:
            raise ConfigurationError(f"{self._who}: the filter is longer than the {_LONGEST_FILTER} characters of one")
        if not self.declare and self.filter is not None:
            raise ConfigurationError(
                f"{self._who}: declare=False means that it is somebody else's, and used as it is: leave the filter out"
            )

    @property
    def _who(self) -> str:
        return f"ServiceBusSubscription({self.name!r})"

    @property
    def topic_name(self) -> str:
        """The name of its topic."""
        return str(self.topic)


def rule_text(subscription: str, condition: str | None) -> str:
    """The filter of a subscription's rule: what is for it alone, and what is for all and meets the condition."""
    mine = f"camora_to = '{subscription}'"
    all_of_us = "camora_to IS NULL"
    return f"{mine} OR ({all_of_us} AND ({condition}))" if condition else f"{mine} OR {all_of_us}"


def path_of(topic: str, subscription: str) -> str:
    """What a subscription is called where one receives."""
    return f"{topic}{_BETWEEN}{subscription}"


def split(entity: str) -> tuple[str, str]:
    """Where to send what is for this entity, and for which subscription there; that is empty for a queue or a topic."""
    place = entity.lower().rfind(_BETWEEN.lower())
    if place < 0:
        return entity, ""
    return entity[:place], entity[place + len(_BETWEEN) :]
