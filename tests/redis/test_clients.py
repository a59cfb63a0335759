"""A broker made of somebody's client: it goes where that goes, under the names that were given, and leaves it alone."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis
import redis.asyncio
from camora import Camora
from camora.errors import ConfigurationError, JobFailed
from camora_redis import RedisBroker, RedisSettings
from redis.asyncio.sentinel import Sentinel
from redis.credentials import UsernamePasswordCredentialProvider

from tests.servers.fixtures import fresh_url, private_server, shared_cluster, shared_sentinels
from tests.servers.redis import Server

__all__ = ["private_server"]  # a fixture

NewServer = Callable[..., Server]
Client = Any
KINDS = [
    "plain", "valkey", "url", "blocking pool", "tls", "mutual tls", "unix socket", "password", "acl user",
    "credential provider", "decoding", "database", "sentinel", "cluster",
]  # fmt: skip
PROTOCOLS = pytest.mark.parametrize("protocol", [2, 3], ids=["RESP2", "RESP3"])


@contextlib.asynccontextmanager
async def client_of(kind: str, new: NewServer, **more: Any) -> AsyncIterator[Client]:
    """A client as its owner would make it."""
    client = await _client(kind, new, more)
    try:
        yield client
    finally:
        await client.aclose()
        if kind == "sentinel":
            for sentinel in client.connection_pool.sentinel_manager.sentinels:
                await sentinel.aclose()


async def _client(kind: str, new: NewServer, more: dict[str, Any]) -> Client:
    if kind == "sentinel":
        set_of = shared_sentinels()
        addresses = [(one.host, one.port) for one in set_of.sentinels]
        master = Sentinel(addresses, **more).master_for(set_of.service)
        await master.flushall()
        return master
    if kind == "cluster":
        node = shared_cluster().masters[0]
        cluster = redis.asyncio.RedisCluster(host=node.host, port=node.port, **more)
        await cluster.flushall()
        return cluster
    if kind in ("tls", "mutual tls"):
        return _secured(new("redis-7", tls="mutual" if kind == "mutual tls" else True), more)
    server = new("valkey" if kind == "valkey" else "redis", **_SERVERS.get(kind, {}))
    if kind == "url":
        return redis.asyncio.Redis.from_url(server.url, **more)
    if kind == "blocking pool":
        pool = redis.asyncio.BlockingConnectionPool(host="127.0.0.1", port=server.port, max_connections=1, **more)
        return redis.asyncio.Redis.from_pool(pool)
    if kind == "unix socket":
        return redis.asyncio.Redis(unix_socket_path=str(server.socket), db=2, **more)
    return redis.asyncio.Redis(port=server.port, **_CLIENTS.get(kind, {}), **more)


_USERS = ["ann on >secret ~* &* +@all"]
_SERVERS: dict[str, dict[str, Any]] = {
    "unix socket": {"unix_socket": True},
    "password": {"password": "s3/@:"},
    "acl user": {"users": _USERS},
    "credential provider": {"users": _USERS, "password": "other"},
}
_CLIENTS: dict[str, dict[str, Any]] = {
    "password": {"password": "s3/@:"},
    "acl user": {"username": "ann", "password": "secret"},
    "credential provider": {"credential_provider": UsernamePasswordCredentialProvider("ann", "secret")},
    "decoding": {"decode_responses": True},
    "database": {"db": 5},
}


def _secured(server: Server, more: dict[str, Any]) -> Client:
    files = server.certificates
    assert files is not None
    mine = {"ssl_certfile": str(files.certificate), "ssl_keyfile": str(files.key)}
    shown = mine if server.options.tls == "mutual" else {}
    return redis.asyncio.Redis(port=server.port, ssl=True, ssl_ca_certs=str(files.authority), **shown, **more)


def state_of(client: Client) -> Any:
    """What a stranger could have changed in it."""
    if isinstance(client, redis.asyncio.RedisCluster):
        return dict(client.connection_kwargs)
    pool = client.connection_pool
    return dict(pool.connection_kwargs), pool.connection_class


def text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@pytest.mark.parametrize("kind", KINDS)
@PROTOCOLS
async def test_a_client_of_ones_own(private_server: NewServer, kind: str, protocol: int) -> None:
    async with client_of(kind, private_server, protocol=protocol) as client:
        await client.set("mine", "kept")
        before = state_of(client)
        failures = "{test_stream}:failures" if kind == "cluster" else "failure_stream"
        broker = RedisBroker(stream="test_stream", group="test_group", failure_stream=failures, client=client)
        assert (broker.database.keys.stream, broker.database.keys.failures) == ("test_stream", failures)
        await _use(broker)

        assert state_of(client) == before
        assert text(await client.get("mine")) == "kept", "it is open, and as it was"
        [group] = await client.xinfo_groups("test_stream")
        assert text(group["name"]) == "test_group"
        assert await client.xlen("test_stream") == 0
        assert await client.xlen(failures) == 1
        names = {text(name) async for name in client.scan_iter("*")} - {"mine"}
        ours = ("test_stream", "{test_stream}", "{test_stream:", "test_stream:", failures, "camora:", "{camora}")
        assert all(name.startswith(ours) for name in names), names


async def _use(broker: RedisBroker) -> None:
    app = Camora(broker)

    @app.task(name="story.add")
    async def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="story.fail")
    async def fail() -> None:
        raise OSError("no")

    async with app:
        waiting = await add.dispatch(1, 2)
        async with app.worker():
            assert await waiting.result(timeout=60) == 3
            with pytest.raises(JobFailed):
                await (await fail.dispatch()).result(timeout=60)


async def test_it_leaves_no_connection_behind(private_server: NewServer) -> None:
    server = private_server()
    async with redis.asyncio.Redis(port=server.port) as client:
        await client.ping()
        before = {one["id"] for one in await client.client_list()}
        await _use(RedisBroker(client=client))
        assert {one["id"] for one in await client.client_list()} == before


async def test_it_is_of_use_in_any_loop_and_thread(private_server: NewServer) -> None:
    """The client belongs to the loop of its owner; the broker uses its address only."""
    server = private_server()
    async with redis.asyncio.Redis(port=server.port) as client:
        await client.ping()
        app = Camora(RedisBroker("test_stream", client=client))

        @app.task(name="story.add")
        async def add(x: int, y: int) -> int:
            return x + y

        assert add.dispatch_sync(1, 2).id
        async with app:
            assert (await add.dispatch(3, 4)).id
        app.close_sync()
        assert await client.xlen("test_stream") == 2


async def test_names_are_those_given_and_the_rest_follows_from_them() -> None:
    url = fresh_url()
    broker = RedisBroker.from_url(url, stream="test_stream", group="test_group", failure_stream="failure_stream")
    app = Camora(broker)

    @app.task(name="story.fail", queue="mail")
    async def fail() -> None:
        raise OSError("no")

    async with app, app.worker(queues=["mail"]):
        with pytest.raises(JobFailed):
            await (await fail.dispatch()).result(timeout=60)
    async with redis.asyncio.Redis.from_url(url) as client:
        assert await client.xlen("failure_stream:mail") == 1
        [group] = await client.xinfo_groups("test_stream:mail")
        assert group["name"] == b"test_group"


async def test_two_brokers_of_one_client_share_their_data(private_server: NewServer) -> None:
    server = private_server()
    async with redis.asyncio.Redis(port=server.port) as client:
        here, there = RedisBroker(client=client), RedisBroker.from_url(server.url)
        # By the same name for the server, or another: what counts is the data.
        assert RedisBroker(client=client).database.identity == here.database.identity
        assert there.database.keys == here.database.keys


async def test_settings_beside_a_client(private_server: NewServer) -> None:
    server = private_server()
    async with redis.asyncio.Redis(port=server.port) as client:
        broker = RedisBroker(client=client, settings=RedisSettings(prefix="shop", group="hands"))
        await _use(broker)
        assert [text(one["name"]) for one in await client.xinfo_groups("shop:default")] == ["hands"]


@pytest.mark.parametrize(
    ("client", "words"),
    [
        (redis.Redis(), "client=Redis"),
        ("redis://localhost", "client=str"),
        (object(), "client=object"),
        (redis.asyncio.Redis, "client=_ProtocolMeta"),
        (redis.asyncio.ConnectionPool(), "client=ConnectionPool"),
    ],
    ids=["synchronous", "text", "object", "class", "pool"],
)
def test_what_is_no_client(client: Any, words: str) -> None:
    with pytest.raises(TypeError) as caught:
        RedisBroker(client=client)
    assert words in str(caught.value)
    assert "redis.asyncio.Redis" in str(caught.value)


def test_a_client_and_a_url() -> None:
    with pytest.raises(TypeError, match="give client= or url=, not both"):
        RedisBroker(client=redis.asyncio.Redis(), url="redis://localhost")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"stream": ""}, "stream = ''"),
        ({"stream": "{a}b"}, "must not have braces in it"),
        ({"group": ""}, "group = ''"),
        ({"failure_stream": ""}, "failure_stream = ''"),
        ({"stream": "a", "failure_stream": "a"}, "the same stream"),
        ({"stream": 3}, "stream = 3"),
    ],
    ids=["no stream", "braces", "no group", "no failures", "the same", "a number"],
)
def test_names_that_cannot_be(names: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisBroker.from_url("redis://localhost", **names)
    assert words in str(caught.value)


def test_in_a_cluster_the_failures_lie_beside_their_stream() -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisBroker.from_url("redis+cluster://localhost", stream="test_stream", failure_stream="failure_stream")
    assert "failure_stream = '{test_stream}:failures'" in str(caught.value)
    RedisBroker.from_url("redis+cluster://localhost", stream="jobs", failure_stream="{jobs}:failures")


def test_the_label_has_no_password() -> None:
    client = redis.asyncio.Redis(host="h", password="hunter2", username="ann", ssl=True)
    broker = RedisBroker(client=client)
    assert repr(broker) == "RedisBroker('rediss://h:6379/0', new)"
    assert "hunter2" not in repr(broker.database)


def test_an_ipv6_address_stands_in_brackets() -> None:
    assert repr(RedisBroker(client=redis.asyncio.Redis(host="::1"))) == "RedisBroker('redis://[::1]:6379/0', new)"


def test_a_url_in_the_place_of_a_stream_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"redis://:\*\*\*@host/15.*from_url"):
        RedisBroker("redis://:hunter2@host/15")
