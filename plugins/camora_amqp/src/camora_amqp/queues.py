"""What can be seen and done of queues over AMQP: their lengths, and emptying them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

import aiormq.exceptions
from camora.errors import BrokerUnavailable, UnsupportedCapability
from camora.interfaces.queues import CancelResult, QueuedJob, Queues

from camora_amqp.control import Control
from camora_amqp.store import Store

__all__ = ["AmqpQueues"]


class AmqpQueues(Queues):
    """RabbitMQ hands messages out and does not show them: what would need a look at them is refused."""

    def __init__(self, store: Store, control: Control, who: str) -> None:
        self._store = store
        self._control = control
        self._who = who

    async def counts(self) -> Mapping[str, Mapping[str, int]]:
        """How many messages wait in each queue that is known here; the dead letters of all queues are one number.

        Those that workers hold, or that are not due yet, are not counted.
        """
        found: dict[str, Mapping[str, int]] = {}
        topology = self._store.topology
        for name in sorted(topology.seen | topology.queues.keys()):
            count = await self._length(self._store.names.queue(name))
            if count:
                found[name] = {"ready": count}
        if dead := await self._length(self._store.names.dead):
            found[self._store.names.dead] = {"dead": dead}
        return found

    async def _length(self, name: str) -> int:
        try:
            # A channel for each: asking for a queue that does not exist closes it.
            async with self._control.channel() as channel:
                told = await channel.queue_declare(queue=name, passive=True)
        except BrokerUnavailable as error:
            if isinstance(error.__cause__, aiormq.exceptions.ChannelNotFoundEntity):
                return 0
            raise
        return int(told.message_count or 0)

    async def find(self, job_id: str) -> QueuedJob | None:
        """Refused."""
        self._refuse(f"look for job {job_id!r}", "inspect")

    async def list(self, queue: str, *, limit: int = 100, after: str = "") -> Sequence[QueuedJob]:
        """Refused."""
        del limit, after
        self._refuse(f"list the jobs of queue {queue!r}", "inspect")

    async def cancel(self, job_id: str) -> CancelResult:
        """Refused."""
        self._refuse(f"cancel job {job_id!r}", "cancel")

    async def pause(self, queue: str, *, paused: bool = True) -> None:
        """Refused."""
        self._refuse(f"{'pause' if paused else 'resume'} queue {queue!r}", "pause")

    async def paused(self) -> Sequence[str]:
        """Refused."""
        self._refuse("say which queues are paused", "pause")

    def _refuse(self, what: str, capability: str) -> NoReturn:
        raise UnsupportedCapability(
            f"{self._who} cannot {what}: RabbitMQ does not show what is in a queue, and hands it out as long as "
            "anybody listens. A broker in Redis or a database can (camora-redis, camora-sql)",
            capability=capability,
        )

    async def purge(self, queue: str) -> int:
        """Delete what is ready; what is not due yet stays."""
        try:
            async with self._control.channel() as channel:
                told = await channel.queue_purge(queue=self._store.names.queue(queue))
        except BrokerUnavailable as error:
            if isinstance(error.__cause__, aiormq.exceptions.ChannelNotFoundEntity):
                return 0
            raise
        return int(told.message_count or 0)
