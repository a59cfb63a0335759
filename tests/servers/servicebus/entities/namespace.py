"""A namespace: its queues, topics and subscriptions by name, kept in a journal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs

from tests.servers.servicebus.entities.entity import Entity
from tests.servers.servicebus.entities.errors import (
    AlreadyExists,
    EntityError,
    InvalidArgument,
    NotAllowed,
    NotFound,
)
from tests.servers.servicebus.entities.ground import Ground
from tests.servers.servicebus.entities.journal import Journal, Record
from tests.servers.servicebus.entities.messages import Stored
from tests.servers.servicebus.entities.options import TIERS, QueueOptions, Rule, SubscriptionOptions, TopicOptions
from tests.servers.servicebus.entities.target import Target
from tests.servers.servicebus.entities.topic import Subscription, Topic

__all__ = ["Namespace", "Times"]

DEAD = "$DeadLetterQueue"
TRANSFER = "$Transfer"
MAX_HOPS = 4  # "Chaining Service Bus entities with auto-forwarding"
_fixed = ("requires_session", "requires_duplicate_detection", "enable_partitioning")


def _silent(event: dict[str, Any]) -> None:
    """Nobody listens."""


@attrs.define
class Times:
    """When a thing was made and changed: seconds since 1970."""

    created: float
    updated: float


class Namespace:
    """All entities of a namespace. Single-threaded; nothing happens between calls: see `next_due` and `tick`.

    With a `journal` all is there again after a crash, locks too: they are the broker's. `tell` gets each event.
    Names are compared without their case.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        journal: Path | None = None,
        tell: Callable[[dict[str, Any]], None] = _silent,
        tier: str = "standard",
    ) -> None:
        self.tier = TIERS[tier]
        self.ground = Ground(clock, Journal(journal), tell)
        self.created = clock()
        self.times: dict[str, Times] = {}
        self._targets: dict[str, Target] = {}
        self._entities: dict[str, Entity] = {}
        self._restore()

    def close(self) -> None:
        """Close the journal's file."""
        self.ground.journal.close()

    # What there is

    def entity(self, path: str) -> Entity:
        """What one can receive from. Raises `NotFound`."""
        found = self._entities.get(_key(path))
        if found is None:
            raise NotFound(f"{path}: there is no such queue or subscription")
        return found

    def target(self, path: str) -> Target:
        """What one can send to. Raises `NotFound`."""
        found = self._targets.get(_key(path))
        if found is None:
            raise NotFound(f"{path}: there is no such queue or topic")
        return found

    def topic(self, name: str) -> Topic:
        """Raises `NotFound`."""
        found = self._targets.get(_key(name))
        if not isinstance(found, Topic):
            raise NotFound(f"{name}: there is no such topic")
        return found

    def subscription(self, topic: str, name: str) -> Subscription:
        """Raises `NotFound`."""
        found = self.topic(topic).subscriptions.get(name.lower())
        if found is None:
            raise NotFound(f"{topic}: has no subscription {name!r}")
        return found

    def queues(self) -> list[Target]:
        """By name."""
        return [found for _, found in sorted(self._targets.items()) if not isinstance(found, Topic)]

    def topics(self) -> list[Topic]:
        """By name."""
        return [found for _, found in sorted(self._targets.items()) if isinstance(found, Topic)]

    def times_of(self, path: str) -> Times:
        """Of a queue, of a topic, or of "topic/name" for a subscription. Raises `NotFound`."""
        found = self.times.get(_key(path))
        if found is None:
            raise NotFound(f"{path}: there is no such thing")
        return found

    def entities(self) -> Iterator[Entity]:
        """All that one can receive from, dead-letter queues too."""
        return iter(list(self._entities.values()))

    # Making and changing

    def create_queue(self, name: str, options: QueueOptions | None = None) -> None:
        """Raises `AlreadyExists`, `InvalidArgument`, `NotAllowed`."""
        options = options or QueueOptions()
        self._check_new(name, 260)
        options.check(self.tier)
        self._make_queue(name, options)
        self._written("queue", name, options)

    def create_topic(self, name: str, options: TopicOptions | None = None) -> None:
        """Raises the same."""
        options = options or TopicOptions()
        self._check_new(name, 260)
        options.check(self.tier)
        self._make_topic(name, options)
        self._written("topic", name, options)

    def create_subscription(self, topic: str, name: str, options: SubscriptionOptions | None = None) -> None:
        """Raises the same, and `NotFound` without the topic."""
        options = options or SubscriptionOptions()
        options.check(self.tier)
        found = self.topic(topic)
        if not 0 < len(name) <= 50:
            raise InvalidArgument(f"{name!r}: a name has 1 to 50 characters")
        if name.lower() in found.subscriptions:
            raise AlreadyExists(f"{topic}: has a subscription {name!r}")
        self._make_subscription(topic, name, options)
        self._written("subscription", f"{found.path}/{name}", options)
        self.add_rule(topic, name, attrs.evolve(options.default_rule, created=self.ground.clock()))

    def update_queue(self, name: str, options: QueueOptions) -> None:
        """Raises `NotFound`, `InvalidArgument`, and `NotAllowed` for what cannot be changed later."""
        target = self.target(name)
        if isinstance(target, Topic):
            raise NotFound(f"{name}: is a topic, not a queue")
        self._update(target.entity, options)
        self._written("queue", name, options)

    def update_topic(self, name: str, options: TopicOptions) -> None:
        """Raises the same."""
        self._update(self.topic(name).entity, options)
        self._written("topic", name, options)

    def update_subscription(self, topic: str, name: str, options: SubscriptionOptions) -> None:
        """Raises the same."""
        subscription = self.subscription(topic, name)
        self._update(subscription.entity, options)
        self._written("subscription", f"{self.topic(topic).path}/{subscription.name}", options)

    def delete_queue(self, name: str) -> None:
        """With all its messages. Raises `NotFound`."""
        target = self.target(name)
        if isinstance(target, Topic):
            raise NotFound(f"{name}: is a topic, not a queue")
        self._remove(name)

    def delete_topic(self, name: str) -> None:
        """With its subscriptions. Raises `NotFound`."""
        self.topic(name)
        self._remove(name)

    def delete_subscription(self, topic: str, name: str) -> None:
        """Raises `NotFound`."""
        subscription = self.subscription(topic, name)
        self._remove(f"{self.topic(topic).path}/{subscription.name}")

    def add_rule(self, topic: str, subscription: str, rule: Rule) -> None:
        """Raises `NotFound`, `AlreadyExists`."""
        found = self.subscription(topic, subscription)
        found.add_rule(rule)
        self.ground.journal.append(("rule", topic, subscription, rule))
        self.ground.done()

    def update_rule(self, topic: str, subscription: str, rule: Rule) -> None:
        """Raises `NotFound`."""
        found = self.subscription(topic, subscription)
        created = found.rule(rule.name).created
        found.rules[rule.name.lower()] = rule = attrs.evolve(rule, created=created)
        self.ground.journal.append(("rule", topic, subscription, rule))
        self.ground.done()

    def remove_rule(self, topic: str, subscription: str, name: str) -> None:
        """Raises `NotFound`."""
        self.subscription(topic, subscription).remove_rule(name)
        self.ground.journal.append(("unrule", topic, subscription, name))
        self.ground.done()

    # Time

    def next_due(self) -> float | None:
        """When something will change by itself, in the clock's time."""
        return self.ground.deadlines.first()

    def tick(self) -> None:
        """Apply all that has come due, in all entities; those who listen are called."""
        now = self.ground.clock()
        while (first := self.ground.deadlines.first()) is not None and first <= now:
            for member in list(self.ground.deadlines.due(now)):
                member.advance()

    # Inside

    def _check_new(self, name: str, length: int) -> None:
        if not 0 < len(name) <= length:
            raise InvalidArgument(f"{name!r}: a name has 1 to {length} characters")
        if "$" in name or name.strip("/") != name:
            raise InvalidArgument(f"{name!r}: a name has no $, and no / at its ends")
        if _key(name) in self._targets:
            raise AlreadyExists(f"{name}: there is a queue or topic of this name")

    def _written(self, kind: str, path: str, options: Any) -> None:
        now = self.ground.clock()
        times = self.times.setdefault(_key(path), Times(now, now))
        times.updated = now
        self.ground.journal.append(("make", kind, path, options, times.created, now))
        self.ground.done()

    def _make_entity(self, path: str, options: Any) -> Entity:
        """With its dead-letter queues, and where its messages go on to."""
        dead = Entity(self.ground, f"{path}/{DEAD}", options)
        transfer_dead = Entity(self.ground, f"{path}/{TRANSFER}/{DEAD}", options)
        entity = Entity(self.ground, path, options, dead=dead, transfer_dead=transfer_dead)
        for each in (entity, dead, transfer_dead):
            self._entities[_key(each.path)] = each
        self._connect(entity)
        return entity

    def _make_queue(self, name: str, options: QueueOptions) -> None:
        self._targets[_key(name)] = Target(self._make_entity(name, options), self.tier)

    def _make_topic(self, name: str, options: TopicOptions) -> None:
        self._targets[_key(name)] = Topic(Entity(self.ground, name, options), self.tier)

    def _make_subscription(self, topic: str, name: str, options: SubscriptionOptions) -> None:
        found = self.topic(topic)
        entity = self._make_entity(f"{found.path}/Subscriptions/{name}", options)
        found.subscriptions[name.lower()] = Subscription(name, entity)

    def _update(self, entity: Entity, options: Any) -> None:
        options.check(self.tier)
        entity.advance()
        for name in _fixed:
            if getattr(options, name, None) != getattr(entity.options, name, None):
                raise NotAllowed(f"{entity.path}: {name} cannot be changed; delete and create it again")
        self._set_options(entity, options)

    def _set_options(self, entity: Entity, options: Any) -> None:
        for each in (entity, entity.dead, entity.transfer_dead):
            if each is not None:
                each.options = options
                self.ground.touch(each, woken=True)
        if entity.dead is not None:
            self._connect(entity)

    def _connect(self, entity: Entity) -> None:
        assert entity.dead is not None
        for source, name in ((entity, "forward_to"), (entity.dead, "forward_dead_lettered_to")):
            if getattr(entity.options, name):
                source.onward = _Forwarding(self, entity, name)
                source.send_all_on()
            else:
                source.onward = None

    def _remove(self, path: str) -> None:
        self._forget(path)
        self.ground.journal.append(("remove", path))
        self.ground.done()

    def _forget(self, path: str) -> None:
        self.times.pop(_key(path), None)
        target = self._targets.pop(_key(path), None)
        if isinstance(target, Topic):
            for subscription in list(target.subscriptions.values()):
                self._forget_entity(subscription.entity)
            self.ground.forget(target.entity)
        elif target is not None:
            self._forget_entity(target.entity)
        else:
            topic, _, name = path.rpartition("/")
            self._forget_entity(self.topic(topic).subscriptions.pop(name.lower()).entity)

    def _forget_entity(self, entity: Entity) -> None:
        for each in (entity, entity.dead, entity.transfer_dead):
            if each is not None:
                del self._entities[_key(each.path)]
                self.ground.forget(each)
                each.end()

    # The journal

    def _restore(self) -> None:
        for record in self.ground.journal.read():
            self._replay(record)
        self.ground.journal.begin(self._records())
        self.ground.done()
        for target in self._targets.values():
            target.history.forget(self.ground.clock())

    def _replay(self, record: Record) -> None:
        kind, path, *rest = record
        if kind == "make":
            self._remake(path, *rest)
        elif kind == "remove":
            self._forget(path)
        elif kind == "rule":
            rule = rest[1]
            self.subscription(path, rest[0]).rules[rule.name.lower()] = rule
        elif kind == "unrule":
            self.subscription(path, rest[0]).remove_rule(rest[1])
        elif kind == "seen":
            self.target(path).history.remember(*rest)
        else:
            entity = self._entities.get(_key(path)) or self.topic(path).entity
            entity.replay(record)

    def _remake(self, kind: str, path: str, options: Any, created: float, updated: float) -> None:
        known = _key(path) in self.times
        self.times[_key(path)] = Times(created, updated)
        topic, _, name = path.rpartition("/")
        if kind == "subscription":
            if known:
                self._set_options(self.subscription(topic, name).entity, options)
            else:
                self._make_subscription(topic, name, options)
        elif known:
            self._set_options(self._targets[_key(path)].entity, options)
        elif kind == "queue":
            self._make_queue(path, options)
        else:
            self._make_topic(path, options)

    def _records(self) -> Iterator[Record]:
        """What brings an empty namespace to where this one is."""
        for target in self._targets.values():
            kind = "topic" if isinstance(target, Topic) else "queue"
            yield self._record_of(kind, target.path, target.options)
            for identity, until in target.history:
                yield ("seen", target.path, identity, until)
            if not isinstance(target, Topic):
                continue
            yield from target.entity.records()
            for subscription in target.subscriptions.values():
                path = f"{target.path}/{subscription.name}"
                yield self._record_of("subscription", path, subscription.options)
                for rule in subscription.rules.values():
                    yield ("rule", target.path, subscription.name, rule)
        for entity in self._entities.values():
            yield from entity.records()

    def _record_of(self, kind: str, path: str, options: Any) -> Record:
        times = self.times[_key(path)]
        return ("make", kind, path, options, times.created, times.updated)


class _Forwarding:
    """Where an entity's messages, or its dead letters, go instead of staying."""

    def __init__(self, namespace: Namespace, entity: Entity, option: str) -> None:
        self.namespace = namespace
        self.entity = entity
        self.option = option

    def __call__(self, stored: Stored) -> None:
        destination = getattr(self.entity.options, self.option)
        now = self.namespace.ground.clock()
        stored.hops += 1
        if stored.hops > MAX_HOPS:
            text = f"Forwarded {MAX_HOPS} times already; {destination} would be one more."
            self.entity.refuse_transfer(stored, "MaxTransferHopCountExceeded", text)
            return
        try:
            self.namespace.target(destination).forwarded(stored, now)
        except EntityError as error:
            self.entity.refuse_transfer(stored, type(error).__name__, str(error))


def _key(path: str) -> str:
    return path.strip("/").lower()
