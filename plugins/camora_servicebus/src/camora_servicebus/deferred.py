"""Deferred jobs: set aside in their queue by the job itself, until somebody calls for them by their sequence number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import attrs
from azure.servicebus import ServiceBusMessageState
from camora.errors import UnsupportedCapability

from camora_servicebus.handles import Handles, NoEntity, NoMessage
from camora_servicebus.messages import Outgoing, job_id_of, task_of
from camora_servicebus.peeking import peeked
from camora_servicebus.publishing import Publisher
from camora_servicebus.store import Store

__all__ = ["Deferred", "DeferredJob"]


@attrs.frozen(kw_only=True)
class DeferredJob:
    """A job that was set aside. `since` is when its message was put into its queue, in milliseconds since the epoch."""

    id: str
    task: str
    queue: str
    sequence_number: int
    since: int


class Deferred:
    """Jobs that have raised `Defer`. All methods do I/O, may be repeated, and raise `BrokerUnavailable`.

    In a queue with sessions they can be listed; the others raise `UnsupportedCapability`.
    """

    def __init__(self, store: Store, handles: Handles, publisher: Publisher) -> None:
        self._store = store
        self._handles = handles
        self._publisher = publisher

    async def list(self, queue: str) -> Sequence[DeferredJob]:
        """All of one queue, in order of their sequence numbers: the whole queue is looked through."""
        return [
            DeferredJob(
                id=job_id_of(message),
                task=task_of(message),
                queue=queue,
                sequence_number=message.sequence_number,
                since=round(message.enqueued_time_utc.timestamp() * 1000) if message.enqueued_time_utc else 0,
            )
            async for message in peeked(self._handles, self._store.names.queue(queue))
            if message.state == ServiceBusMessageState.DEFERRED
        ]

    async def resume(self, queue: str, sequence_number: int) -> bool:
        """Have it run, now: a copy is put into its queue, and it is deleted. Killed between, it runs, and stays.

        False where there is no such deferred job.
        """
        return await self._take(queue, sequence_number, resume=True)

    async def drop(self, queue: str, sequence_number: int) -> bool:
        """Delete it for good. False where there is no such deferred job."""
        return await self._take(queue, sequence_number, resume=False)

    async def _take(self, queue: str, sequence_number: int, *, resume: bool) -> bool:
        entity = self._store.names.queue(queue)
        if self._store.has_sessions(queue):
            raise UnsupportedCapability(
                f"queue {queue!r} has sessions: what was deferred there comes only to who holds its session, and no "
                "worker asks for it. Let such jobs wait in a queue without sessions",
                capability="deferral",
            )
        sent = False

        async def work(receiver: Any) -> bool:
            nonlocal sent
            found = await receiver.receive_deferred_messages([sequence_number], timeout=self._handles.timeout)
            for message in found:
                if resume and not sent:
                    await self._publisher.publish([Outgoing.again(message, entity)])
                    sent = True
                await receiver.complete_message(message)
            return bool(found)

        try:
            return await self._handles.use("look", entity, work) or sent
        except (NoEntity, NoMessage):
            return sent
