"""What an app wants of the service: the entities of its queues."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import camora.queue

from camora_servicebus.description import ServiceBusQueue
from camora_servicebus.differences import Wanted
from camora_servicebus.names import Names
from camora_servicebus.properties import KINDS
from camora_servicebus.store import Store
from camora_servicebus.topics import ServiceBusSubscription, ServiceBusTopic, rule_text, split

__all__ = ["wanted_of_app", "wanted_of_store"]

_NAMED = ("forward_to", "forward_dead_letters_to")


def wanted_of_app(app: Any) -> list[Wanted]:
    """The entities of all queues of an app whose broker is one of Service Bus, and of its tasks' topics."""
    app.broker.declare(app.queues)
    names = {*app.tasks.queues(), *(queue.name for queue in app.queues)}
    for task in app.tasks:
        if (topic := (task.owned or {}).get("topic")) is not None:
            app.broker.database.topic(topic)
    settings = app.worker_settings
    return wanted_of_store(app.broker.database, names, max_deliveries=settings.max_deliveries if settings else 0)


def wanted_of_store(store: Store, names: Iterable[str], *, max_deliveries: int = 0) -> list[Wanted]:
    """The entities of these queues, where workers take a message so often before it is poison; and all topics."""
    otherwise: Mapping[str, Any] = {
        "lock_duration": store.settings.lock_duration,
        # The service must not give up before the worker does.
        "max_delivery_count": max(store.settings.max_delivery_count, 2 * max_deliveries),
        "dead_letter_expired": True,
    }
    topics = [_topic(topic, store.names) for _, topic in sorted(store.topics.items())]
    return topics + [
        _wanted(store.queues.get(name) or camora.queue.Queue(name), store.names, otherwise)
        for name in sorted(set(names))
    ]


def _topic(topic: ServiceBusTopic | str, names: Names) -> Wanted:
    path = (names.topic(str(topic)),)
    if not isinstance(topic, ServiceBusTopic):
        return Wanted(kind="topic", name=topic, path=path)
    return Wanted(kind="topic", name=topic.name, path=path, said=_said("topic", topic, names), ours=topic.declare)


def _wanted(queue: camora.queue.Queue, names: Names, otherwise: Mapping[str, Any]) -> Wanted:
    entity = names.queue(queue.name)
    if isinstance(queue, ServiceBusSubscription):
        said = _said("subscription", queue, names)
        if queue.declare:
            said["filter"] = rule_text(queue.subscription, queue.filter)
        return Wanted(
            kind="subscription", name=queue.name, path=split(entity), said=said, otherwise=otherwise, ours=queue.declare
        )
    if not isinstance(queue, ServiceBusQueue):
        # A plain one says nothing but that it has no sessions.
        return Wanted(kind="queue", name=queue.name, path=(entity,), said={"sessions": False}, otherwise=otherwise)
    said = _said("queue", queue, names)
    return Wanted(kind="queue", name=queue.name, path=(entity,), said=said, otherwise=otherwise, ours=queue.declare)


def _said(kind: str, declared: Any, names: Names) -> dict[str, Any]:
    said = {one.name: getattr(declared, one.name, None) for one in KINDS[kind].properties}
    return {name: names.queue(value) if name in _NAMED else value for name, value in said.items() if value is not None}
