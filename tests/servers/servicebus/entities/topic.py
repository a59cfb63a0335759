"""A topic: what is sent to it goes, as a copy, into each subscription of which a rule takes it."""

from __future__ import annotations

import math

import attrs

from tests.servers.servicebus.entities.entity import Entity
from tests.servers.servicebus.entities.errors import AlreadyExists, NotFound
from tests.servers.servicebus.entities.messages import Stored
from tests.servers.servicebus.entities.options import Rule, SubscriptionOptions, Tier
from tests.servers.servicebus.entities.sql import SqlError
from tests.servers.servicebus.entities.target import Target

__all__ = ["Subscription", "Topic"]


@attrs.define(eq=False)
class Subscription:
    """A subscription: an entity to receive from, and its rules by their names in small letters."""

    name: str
    entity: Entity
    rules: dict[str, Rule] = attrs.field(factory=dict)

    @property
    def options(self) -> SubscriptionOptions:
        options = self.entity.options
        assert isinstance(options, SubscriptionOptions)
        return options

    def add_rule(self, rule: Rule) -> None:
        """Raises `AlreadyExists`."""
        if rule.name.lower() in self.rules:
            raise AlreadyExists(f"{self.entity.path}: has a rule {rule.name!r}")
        self.rules[rule.name.lower()] = rule

    def rule(self, name: str) -> Rule:
        """Raises `NotFound`."""
        found = self.rules.get(name.lower())
        if found is None:
            raise NotFound(f"{self.entity.path}: has no rule {name!r}")
        return found

    def remove_rule(self, name: str) -> None:
        """Raises `NotFound`."""
        del self.rules[self.rule(name).name.lower()]

    def takes(self, stored: Stored) -> bool:
        """Whether a rule takes it: one copy, however many do. Raises `SqlError` if a rule cannot be decided."""
        return any(rule.filter.matches(stored.incoming) for rule in self.rules.values())


class Topic(Target):
    """A topic to send to. Its entity keeps only what is scheduled: rules decide when that is due."""

    def __init__(self, entity: Entity, tier: Tier) -> None:
        super().__init__(entity, tier)
        self.subscriptions: dict[str, Subscription] = {}
        entity.onward = self._fan_out

    def stored_size(self) -> int:
        """A message counts once, however many subscriptions have a copy: the fullest says how much there is."""
        fullest = max((each.entity.whole_size() for each in self.subscriptions.values()), default=0)
        return self.entity.size + fullest

    def _fan_out(self, stored: Stored) -> None:
        now = stored.enqueued
        left = math.inf if stored.expires == math.inf else stored.expires - now
        for subscription in self.subscriptions.values():
            entity = subscription.entity
            if not subscription.options.can_send():
                continue
            try:
                takes = subscription.takes(stored)
            except SqlError as error:
                if subscription.options.dead_lettering_on_filter_errors:
                    entity.refuse(entity.numbered(stored), "FilterEvaluationException", str(error))
                continue
            if not takes:
                continue
            if subscription.options.requires_session and stored.session_id is None:
                text = "Session enabled entity doesn't allow a message whose session identifier is null."
                entity.refuse(entity.numbered(stored), "Session ID is null", text)
            else:
                entity.admit(stored.incoming, now, left, stored)
