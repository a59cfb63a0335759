"""What schedules and schedulers share of an app."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import attrs

from camora.clock import Clock
from camora.connections import Connection, Connections
from camora.errors import UnsupportedCapability
from camora.events import EventBus
from camora.interfaces.codec import Codec
from camora.interfaces.schedule import ScheduleStore
from camora.message import Envelope, Message
from camora.plugins import Catalog

__all__ = ["ScheduleParts"]

Publish = Callable[[Message], Awaitable[Message]]


@attrs.frozen(kw_only=True)
class ScheduleParts:
    """The app's own; `app` is its name. `publish`: how the app sends a message, through its middleware."""

    connections: Connections
    codec: Codec
    clock: Clock
    catalog: Catalog
    events: EventBus
    app: str
    publish: Publish | None

    async def connection(self) -> Connection:
        """What is open in this loop."""
        return self.connections.ready() or await self.connections.get()

    async def store(self) -> ScheduleStore:
        """This loop's store of schedules. Raises `UnsupportedCapability` when the stack keeps none."""
        connection = await self.connection()
        store = await connection.schedules()
        if store is None:
            raise UnsupportedCapability(
                f"neither {connection.broker!r} nor the result backend keeps schedules; use one that does for either, "
                "such as sqlite:///camora.db (camora-sql)",
                capability="schedules",
            )
        return store

    async def send(self, message: Message) -> str:
        """Publish a message; the id that stands for it. Raises `DispatchError`s."""
        if self.publish is not None:
            return (await self.publish(message)).id
        connection = await self.connection()
        [job_id] = await connection.broker.publish([_envelope(message, self.codec.encode(message))])
        return job_id


def _envelope(message: Message, body: bytes) -> Envelope:
    return Envelope(
        id=message.id,
        task=message.task,
        queue=message.queue,
        body=body,
        due=message.due,
        expires=message.expires,
        priority=message.priority,
        key=message.key,
        key_ttl=message.key_ttl,
    )
