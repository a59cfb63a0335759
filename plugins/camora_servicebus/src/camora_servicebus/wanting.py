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

__all__ = ["wanted_of_app", "wanted_of_store"]

_NAMED = ("forward_to", "forward_dead_letters_to")


def wanted_of_app(app: Any) -> list[Wanted]:
    """The entities of all queues of an app whose broker is one of Service Bus."""
    app.broker.declare(app.queues)
    names = {*app.tasks.queues(), *(queue.name for queue in app.queues)}
    settings = app.worker_settings
    return wanted_of_store(app.broker.database, names, max_deliveries=settings.max_deliveries if settings else 0)


def wanted_of_store(store: Store, names: Iterable[str], *, max_deliveries: int = 0) -> list[Wanted]:
    """The entities of these queues, where workers take a message so often before it is poison."""
    otherwise: Mapping[str, Any] = {
        "lock_duration": store.settings.lock_duration,
        # The service must not give up before the worker does.
        "max_delivery_count": max(store.settings.max_delivery_count, 2 * max_deliveries),
        "dead_letter_expired": True,
    }
    return [
        _wanted(store.queues.get(name) or camora.queue.Queue(name), store.names, otherwise)
        for name in sorted(set(names))
    ]


def _wanted(queue: camora.queue.Queue, names: Names, otherwise: Mapping[str, Any]) -> Wanted:
    path = (names.queue(queue.name),)
    if not isinstance(queue, ServiceBusQueue):
        # A plain one says nothing but that it has no sessions.
        return Wanted(kind="queue", name=queue.name, path=path, said={"sessions": False}, otherwise=otherwise)
    said = {one.name: getattr(queue, one.name) for one in KINDS["queue"].properties}
    said = {name: names.queue(value) if name in _NAMED else value for name, value in said.items() if value is not None}
    return Wanted(kind="queue", name=queue.name, path=path, said=said, otherwise=otherwise, ours=queue.declare)
