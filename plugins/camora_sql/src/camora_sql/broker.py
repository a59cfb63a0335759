"""The SQL broker."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Sequence
from typing import Any, Self

from camora.clock import SYSTEM_CLOCK, Clock
from camora.errors import BrokerUnavailable, DispatchUncertain, EncodeError
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

from camora_sql.consumer import SqlConsumer
from camora_sql.dead_letters import SqlDeadLetters
from camora_sql.dialects.base import Need
from camora_sql.errors import CommitUnclear, Held
from camora_sql.journals import SqlJournal
from camora_sql.lengths import check_lengths
from camora_sql.limits import SqlLimits
from camora_sql.link import Link
from camora_sql.opening import begin_epoch
from camora_sql.procedures import procedures_of
from camora_sql.queues import SqlQueues
from camora_sql.results import SqlResultBackend
from camora_sql.schedules import SqlScheduleStore
from camora_sql.session import Session
from camora_sql.settings import SqlSettings
from camora_sql.store import Store
from camora_sql.workers import SqlWorkerDirectory
from camora_sql.workflows import SqlWorkflowStore

__all__ = ["SqlBroker"]

_MANY_QUEUES = 100
"""Queues of one consumer: each is a part of one statement, and databases bound those."""
_SHORT = 0.2
"""Seconds that a publication waits for others' locks together with others."""
_MOST_WAITING = 2
"""Publications that wait for locks for longer, at once: each has a connection of the pool meanwhile."""


class SqlBroker(Broker):
    """Messages in tables of a database that any number of processes share.

    `url` is such as `sqlite:///camora.db` (relative to the current folder, now), `sqlite:////var/lib/camora.db`,
    `postgresql://user:password@host/database`, `postgresql+psycopg://…`, `mariadb://…` or `mysql://…`; its query may
    hold `SqlSettings`, as in `?synchronous=normal&busy_timeout=10`. The schema is made by itself.
    Raises `ConfigurationError` for a URL or settings that cannot be.
    """

    capabilities = Capabilities(
        delay=Support.NATIVE,
        priority=Support.NATIVE,
        dedup=Support.NATIVE,
        pause=Support.NATIVE,
        inspect=Support.NATIVE,
        cancel=Support.NATIVE,
        reschedule=Support.NATIVE,
        atomic_settle=Support.NATIVE,
        leases=Support.NATIVE,
        transactions=Support.NATIVE,
        shared=Support.NATIVE,
        durable=Support.NATIVE,
        # SQLite's own limit is 10^9 bytes for a row.
        largest=500_000_000,
    )

    def __init__(self, url: str, settings: SqlSettings | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._start(Store(url, settings, clock=clock))

    def _start(self, store: Store) -> None:
        self._store = store
        self._state = BrokerState.NEW
        self._link = Link(store, f"SqlBroker({store.dialect.label})")
        self._procedures = procedures_of(store)
        # Of publications that others hold up: one at a time finds out whether it is one of them, few wait for long.
        self._turns, self._waiting = asyncio.Semaphore(1), asyncio.Semaphore(_MOST_WAITING)
        self._queues = SqlQueues(self._link)
        self._dead_letters = SqlDeadLetters(self._link)
        self._consumers: weakref.WeakSet[SqlConsumer] = weakref.WeakSet()

    def __repr__(self) -> str:
        return f"SqlBroker({self._store.dialect.label!r}, {self._state.value})"

    @property
    def url(self) -> str:
        """The database's resolved address, without secrets or options."""
        return self._store.dialect.url

    @property
    def database(self) -> Store:
        """What its twins share with it."""
        return self._store

    async def open(self) -> None:
        """Connect; make or check the schema."""
        await self._link.open()
        self._state = BrokerState.OPEN

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """Store a batch in one transaction, which it may share with others of the same moment."""
        if not envelopes:
            return []
        check_lengths(envelopes)
        try:
            return await self._publish(envelopes)
        except CommitUnclear as error:
            job_id = envelopes[0].id
            raise DispatchUncertain(
                f"{error}. The job may be enqueued; dispatching again with job_id={job_id!r} cannot double it",
                job_id=job_id,
            ) from error
        except (OverflowError, UnicodeError) as error:
            raise EncodeError(f"a value of a message cannot be stored: {error}; nothing was enqueued") from error

    async def _publish(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        procedures = self._procedures
        with contextlib.suppress(Held):
            return await self._link.batch(
                procedures.publish, envelopes, single=procedures.single, patience=_SHORT, revocable=True
            )
        # Somebody's open transaction has a key or an id that is wanted: by these, or by others that went with them.
        async with self._turns:
            with contextlib.suppress(Held):
                return await self._publish_alone(envelopes, _SHORT)
        async with self._waiting:
            return await self._publish_alone(envelopes, None)

    def _publish_alone(self, envelopes: Sequence[Envelope], patience: float | None) -> asyncio.Future[Sequence[str]]:
        def publish(session: Session) -> Sequence[str]:
            return self._procedures.publish(session, envelopes)

        if self._procedures.single:
            return self._link.run(lambda session: session.once(publish, patience=patience))
        return self._link.run(lambda session: session.write(publish, patience=patience))

    async def publish_within(self, connection: Any, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """In the caller's transaction, on a connection or session of SQLAlchemy's to this very database."""
        if not envelopes:
            return []
        # Imported where it is used: SQLAlchemy's ORM comes with it.
        from camora_sql.joining import publish_within

        return await publish_within(self._store, connection, envelopes)

    async def consumer(self, settings: ConsumerSettings) -> Consumer:
        """A consumer over this broker's connection."""
        if len(set(settings.queues)) > _MANY_QUEUES:
            raise BrokerUnavailable(
                f"{len(settings.queues)} queues are too many for one consumer (at most {_MANY_QUEUES}); "
                "start more workers, each with some of them"
            )
        await self._link.run(lambda session: begin_epoch(session, self._store))
        consumer = SqlConsumer(self._link, self._procedures, settings)
        self._consumers.add(consumer)
        return consumer

    def twin(self) -> Self:
        """Another broker on the same database, with a connection of its own."""
        twin = type(self).__new__(type(self))
        twin._start(self._store)  # noqa: SLF001 -- its own class
        return twin

    def own_results(self) -> ResultBackend:
        """Results in the same database: settlements write them in the same transaction."""
        return SqlResultBackend.on(self._store)

    def own_limits(self) -> Limits:
        """Limits in the same database."""
        return SqlLimits(self._store)

    def own_schedules(self) -> ScheduleStore:
        """Schedules in the same database."""
        return SqlScheduleStore(self._store)

    def own_workers(self) -> WorkerDirectory:
        """The directory of workers in the same database."""
        return SqlWorkerDirectory(self._store)

    def own_workflows(self) -> WorkflowStore:
        """Workflows in the same database."""
        return SqlWorkflowStore(self._store, Need.SETTLED)

    def own_journal(self) -> Journal:
        """The journal in the same database."""
        return SqlJournal(self._store)

    def settles_into(self, results: ResultBackend) -> bool:
        """True for the same database."""
        return isinstance(results, SqlResultBackend) and results.url == self.url

    @property
    def queues(self) -> Queues:
        """Inspection, cancelling, pausing."""
        return self._queues

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters."""
        return self._dead_letters

    def abandon(self) -> None:
        """End the thread of a loop that is gone."""
        self._link.abandon()

    async def close(self) -> None:
        """End the thread and its connection, after what was asked for is done."""
        self._state = BrokerState.CLOSED
        # What a consumer took for nobody goes back first.
        await asyncio.gather(*(consumer.close() for consumer in self._consumers))
        await self._link.close()
