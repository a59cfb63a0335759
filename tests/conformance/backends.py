"""The brokers and result backends that sit the exams here. A server is one more entry.

A store is a URL or whatever else names it; both factories are given the same one, so that a broker and a result backend
of one store are made for each other.
"""

from __future__ import annotations

import enum
import importlib.util
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs
import pytest
from camora.builtin.memory import MemoryBroker, MemoryResultBackend, MemoryStore
from camora.interfaces.broker import Broker
from camora.interfaces.results import ResultBackend
from camora.testing.clock import VirtualClock
from camora.testing.conformance import Subject

__all__ = ["BACKENDS", "Backend", "Companion", "sitting", "usable", "without"]


class Companion(enum.Enum):
    """What a broker's store may keep besides its messages, by the exam that is for it."""

    RESULTS = "results"
    SCHEDULES = "schedules"
    LIMITS = "limits"
    WORKERS = "workers"
    WORKFLOWS = "workflows"
    JOURNALS = "journals"


ALL = frozenset(Companion)
NONE: frozenset[Companion] = frozenset()


@attrs.frozen(kw_only=True)
class Backend:
    """One kind of store. `examples` is how long it is hunted; `missing` says why it cannot be used here, if so.

    In `real_time` a story that fails is not told shorter: that would take minutes. Without `results`, it keeps none
    that everybody can read. `refunds` is as in `BrokerConformance`. `keeps`: all companions that it has; `sits`: those
    whose exams it sits itself. A variant of another one sits but those in which it differs: the same code on the same
    server would be examined twice. `empty` makes a store that has been used as good as new, where a new one is dear.
    """

    name: str
    new_store: Callable[[Path], Any]
    broker: Callable[[Any], Broker]
    results: Callable[[Any], ResultBackend] | None
    subject: Callable[[Path], Subject]
    lease: float = 0.5
    examples: int = 10
    real_time: bool = False
    missing: Callable[[], str] = lambda: ""
    refunds: bool = True
    keeps: frozenset[Companion] = ALL
    sits: frozenset[Companion] = ALL
    empty: Callable[[Any], None] | None = None


def _memory_subject(_: Path) -> Subject:
    clock = VirtualClock()
    return Subject(broker=MemoryBroker(MemoryStore(clock)), clock=clock, pass_time=clock.advance, lease=10.0)


def _sqlite_url(folder: Path) -> str:
    # A power cut is not among the faults tried here, and waiting for the disk would take most of the time.
    return f"sqlite:///{folder}/{uuid4().hex}.db?synchronous=normal"


def _sql_broker(url: str) -> Broker:
    from camora_sql.broker import SqlBroker

    return SqlBroker(url)


def _sqlite_subject(folder: Path) -> Subject:
    from camora_sql.broker import SqlBroker

    clock = VirtualClock()
    broker = SqlBroker(_sqlite_url(folder), clock=clock)
    return Subject(broker=broker, clock=clock, pass_time=clock.advance, lease=10.0)


def _sql_empty(url: str) -> None:
    from tests.sql.emptying import empty

    empty(url)


def _postgres(name: str, version: int, *, driver: str = "", examples: int, sits: frozenset[Companion] = ALL) -> Backend:
    """A PostgreSQL of this version, by this driver. Its clock is its own."""

    def new_url(_: Path) -> str:
        from tests.servers.fixtures import fresh_postgres_url

        return fresh_postgres_url(version, driver=driver)

    def subject(folder: Path) -> Subject:
        return Subject(broker=_sql_broker(new_url(folder)), lease=0.5, blur=5.0, patience=5.0)

    return Backend(
        name=name,
        new_store=new_url,
        broker=_sql_broker,
        results=_sql_results,
        subject=subject,
        lease=0.5,
        examples=examples,
        real_time=True,
        missing=_sqlite_missing,
        sits=sits,
        empty=_sql_empty,
    )


def _mariadb(*, examples: int) -> Backend:
    """A MariaDB. Its clock is its own, and it tells nobody of commits."""

    def new_url(_: Path) -> str:
        from tests.servers.mariadb import fresh_url

        return fresh_url()

    def subject(folder: Path) -> Subject:
        return Subject(broker=_sql_broker(new_url(folder)), lease=0.5, blur=5.0, patience=5.0)

    return Backend(
        name="mariadb",
        new_store=new_url,
        broker=_sql_broker,
        results=_sql_results,
        subject=subject,
        lease=0.5,
        examples=examples,
        real_time=True,
        missing=_sqlite_missing,
        empty=_sql_empty,
    )


def _sql_results(url: str) -> ResultBackend:
    from camora_sql.results import SqlResultBackend

    return SqlResultBackend(url)


def _sqlite_missing() -> str:
    for module in ("camora_sql.broker", "camora_sql.results"):
        if importlib.util.find_spec(module) is None:
            return f"there is no {module}: install camora-sql"
    return ""


def _redis_url(kind: str) -> str:
    from tests.servers.fixtures import fresh_url

    return fresh_url(kind)


def _redis_broker(url: str) -> Broker:
    from camora_redis.broker import RedisBroker

    return RedisBroker.from_url(url)


def _redis_results(url: str) -> ResultBackend:
    from camora_redis.results import RedisResultBackend

    return RedisResultBackend(url)


def _redis(
    name: str, new_url: Callable[[], str], examples: int, *, many: bool = False, sits: frozenset[Companion] = ALL
) -> Backend:
    """Servers of Redis at URLs of empty stores. Their clocks are their own."""

    def subject(_: Path) -> Subject:
        made = _redis_broker(new_url())
        return Subject(broker=made, lease=0.5, blur=5.0, patience=5.0, keys_by_queue=True, pushes=many)

    return Backend(
        name=name,
        new_store=lambda _: new_url(),
        broker=_redis_broker,
        results=_redis_results,
        subject=subject,
        lease=0.5,
        examples=examples,
        real_time=True,
        sits=sits,
    )


_prefixes = itertools.count()


def _shared_url(servers: Callable[[], Any]) -> str:
    """The keys of each store begin with a prefix of its own: Sentinels and Clusters are for all tests."""
    return f"{servers().url}?prefix=exam{next(_prefixes)}"


def _redis_sentinels() -> Any:
    from tests.servers.fixtures import shared_sentinels

    return shared_sentinels()


def _redis_cluster() -> Any:
    from tests.servers.fixtures import shared_cluster

    return shared_cluster()


def _rabbitmq(
    name: str, options: str = "", *, examples: int, newer: bool = False, sits: frozenset[Companion] = ALL
) -> Backend:
    """Queues of RabbitMQ, with a prefix of their own. Results are one process's business there."""

    def new_url(_: Path) -> str:
        from tests.servers import rabbitmq, rabbitmq_newer

        return (rabbitmq_newer if newer else rabbitmq).fresh_url() + options

    def missing() -> str:
        from tests.servers import rabbitmq_newer

        return rabbitmq_newer.missing() if newer else ""

    def broker(url: str) -> Broker:
        from camora_amqp.broker import AmqpBroker

        return AmqpBroker(url)

    def subject(folder: Path) -> Subject:
        made = broker(new_url(folder))
        return Subject(broker=made, lease=0.5, blur=5.0, patience=5.0, pushes=True, refunds=False)

    return Backend(
        name=name,
        new_store=new_url,
        broker=broker,
        results=None,
        subject=subject,
        lease=0.3,
        examples=examples,
        real_time=True,
        refunds=False,
        keeps=frozenset({Companion.SCHEDULES}),
        sits=sits,
        missing=missing,
    )


_SERVICEBUS_QUEUES = ("default", "work", "other", "next", "alert", "here", "there", "a", "b", "c", "ab")
"""All that the exams use: the broker makes none by itself. Created anew for each store, for they cannot be emptied."""


def _servicebus(*, examples: int) -> Backend:
    """Queues of the emulator of Azure Service Bus, with a prefix of their own. Results are not kept there."""

    def new_url(_: Path) -> str:
        from tests.servers.servicebus.shared import fresh_url

        # Locks are shorter than most leases here, and longer than others: neither is to make a difference.
        return fresh_url(_SERVICEBUS_QUEUES, lock_duration=2.0)

    def broker(url: str) -> Broker:
        from camora_servicebus.broker import ServiceBusBroker

        return ServiceBusBroker(url)

    def subject(folder: Path) -> Subject:
        return Subject(broker=broker(new_url(folder)), lease=0.5, blur=5.0, patience=5.0, pushes=True)

    return Backend(
        name="servicebus",
        new_store=new_url,
        broker=broker,
        results=None,
        keeps=NONE,
        subject=subject,
        lease=0.5,
        examples=examples,
        real_time=True,
    )


BACKENDS = [
    Backend(
        name="memory",
        new_store=lambda _: MemoryStore(),
        broker=MemoryBroker,
        results=MemoryResultBackend,
        subject=_memory_subject,
        lease=0.2,
        examples=100,
    ),
    Backend(
        name="sqlite",
        new_store=_sqlite_url,
        broker=_sql_broker,
        results=_sql_results,
        subject=_sqlite_subject,
        lease=0.3,
        examples=20,
        missing=_sqlite_missing,
        empty=_sql_empty,
    ),
    # In real time an example takes seconds.
    _postgres("postgresql-15", 15, examples=3),
    # It runs the same statements. The older one may lack what one of them needs, and so sits all exams; all other
    # tests are on the newer one.
    _postgres("postgresql-18", 18, examples=5, sits=NONE),
    _mariadb(examples=5),
    _redis("redis", lambda: _redis_url("redis"), 5),
    # The same commands again: what companions need of other kinds and versions is in tests/redis/test_companions.py.
    _redis("valkey", lambda: _redis_url("valkey"), 3, sits=NONE),
    # Another way to find the server, which a broker and its companions share.
    _redis("redis-sentinel", lambda: _shared_url(_redis_sentinels), 3, sits=NONE),
    # All keys of one step must be on one node: each companion has keys of its own.
    _redis("redis-cluster", lambda: _shared_url(_redis_cluster), 3, many=True),
    # Schedules are one message of a queue, which is of the type of the variant, and has arguments on newer servers. A
    # quorum queue on this one is what tests/amqp/test_schedules.py looks at.
    _rabbitmq("rabbitmq", examples=3, sits=NONE),
    _rabbitmq("rabbitmq-classic", "&queue_type=classic&max_priority=9", examples=3),
    _rabbitmq("rabbitmq-4", examples=2, newer=True),
    _servicebus(examples=3),
]
"""What sits the exams."""


def sitting(companion: Companion) -> list[Backend]:
    """Those whose companion sits the exam that is for it."""
    return [backend for backend in BACKENDS if companion in backend.keeps & backend.sits]


def without(companion: Companion) -> list[Backend]:
    """Those that have no such companion, and are to say so."""
    return [backend for backend in BACKENDS if companion not in backend.keeps]


def usable(backend: Backend) -> Backend:
    """The same; the test is skipped where it cannot be used."""
    if reason := backend.missing():
        pytest.skip(reason)
    return backend
