"""Pausing, resuming, counting and emptying queues, as an app's users meet it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from camora.clock import Clock
from camora.connections import Connections
from camora.events import EventBus
from camora.interfaces.observer import QueuePaused, QueueResumed
from camora.options import check_name

__all__ = ["QueueControl"]


class QueueControl:
    """Works on the broker's queues; raises `UnsupportedCapability` for what it cannot do, and `BrokerUnavailable`."""

    def __init__(self, connections: Connections, events: EventBus, clock: Clock) -> None:
        self._connections = connections
        self._events = events
        self._clock = clock

    async def counts(self) -> Mapping[str, Mapping[str, int]]:
        """For each queue that holds anything: how many messages are in which state."""
        return await (await self._connections.get()).broker.queues.counts()

    async def paused(self) -> Sequence[str]:
        """The names of all paused queues."""
        return await (await self._connections.get()).broker.queues.paused()

    async def pause(self, queue: str) -> None:
        """Hand out none of this queue's jobs, to any worker, until resumed; what runs goes on."""
        await (await self._connections.get()).broker.queues.pause(check_name("queue", queue))
        self._events.emit(QueuePaused(at=self._clock.now_ms(), queue=queue))

    async def resume(self, queue: str) -> None:
        """Hand them out again."""
        await (await self._connections.get()).broker.queues.pause(check_name("queue", queue), paused=False)
        self._events.emit(QueueResumed(at=self._clock.now_ms(), queue=queue))

    async def purge(self, queue: str) -> int:
        """Delete all waiting jobs of a queue for good; returns how many."""
        return await (await self._connections.get()).broker.queues.purge(check_name("queue", queue))
