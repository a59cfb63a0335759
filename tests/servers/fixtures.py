"""Servers for tests: one of each kind for the whole test process, started when first needed, and private ones."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.servers.binaries import given_url, need
from tests.servers.cluster import Cluster
from tests.servers.given import GivenServer
from tests.servers.postgres import PostgresServer
from tests.servers.postgres import need as need_postgres
from tests.servers.redis import Server
from tests.servers.sentinel import Sentinels

__all__ = [
    "fresh_postgres_url",
    "fresh_url",
    "private",
    "private_postgres",
    "private_server",
    "shared",
    "shared_cluster",
    "shared_postgres",
    "shared_sentinels",
]

_DATABASES = 1024

_starting = threading.Lock()
_next_database = itertools.count()
_next_prefix = itertools.count()
_run = os.urandom(4).hex()


def shared(kind: str = "redis") -> Server | GivenServer:
    """The server of this kind that all tests of this process share: never stop it, and never change its settings.

    It is the one of the environment's URL if there is one, else a private one of 1024 databases that ends with the
    process. Without a server the test is skipped, and fails in CI.
    """
    with _starting:
        return _shared(kind)


def fresh_url(kind: str = "redis") -> str:
    """The URL of an empty database in the shared server, another one each time.

    A given server has but one: it is emptied, and so only for one test at a time. Pub/sub channels know no databases.
    """
    server = shared(kind)
    if isinstance(server, GivenServer):
        server.empty()
        return server.url
    database = next(_next_database) % _DATABASES
    with server.connection() as connection:
        connection.call("SELECT", database)
        connection.call("FLUSHDB")
    return server.url_of(database)


def shared_sentinels(kind: str = "redis") -> Sentinels:
    """Sentinels that all tests of this process share: a failover is allowed if `wait_settled` follows it."""
    with _starting:
        return _shared_sentinels(kind)


def shared_cluster(kind: str = "redis") -> Cluster:
    """The Cluster of three masters that all tests of this process share: slots may move, nodes may not die."""
    with _starting:
        return _shared_cluster(kind)


def shared_postgres(version: int | None = None) -> PostgresServer:
    """The PostgreSQL of this version, or the newest, that all tests of this process share."""
    with _starting:
        return _shared_postgres(version)


def fresh_postgres_url(version: int | None = None, *, driver: str = "") -> str:
    """A URL of no tables yet: in the shared server's database, under a prefix that nobody else has."""
    url = os.environ.get("CAMORA_TEST_POSTGRESQL_URL") if version is None else None
    if url is None:
        url = shared_postgres(version).url
    scheme, _, rest = url.partition("://")
    joint = "&" if "?" in rest else "?"
    return f"{scheme}{driver and f'+{driver}'}://{rest}{joint}prefix=t{_run}_{next(_next_prefix)}_"


@contextlib.contextmanager
def private(kind: str = "redis", **options: Any) -> Iterator[Server]:
    """A server of the test's own, started, with the options of `tests.servers.redis.Options`."""
    with Server(need(kind, tls=bool(options.get("tls"))), **options) as server:
        yield server


@pytest.fixture
def private_postgres() -> Iterator[Callable[..., PostgresServer]]:
    """Makes private PostgreSQLs, which end with the test: `private_postgres(15, settings=["max_connections = 20"])`."""
    servers: list[PostgresServer] = []

    def new(version: int | None = None, **options: Any) -> PostgresServer:
        servers.append(PostgresServer(need_postgres(version), **options))
        return servers[-1].start()

    yield new
    for server in servers:
        server.close()
        print(f"the log of the server at {server.port}:\n{server.log[-3000:]}")  # shown if the test failed


@pytest.fixture
def private_server() -> Iterator[Callable[..., Server]]:
    """Makes private servers, which end with the test: `private_server("valkey", appendonly=True)`."""
    servers: list[Server] = []

    def new(kind: str = "redis", **options: Any) -> Server:
        servers.append(Server(need(kind, tls=bool(options.get("tls"))), **options))
        return servers[-1].start()

    yield new
    for server in servers:
        server.close()
        print(f"the log of the server at {server.port}:\n{server.log[-3000:]}")  # shown if the test failed


@functools.cache
def _shared(kind: str) -> Server | GivenServer:
    if url := given_url(kind):
        return GivenServer(url)
    return Server(need(kind), databases=_DATABASES).start()


@functools.cache
def _shared_postgres(version: int | None) -> PostgresServer:
    return PostgresServer(need_postgres(version)).start()


@functools.cache
def _shared_sentinels(kind: str) -> Sentinels:
    return Sentinels(need(kind)).start()


@functools.cache
def _shared_cluster(kind: str) -> Cluster:
    return Cluster(need(kind)).start()
