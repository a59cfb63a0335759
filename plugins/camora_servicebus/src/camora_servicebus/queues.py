"""What can be seen and done of queues: their lengths, emptying them, and calling off what is not due yet."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from azure.servicebus import ServiceBusMessageState
from camora.errors import BrokerUnavailable, UnsupportedCapability
from camora.interfaces.queues import CancelResult, QueuedJob, Queues

from camora_servicebus.counting import Counting
from camora_servicebus.dead_letters import known
from camora_servicebus.handles import Handles, NoEntity, NoMessage
from camora_servicebus.messages import job_id_of
from camora_servicebus.peeking import peeked, peeked_of
from camora_servicebus.store import Store
from camora_servicebus.taking import Taken, take

__all__ = ["ServiceBusQueues"]

_MOST = 10_000
"""So many messages of one queue are counted by looking at them, where the service does not tell how many there are."""
_TRIES = 3
_BLUR = 10_000
"""Milliseconds by which our clock may differ from the service's."""
_LONGEST = 3600.0

_STATES = {ServiceBusMessageState.ACTIVE: "ready", ServiceBusMessageState.SCHEDULED: "scheduled"}


class ServiceBusQueues(Queues):
    """Messages can be looked at, but not whether a worker has them: what would need that is refused."""

    def __init__(self, store: Store, handles: Handles, counting: Counting, who: str) -> None:
        self._store = store
        self._handles = handles
        self._counting = counting
        self._who = who

    async def counts(self) -> Mapping[str, Mapping[str, int]]:
        """For each queue that is known here: how many are ready (those that workers hold, too), scheduled and dead.

        With Manage rights the service counts; else messages are looked at, up to 10,000 of each queue.
        """
        found: dict[str, Mapping[str, int]] = {}
        for queue in known(self._store):
            entity = self._store.names.queue(queue)
            counts = await self._counting.of(entity)
            if counts is None:
                counts = await self._counted(entity)
            if counts := {state: number for state, number in counts.items() if number}:
                found[queue] = counts
        return found

    async def _counted(self, entity: str) -> dict[str, int]:
        counts: Counter[str] = Counter()
        async for message in peeked(self._handles, entity, most=_MOST):
            if state := _STATES.get(message.state):
                counts[state] += 1
        async for _ in peeked(self._handles, entity, dead=True, most=_MOST):
            counts["dead"] += 1
        return dict(counts)

    async def cancel(self, job_id: str) -> CancelResult:
        """Take back a job that is not due yet. Raises `UnsupportedCapability` for any other."""
        if (known_here := self._store.scheduled.take(job_id)) is not None and await self._called_off(*known_here):
            return CancelResult.REMOVED
        removed = False
        entities = [self._store.names.queue(queue) for queue in known(self._store)]
        # One that was stored twice, since nobody knew whether it was stored, is one job.
        async for entity, message in peeked_of(self._handles, entities):
            if message.state == ServiceBusMessageState.SCHEDULED and job_id_of(message) == job_id:
                removed |= await self._called_off(entity, message.sequence_number, _due(message))
        if removed:
            return CancelResult.REMOVED
        raise UnsupportedCapability(
            f"{self._who}: job {job_id!r} does not wait for its time in any queue that is known here, and Azure "
            "Service Bus takes back nothing else: it may wait for a worker, run, have ended, or never have been. A "
            "broker in Redis or a database can cancel those, too (camora-redis, camora-sql)",
            capability="cancel",
        )

    async def _called_off(self, entity: str, number: int, due: int) -> bool:
        """Whether the service has taken it back: it never comes then."""

        async def call_off(sender: Any) -> None:
            await sender.cancel_scheduled_messages(number, timeout=self._handles.timeout)

        doubtful = False
        for _ in range(_TRIES):
            try:
                await self._handles.use("send", entity, call_off, once=True)
            except (NoMessage, NoEntity):
                # After a try whose answer was lost it is gone, because we took it, or because it has come due.
                if not doubtful:
                    return False
                if time.time() * 1000 < due - _BLUR:
                    return True
                break
            except BrokerUnavailable:
                doubtful = True
            else:
                return True
        raise BrokerUnavailable(f"{self._who}: nobody knows whether message {number} of {entity!r} was taken back")

    async def purge(self, queue: str) -> int:
        """Delete what is ready or scheduled now; what workers hold, and what was deferred, stays."""
        entity = self._store.names.queue(queue)
        if self._store.has_sessions(queue):
            raise UnsupportedCapability(
                f"{self._who} cannot empty queue {queue!r}: it has sessions, and what workers keep in them would stay. "
                "Stop its workers, delete it in the namespace, and make it again by camora servicebus apply",
                capability="purge",
            )
        removed = 0
        async for message in peeked(self._handles, entity):
            if message.state == ServiceBusMessageState.SCHEDULED:
                removed += await self._called_off(entity, message.sequence_number, _due(message))

        async def work(receiver: Any) -> Taken:
            return await take(
                receiver,
                lambda _: True,
                another=lambda: self._handles.another("take", entity),
                timeout=self._handles.timeout,
                patient=False,
            )

        try:
            return removed + (await self._handles.use("take", entity, work, seconds=_LONGEST)).count
        except NoEntity:
            return removed
        finally:
            self._handles.drop("take", entity)

    async def find(self, job_id: str) -> QueuedJob | None:
        """Refused."""
        self._refuse(f"look for job {job_id!r}", "inspect")

    async def list(self, queue: str, *, limit: int = 100, after: str = "") -> Sequence[QueuedJob]:
        """Refused."""
        del limit, after
        self._refuse(f"list the jobs of queue {queue!r}", "inspect")

    async def pause(self, queue: str, *, paused: bool = True) -> None:
        """Refused."""
        self._refuse(f"{'pause' if paused else 'resume'} queue {queue!r}", "pause")

    async def paused(self) -> Sequence[str]:
        """Refused."""
        self._refuse("say which queues are paused", "pause")

    def _refuse(self, what: str, capability: str) -> NoReturn:
        raise UnsupportedCapability(
            f"{self._who} cannot {what}: Azure Service Bus does not tell which messages workers hold, and hands them "
            "out as long as anybody listens. A broker in Redis or a database can (camora-redis, camora-sql)",
            capability=capability,
        )


def _due(message: Any) -> int:
    moment = message.scheduled_enqueue_time_utc
    return 0 if moment is None else round(moment.timestamp() * 1000)
