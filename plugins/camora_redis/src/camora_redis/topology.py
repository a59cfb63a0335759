"""Where the servers are: a single one, a master that Sentinels name, or the nodes of a cluster.

The redis client opens connections; each topology says to which server a key belongs. Belongs to one event loop; `twin`
serves another one.
"""

from __future__ import annotations

import asyncio
import functools
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from typing import Any, Self, TypeVar

from camora.errors import ConfigurationError
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError as NotConnected
from redis.exceptions import RedisError, ResponseError

__all__ = ["Clustered", "Sentinels", "Single", "Topology", "topology_of"]

Address = tuple[str, int]
T = TypeVar("T")

_SLOTS = 16384
_ASKED = 3
"""How many nodes of a cluster are asked at the same time where keys are."""

_LOOKS = 0.1
"""Seconds between looks at the map of a cluster, at least: calls may fail faster than it changes."""

_slot_of = functools.lru_cache(maxsize=10_000)(lambda key: key_slot(key.encode()))


class Topology(ABC):
    """Opens connections. `label` is what users know it by, without secrets."""

    clustered = False
    replaces = False
    """True where another server may take the place of one that fails or is demoted."""
    tells = False
    """True where somebody tells when that happens: see `listen`."""

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

    def home(self, key: str) -> str:
        """The name of the server that a key belongs to, as far as is known; it may be empty."""
        del key
        return ""

    def homes(self) -> Sequence[str]:
        """A key of each server that holds data; one, where there is one."""
        return [""]

    async def look(self, timeout: float) -> None:  # noqa: B027 -- most have nothing to find out
        """Find out where keys are, if that is not known. Raises as `connect`."""

    def look_again(self) -> None:  # noqa: B027
        """Keys are elsewhere, or a server is gone: find out anew when next asked to look."""

    def moved(self, slot: int, host: str, port: int) -> None:
        """A server says that a slot is that server's. Raises `ConfigurationError` where nobody expects slots."""
        raise ConfigurationError(
            f"{self.label} is a node of a cluster: use redis+cluster:// (it sends us on to {host}:{port})"
        )

    @abstractmethod
    async def connect(self, home: str, timeout: float) -> Any:
        """A connection of the redis client's to the server of this name, authenticated; the caller's own.

        Raises `RedisError`, `OSError`, or `ConfigurationError`.
        """

    async def listen(self, timeout: float) -> tuple[Any, str, Callable[[bytes], bool]]:
        """A connection to somebody who tells when another server takes over, the channel, and what there concerns us.

        Raises as `connect`.
        """
        raise NotImplementedError

    def _for_one(self, timeout: float) -> dict[str, Any]:
        # Answers are never decoded, deadlines are the wire's, and who tries again is decided above.
        return {**self.options, **_quickly(timeout)}

    def _network(self, host: str, port: int, timeout: float) -> tuple[type[Any], dict[str, Any]]:
        options = {**self._for_one(timeout), "host": host, "port": port}
        return (SSLConnection if options.pop("ssl", False) else Connection), options


class Single(Topology):
    """One server. `kind` is the client's class of connections: TCP, TLS or a Unix socket."""

    def __init__(self, label: str, options: Mapping[str, Any], kind: type[Any] = Connection) -> None:
        super().__init__(label, options)
        self._kind = kind

    @property
    def identity(self) -> Hashable:
        """By address, and the number of the database."""
        where = self.options.get("path") or (self.options.get("host", "localhost"), self.options.get("port", 6379))
        return ("single", where, int(self.options.get("db") or 0))

    def twin(self) -> Self:
        """Another one of the same."""
        return type(self)(self.label, self.options, self._kind)

    async def connect(self, home: str, timeout: float) -> Any:
        """To the one that there is."""
        return await _opened(self._kind, self._for_one(timeout))


class Sentinels(Topology):
    """A master, and replicas that may take its place, named by Sentinels."""

    replaces = True
    tells = True

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
        """By address, and the number of the database."""
        return ("sentinel", frozenset(self._addresses), self._service, int(self.options.get("db") or 0))

    def twin(self) -> Self:
        """Another one of the same."""
        return type(self)(
            self.label,
            self.options,
            addresses=self._addresses,
            service=self._service,
            sentinel_options=self._sentinel_options,
        )

    async def connect(self, home: str, timeout: float) -> Any:
        """To the master; the Sentinels are asked each time."""
        host, port = await self._master(timeout)
        kind, options = self._network(host, port, timeout)
        connection = await _opened(kind, options)
        try:
            role = await _asked(connection, "ROLE")
        except ResponseError:
            return connection  # the user may not ask; if it is no master, writing will show it
        except BaseException:
            _cut(connection)
            raise
        if role[0] != b"master":
            _cut(connection)
            raise NotConnected(f"{host}:{port} is a replica now, and the Sentinels have not named another master yet")
        return connection

    async def told(self, timeout: float) -> Mapping[Address, Mapping[str, Any] | BaseException]:
        """What each Sentinel says of each service that it watches, by its name; or the error that it ended with."""
        asked = {**self._sentinel_options, **_quickly(timeout)}
        async with Sentinel(self._addresses, sentinel_kwargs=asked) as sentinel:  # type: ignore[no-untyped-call]
            clients = list(sentinel.sentinels)
            answers: list[Any] = await asyncio.gather(
                *(one.sentinel_masters() for one in clients), return_exceptions=True
            )
        return dict(zip(self._addresses, answers, strict=True))

    @property
    def service(self) -> str:
        """The name under which the Sentinels know the master."""
        return self._service

    async def _master(self, timeout: float) -> Address:
        """The master, by the latest of what most of the Sentinels say: who has not heard yet names the old one."""
        asked = [self._ask(address, timeout / 3) for address in self._addresses]
        said, wrong = await _answers(asked, enough=(len(asked) + 1) // 2)
        if not said:
            if all("no such master" in text.lower() for text in wrong):
                raise ConfigurationError(
                    f"{self.label}: the Sentinels know no service {self._service!r}; SENTINEL MASTERS lists theirs"
                )
            raise NotConnected(f"no Sentinel answers: {'; '.join(wrong)}")
        best = max(said, key=lambda one: (int(one.get(b"config-epoch", 0)), b"down" not in one[b"flags"]))
        if b"down" in best[b"flags"]:
            raise NotConnected(f"the master of {self._service!r} is down, and no other one is named yet")
        return best[b"ip"].decode(), int(best[b"port"])

    async def _ask(self, address: Address, timeout: float) -> dict[bytes, bytes]:
        async with asyncio.timeout(timeout):
            connection = await self._sentinel(address, timeout)
            try:
                answer = await _asked(connection, "SENTINEL", "MASTER", self._service)
            finally:
                _cut(connection)
        return answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))

    async def _sentinel(self, address: Address, timeout: float) -> Any:
        options = {**self._sentinel_options, **_quickly(timeout), "host": address[0], "port": address[1]}
        return await _opened(SSLConnection if options.pop("ssl", False) else Connection, options)

    async def listen(self, timeout: float) -> tuple[Any, str, Callable[[bytes], bool]]:
        """To any Sentinel that answers."""
        service = self._service.encode()
        for address in random.sample(self._addresses, len(self._addresses)):
            try:
                async with asyncio.timeout(timeout / 3):
                    connection = await self._sentinel(address, timeout / 3)
            except (RedisError, OSError):
                continue
            return connection, "+switch-master", lambda told: told.split()[:1] == [service]
        raise NotConnected("no Sentinel answers")


class Clustered(Topology):
    """The nodes of a cluster; every queue lies on one of them."""

    clustered = True
    replaces = True

    def __init__(self, label: str, options: Mapping[str, Any], *, addresses: Sequence[Address]) -> None:
        super().__init__(label, options)
        self._addresses = tuple(addresses)
        self._home_of: list[str] = [""] * _SLOTS
        self._stale = True
        self._looked = float("-inf")
        self._looking = asyncio.Lock()

    @property
    def identity(self) -> Hashable:
        """By address, and the number of the database."""
        return ("cluster", frozenset(self._addresses))

    def twin(self) -> Self:
        """Another one of the same."""
        return type(self)(self.label, self.options, addresses=self._addresses)

    def home(self, key: str) -> str:
        """Its node, by the map."""
        return self._home_of[_slot_of(key)]

    def homes(self) -> Sequence[str]:
        """For each node a short key that lies on it."""
        wanted = set(self._home_of) - {""}
        found: dict[str, str] = {}
        for number in range(20 * _SLOTS):
            if len(found) == len(wanted):
                break
            home = self.home(str(number))
            if home:
                found.setdefault(home, str(number))
        return list(found.values())

    def look_again(self) -> None:
        """The map may be wrong."""
        self._stale = True

    def moved(self, slot: int, host: str, port: int) -> None:
        """It knows better than any other node, which may not have heard yet."""
        self._home_of[slot] = _named(host, port)

    async def look(self, timeout: float) -> None:
        """Ask any node for the map, if it may be wrong."""
        async with self._looking:
            now = asyncio.get_running_loop().time()
            if self._stale and now - self._looked >= _LOOKS:
                self._home_of = await self._map(timeout)
                self._stale, self._looked = False, now

    async def _map(self, timeout: float) -> list[str]:
        # Nodes may have come since the first ones were named, and those may be gone.
        known = {_address(home) for home in self._home_of if home} - set(self._addresses)
        addresses = [*random.sample(sorted(known), len(known)), *self._addresses]
        wrong: list[str] = []
        for at in range(0, len(addresses), _ASKED):
            found, errors = await _answers(
                [self._ask(one, timeout / 3) for one in addresses[at : at + _ASKED]], enough=1
            )
            if found:
                return found[0]
            wrong += errors
        if all("cluster support disabled" in text.lower() for text in wrong):
            raise ConfigurationError(f"{self.label} is no cluster: use redis://")
        raise NotConnected(f"no node of the cluster answers: {'; '.join(wrong)}")

    async def _ask(self, address: Address, timeout: float) -> list[str]:
        async with asyncio.timeout(timeout):
            kind, options = self._network(*address, timeout)
            connection = await _opened(kind, options)
            try:
                ranges = await _asked(connection, "CLUSTER", "SLOTS")
            finally:
                _cut(connection)
        found = [""] * _SLOTS
        for first, last, (host, port, *_), *_ in ranges:
            # A node that does not know its own address names none: it is the one that was asked.
            name = _named(address[0] if host in (None, b"", b"?") else host.decode(), port)
            found[first : last + 1] = [name] * (last + 1 - first)
        return found

    async def connect(self, home: str, timeout: float) -> Any:
        """To a node."""
        if not home:
            raise NotConnected("no node of the cluster serves the slot of this queue")
        kind, options = self._network(*_address(home), timeout)
        return await _opened(kind, options)


def _named(host: str, port: int) -> str:
    return f"{host}:{port}"


def _address(home: str) -> Address:
    host, _, port = home.rpartition(":")
    return host, int(port)


def _quickly(timeout: float) -> dict[str, Any]:
    return {
        "decode_responses": False,
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "health_check_interval": 0,
        "retry": Retry(NoBackoff(), 0),
    }


async def _opened(kind: type[Any], options: Mapping[str, Any]) -> Any:
    connection = kind(**options)
    try:
        await connection.connect()
    except BaseException:
        # Cancelled half-way, it would leave its socket open.
        _cut(connection)
        raise
    if not connection.is_connected:
        # The client may take a cancellation for an error of the network.
        task = asyncio.current_task()
        raise asyncio.CancelledError if task is not None and task.cancelling() else NotConnected("not connected")
    return connection


async def _asked(connection: Any, *words: str) -> Any:
    await connection.send_command(*words)
    return await connection.read_response()


def _cut(connection: Any) -> None:
    """Close the socket without a word, and without waiting: the client has no such way."""
    writer, connection._reader, connection._writer = connection._writer, None, None  # noqa: SLF001
    if writer is not None:
        writer.transport.abort()


async def _answers(questions: Sequence[Coroutine[Any, Any, T]], enough: int) -> tuple[list[T], list[str]]:
    """Ask all together until there are enough answers; these, and the errors before them."""
    tasks = [asyncio.ensure_future(question) for question in questions]
    answers: list[T] = []
    errors: list[str] = []
    try:
        for coming in asyncio.as_completed(tasks):
            try:
                answers.append(await coming)
            except (RedisError, OSError) as error:
                errors.append(str(error) or type(error).__name__)
            if len(answers) >= enough:
                break
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return answers, list(dict.fromkeys(errors))


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
        scheme = "rediss" if issubclass(pool.connection_class, SSLConnection) else "redis"
        label = _label(scheme, [(options.get("host", "localhost"), options.get("port", 6379))])
    return Single(f"{label}/{options.get('db') or 0}", options, pool.connection_class)


_POOLS_OWN = frozenset({"connection_pool", "himport_registry", "event_dispatcher", "maint_notifications_config"})
_CLUSTER_OPTIONS = frozenset({
    "username", "password", "credential_provider", "protocol", "client_name", "socket_keepalive", "ssl",
    "ssl_ca_certs", "ssl_ca_data", "ssl_cert_reqs", "ssl_certfile", "ssl_check_hostname", "ssl_keyfile",
    "ssl_min_version", "ssl_ciphers",
})  # fmt: skip


def _label(scheme: str, addresses: Sequence[tuple[Any, Any]]) -> str:
    shown = (f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}" for host, port in addresses)
    return f"{scheme}://{','.join(shown)}"
