"""Where the servers are: a single one, a master that Sentinels name, or the nodes of a cluster.

The redis client finds and opens connections; each topology only says to which server a key belongs. Belongs to one
event loop; `twin` serves another one.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Self

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import RedisClusterException, RedisError

__all__ = ["Clustered", "Sentinels", "Single", "Topology", "topology_of"]

Address = tuple[str, int]


class Topology(ABC):
    """Opens connections. `label` is what users know it by, without secrets."""

    clustered = False

    def __init__(self, label: str, options: Mapping[str, Any]) -> None:
        self.label = label
        self.options = dict(options)

    @property
    @abstractmethod
    def identity(self) -> Hashable:
        """Equal for topologies that lead to the same data."""

    @abstractmethod
    def twin(self) -> Self:
        """The same for another event loop."""

    def home(self, key: str) -> Hashable:
        """The server that a key belongs to, as far as is known."""
        del key
        return ""

    @abstractmethod
    async def connect(self, key: str, timeout: float) -> Any:
        """A connection of the redis client's to the server of a key, authenticated; the caller's own.

        Raises `RedisError` or `OSError`.
        """

    def look_again(self) -> None:
        """Keys are elsewhere, or a server is gone: find out anew with the next connection."""

    async def look_now(self, timeout: float) -> None:
        """Find out anew where keys are. Raises as `connect`."""

    async def connect_to(self, host: str, port: int, timeout: float) -> Any:
        """A connection to this very server. Raises as `connect`, or `RedisClusterException` where there is but one."""
        raise RedisClusterException(
            f"{self.label} is a node of a cluster: use redis+cluster:// (it sent us on to {host}:{port})"
        )

    def homes(self) -> Sequence[str]:
        """A key of each server that holds data; one, where there is one."""
        return [""]

    async def close(self) -> None:
        """Let go of what was opened to look around."""

    def _for_one(self, timeout: float) -> dict[str, Any]:
        # Answers are never decoded, deadlines are the wire's, and who tries again is decided above.
        return {
            **self.options,
            "decode_responses": False,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "health_check_interval": 0,
            "retry": Retry(NoBackoff(), 0),
        }


class Single(Topology):
    """One server. `kind` is the client's class of connections: TCP, TLS or a Unix socket."""

    def __init__(self, label: str, options: Mapping[str, Any], kind: type[Any] = Connection) -> None:
        super().__init__(label, options)
        self._kind = kind

    @property
    def identity(self) -> Hashable:
        where = self.options.get("path") or (self.options.get("host", "localhost"), self.options.get("port", 6379))
        return ("single", where, int(self.options.get("db") or 0))

    def twin(self) -> Self:
        return type(self)(self.label, self.options, self._kind)

    async def connect(self, key: str, timeout: float) -> Any:
        connection = self._kind(**self._for_one(timeout))
        await connection.connect()
        return connection


class Sentinels(Topology):
    """A master, and replicas that may take its place, named by Sentinels."""

    def __init__(
        self,
        label: str,
        options: Mapping[str, Any],
        *,
        addresses: Sequence[Address],
        service: str,
        sentinel_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(label, options)
        self._addresses = tuple(addresses)
        self._service = service
        self._sentinel_options = dict(sentinel_options or {})

    @property
    def identity(self) -> Hashable:
        return ("sentinel", frozenset(self._addresses), self._service, int(self.options.get("db") or 0))

    def twin(self) -> Self:
        return type(self)(
            self.label,
            self.options,
            addresses=self._addresses,
            service=self._service,
            sentinel_options=self._sentinel_options,
        )

    async def told(self, timeout: float) -> Mapping[Address, Mapping[str, Any] | BaseException]:
        """What each Sentinel says of each service that it watches, by its name; or the error that it ended with."""
        asked = {"socket_timeout": timeout, "socket_connect_timeout": timeout, **self._sentinel_options}
        async with contextlib.AsyncExitStack() as stack:
            sentinel = Sentinel(self._addresses, sentinel_kwargs={**asked, "retry": Retry(NoBackoff(), 0)})
            for one in sentinel.sentinels:
                stack.push_async_callback(one.aclose)
            answers = await asyncio.gather(
                *(one.sentinel_masters() for one in sentinel.sentinels), return_exceptions=True
            )
        return dict(zip(self._addresses, answers, strict=True))

    @property
    def service(self) -> str:
        """The name under which the Sentinels know the master."""
        return self._service

    async def connect(self, key: str, timeout: float) -> Any:
        asked = {"socket_timeout": timeout, "socket_connect_timeout": timeout, **self._sentinel_options}
        async with contextlib.AsyncExitStack() as stack:
            sentinel = Sentinel(self._addresses, sentinel_kwargs={**asked, "retry": Retry(NoBackoff(), 0)})
            for one in sentinel.sentinels:
                stack.push_async_callback(one.aclose)
            host, port = await sentinel.discover_master(self._service)
        options = self._for_one(timeout)
        kind = SSLConnection if options.pop("ssl", False) else Connection
        connection = kind(**{**options, "host": host, "port": port})
        await connection.connect()
        return connection


class Clustered(Topology):
    """The nodes of a cluster; every queue lies on one of them."""

    clustered = True

    def __init__(self, label: str, options: Mapping[str, Any], *, addresses: Sequence[Address]) -> None:
        super().__init__(label, options)
        self._addresses = tuple(addresses)
        self._cluster: RedisCluster | None = None
        self._stale = True
        self._looking = asyncio.Lock()

    @property
    def identity(self) -> Hashable:
        return ("cluster", frozenset(self._addresses))

    def twin(self) -> Self:
        return type(self)(self.label, self.options, addresses=self._addresses)

    def home(self, key: str) -> Hashable:
        node = self._node(key)
        return "" if node is None else node.name

    def homes(self) -> Sequence[str]:
        if self._cluster is None:
            return [""]
        found: dict[str, str] = {}
        wanted = {node.name for node in self._cluster.get_primaries()}
        for number in range(20_000):
            if len(found) == len(wanted):
                break
            node = self._node(str(number))
            if node is not None:
                found.setdefault(node.name, str(number))
        return list(found.values())

    def _node(self, key: str) -> Any:
        if self._cluster is None:
            return None
        nodes = self._cluster.nodes_manager.slots_cache.get(key_slot(key.encode()))
        return nodes[0] if nodes else None

    async def connect(self, key: str, timeout: float) -> Any:
        async with self._looking:
            if self._stale:
                await self._look(timeout)
        node = self._node(key)
        if node is None:
            self._stale = True
            raise RedisClusterException(f"no node of the cluster serves the slot of {key!r}")
        connection = self._open(node, timeout)
        await connection.connect()
        return connection

    def _open(self, node: Any, timeout: float) -> Any:
        options = {**node.connection_kwargs, **self._for_one(timeout), "host": node.host, "port": node.port}
        for name in ("ssl", "host_port_remap"):
            options.pop(name, None)
        return node.connection_class(**options)

    async def _look(self, timeout: float) -> None:
        addresses = list(self._addresses)
        if self._cluster is not None:
            # Nodes may have come since the first ones were named, and those may be gone.
            addresses += [(node.host, int(node.port)) for node in self._cluster.get_primaries()]
        cluster = RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in dict.fromkeys(addresses)],
            require_full_coverage=False,
            **{**self._for_one(timeout), "retry": Retry(NoBackoff(), 0)},
        )
        try:
            await cluster.initialize()
        finally:
            # The map is kept, the connections that it was asked for are not.
            for node in [*cluster.nodes_manager.nodes_cache.values(), *cluster.nodes_manager.startup_nodes.values()]:
                with contextlib.suppress(RedisError, OSError):
                    await node.disconnect()
        self._cluster, self._stale = cluster, False

    def look_again(self) -> None:
        self._stale = True

    async def look_now(self, timeout: float) -> None:
        async with self._looking:
            await self._look(timeout)

    async def connect_to(self, host: str, port: int, timeout: float) -> Any:
        connection = self._open(ClusterNode(host, port, **self.options), timeout)
        await connection.connect()
        return connection


def topology_of(client: Any) -> Topology:
    """The topology that a client of the redis library's was made for. Raises `TypeError` for anything else."""
    if isinstance(client, RedisCluster):
        nodes = [(node.host, int(node.port)) for node in client.nodes_manager.startup_nodes.values()]
        options = {name: value for name, value in client.connection_kwargs.items() if name in _CLUSTER_OPTIONS}
        return Clustered(_label("redis+cluster", nodes), options, addresses=nodes)
    if not isinstance(client, Redis):
        raise TypeError(
            f"client={type(client).__name__}: a redis.asyncio.Redis or redis.asyncio.RedisCluster is expected"
        )
    pool: ConnectionPool = client.connection_pool
    options = {name: value for name, value in pool.connection_kwargs.items() if name not in _POOLS_OWN}
    if isinstance(pool, SentinelConnectionPool):
        sentinels = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
        addresses = [(str(one["host"]), int(one["port"])) for one in sentinels]
        if issubclass(pool.connection_class, SSLConnection):
            options["ssl"] = True
        return Sentinels(
            f"{_label('redis+sentinel', addresses)}/{pool.service_name}",
            options,
            addresses=addresses,
            service=pool.service_name,
            sentinel_options=pool.sentinel_manager.sentinel_kwargs,
        )
    if issubclass(pool.connection_class, UnixDomainSocketConnection):
        label = f"unix://{options.get('path', '')}"
    else:
        label = _label("redis", [(options.get("host", "localhost"), options.get("port", 6379))])
    return Single(f"{label}/{options.get('db') or 0}", options, pool.connection_class)


_POOLS_OWN = frozenset({"connection_pool", "himport_registry", "event_dispatcher", "maint_notifications_config"})
_CLUSTER_OPTIONS = frozenset({
    "username", "password", "credential_provider", "protocol", "client_name", "socket_keepalive", "ssl",
    "ssl_ca_certs", "ssl_ca_data", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile",
    "ssl_min_version", "ssl_ciphers",
})  # fmt: skip


def _label(scheme: str, addresses: Sequence[tuple[Any, Any]]) -> str:
    return f"{scheme}://{','.join(f'{host}:{port}' for host, port in addresses)}"
