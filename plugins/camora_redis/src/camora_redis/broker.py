"""The Redis broker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Self

from camora.errors import BrokerUnavailable, ConfigurationError, DispatchUncertain
from camora.interfaces.broker import Broker, BrokerState, Consumer, ConsumerSettings
from camora.interfaces.capabilities import Capabilities, Support
from camora.interfaces.dead_letters import DeadLetters
from camora.interfaces.journal import Journal
from camora.interfaces.limits import Limits
from camora.interfaces.queues import Queues
from camora.interfaces.results import ResultBackend
from camora.interfaces.schedule import ScheduleStore
from camora.interfaces.workers import WorkerDirectory
from camora.interfaces.workflows import WorkflowStore
from camora.message import Envelope
from camora.queue import Queue
from camora.settings import mask_url

from camora_redis.calling import answered
from camora_redis.consumer import RedisConsumer
from camora_redis.dead_letters import RedisDeadLetters
from camora_redis.errors import ConnectionLost, ServerError, unavailable
from camora_redis.kinds import ListQueue, PubSubQueue
from camora_redis.link import Link
from camora_redis.merging import Merger
from camora_redis.opening import check_server, warn_of_risks
from camora_redis.queues import RedisQueues
from camora_redis.roll import Roll
from camora_redis.sending import send
from camora_redis.settings import RedisSettings
from camora_redis.store import Store

__all__ = ["RedisBroker"]

_KNOWN_FOR = 5.0
"""Seconds after which a queue is made known again: a server that loses its data loses the names, too."""
_LARGEST = 500 * 1024 * 1024
"""Bytes: a server takes no more than 512 MiB in one piece."""


class RedisBroker(Broker):
    """Messages in streams of Redis or Valkey that any number of processes share.

    Made of a URL, or of a client of the redis library's (`redis.asyncio.Redis`, also of a Sentinel's, or
    `redis.asyncio.RedisCluster`), whose address and options it uses for connections of its own. `stream`, `group` and
    `failure_stream` name what the queue `default` is kept in. Raises `ConfigurationError` for what cannot be.
    """

    def __init__(
        self,
        stream: str | None = None,
        group: str | None = None,
        failure_stream: str | None = None,
        *,
        client: Any = None,
        url: str | None = None,
        settings: RedisSettings | None = None,
    ) -> None:
        names = {"stream": stream, "failures": failure_stream}
        if group is not None:
            names["group"] = group
        if isinstance(stream, str) and "://" in stream:
            raise ConfigurationError(
                f"RedisBroker({mask_url(stream)!r}): the first argument is the name of a stream; a URL goes into url=, "
                "or RedisBroker.from_url(…)"
            )
        if client is not None and url is not None:
            raise TypeError("RedisBroker: give client= or url=, not both")
        if client is not None:
            self._start(Store.of_client(client, settings, **names))
        else:
            self._start(Store.of_url(url or "redis://localhost:6379/0", settings, **names))

    @classmethod
    def from_url(cls, url: str, settings: RedisSettings | None = None, **names: Any) -> Self:
        """A broker at a URL; `names` are `stream`, `group` and `failure_stream`."""
        return cls(url=url, settings=settings, **names)

    @classmethod
    def on(cls, store: Store) -> Self:
        """A broker on a store that others use, too."""
        made = cls.__new__(cls)
        made._start(store)  # noqa: SLF001 -- its own class
        return made

    queue_kinds = (Queue, PubSubQueue, ListQueue)
    task_options = frozenset({"wait_replicas"})

    def _start(self, store: Store) -> None:
        self._store = store
        self._state = BrokerState.NEW
        self._link = Link(store, f"RedisBroker({store.label})")
        self._merger = Merger(self._link)
        self._roll = Roll(self._link)
        self._queues = RedisQueues(self._link)
        self._dead_letters = RedisDeadLetters(self._link)
        self._known: set[str] = set()
        self._known_until = 0.0
        self._warned = False
        # In a cluster a successor may belong to another node than the job it follows.
        settle = Support.EMULATED if store.topology.clustered else Support.NATIVE
        self.capabilities = Capabilities(
            delay=Support.NATIVE,
            priority=Support.NATIVE,
            dedup=Support.NATIVE,
            pause=Support.NATIVE,
            inspect=Support.NATIVE,
            cancel=Support.NATIVE,
            reschedule=Support.NATIVE,
            atomic_settle=settle,
            leases=Support.NATIVE,
            shared=Support.NATIVE,
            durable=Support.NATIVE,
            largest=_LARGEST,
        )

    def __repr__(self) -> str:
        return f"RedisBroker({self._store.label!r}, {self._state.value})"

    @property
    def database(self) -> Store:
        """What its twins share with it."""
        return self._store

    def declare(self, queues: Sequence[Queue]) -> None:
        """Note which queues are not plain."""
        super().declare(queues)
        kinds = self._store.keys.kinds
        kinds.learn(queues)
        # Nothing lies in these, so nobody needs to look for them.
        self._known |= kinds.broadcasts.keys()

    async def open(self) -> None:
        """Connect, and look what server it is."""
        if self._state is BrokerState.CLOSED:
            raise BrokerUnavailable(f"{self!r} cannot be opened again; use its twin()")
        await check_server(self._link)
        self._state = BrokerState.OPEN

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """Store a batch: one step for each queue in it."""
        if self._state is not BrokerState.OPEN:
            raise BrokerUnavailable(f"{self!r} is not open; call open() first, or use twin() for one that is")
        if not envelopes:
            return []
        kinds = self._store.keys.kinds
        await self._enroll(envelopes)
        try:
            if kinds.plain or not any(kinds.special(envelope.queue) for envelope in envelopes):
                return await self._merger.publish(envelopes)
            return await send(self._link, envelopes)
        except ConnectionLost as error:
            job_id = envelopes[0].id
            raise DispatchUncertain(
                f"{self._link.who}: {error}. The job may be enqueued; dispatching again with job_id={job_id!r} "
                "cannot double it",
                job_id=job_id,
                final=error.final,
            ) from error
        except ServerError as error:
            raise unavailable(self._link.who, error) from error

    async def _enroll(self, envelopes: Sequence[Envelope]) -> None:
        """Make queues known that this broker has not met yet, or not for a while."""
        now = time.monotonic()
        if now >= self._known_until:
            self._known = set(self._store.keys.kinds.broadcasts)
            self._known_until = now + _KNOWN_FOR
        new = {envelope.queue for envelope in envelopes if envelope.queue not in self._known}
        if new:
            name = self._store.keys.queues
            try:
                await answered(self._link, self._link.call(name, "SADD", name, *sorted(new)))
            except BrokerUnavailable:
                # In a cluster the queues may lie on other nodes than the list of them: it is told with the next batch.
                if not self._store.topology.clustered:
                    raise
            else:
                self._known |= new

    async def consumer(self, settings: ConsumerSettings) -> Consumer:
        """A consumer with connections of its own beside this broker's."""
        if self._state is not BrokerState.OPEN:
            raise BrokerUnavailable(f"{self!r} is not open; call open() first, or use twin() for one that is")
        if not self._warned:
            self._warned = True
            await warn_of_risks(self._link)
        if not self._store.keys.kinds.plain:
            from camora_redis.mixed import mixed_consumer

            made: Consumer = await mixed_consumer(self._link, settings)
        else:
            made = streams = RedisConsumer(self._link, settings)
            await streams.enroll()
        self._roll.keep(set(settings.queues) - self._store.keys.kinds.broadcasts.keys())
        return made

    def twin(self) -> Self:
        """Another broker on the same data, with connections of its own."""
        return self.on(self._store)

    def own_results(self) -> ResultBackend:
        """Results in the same place: settlements write them in the same step."""
        from camora_redis.results import RedisResultBackend

        return RedisResultBackend.on(self._store)

    def own_limits(self) -> Limits:
        """Limits in the same place."""
        from camora_redis.limits import RedisLimits

        return RedisLimits(self._store)

    def own_schedules(self) -> ScheduleStore:
        """Schedules in the same place."""
        from camora_redis.schedules import RedisScheduleStore

        return RedisScheduleStore(self._store)

    def own_workers(self) -> WorkerDirectory:
        """The directory of workers in the same place."""
        from camora_redis.workers import RedisWorkerDirectory

        return RedisWorkerDirectory(self._store)

    def own_workflows(self) -> WorkflowStore:
        """Workflows in the same place."""
        from camora_redis.workflows import RedisWorkflowStore

        return RedisWorkflowStore(self._store)

    def own_journal(self) -> Journal:
        """The journal in the same place."""
        from camora_redis.journals import RedisJournal

        return RedisJournal(self._store)

    def settles_into(self, results: ResultBackend) -> bool:
        """True for the same data."""
        from camora_redis.results import RedisResultBackend

        if not isinstance(results, RedisResultBackend) or results.database.identity != self._store.identity:
            return False
        # In a cluster a record lies with its queue, and where that is depends on its kind.
        self._store.keys.kinds.share(results.database.keys.kinds)
        return True

    @property
    def queues(self) -> Queues:
        """Inspection, cancelling, pausing."""
        return self._queues

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters."""
        return self._dead_letters

    def abandon(self) -> None:
        """Let go of the sockets of a loop that is gone."""
        self._link.abandon()

    async def close(self) -> None:
        """Close all connections."""
        self._state = BrokerState.CLOSED
        await self._roll.close()
        await self._link.close()
