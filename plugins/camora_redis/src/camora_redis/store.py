"""What everything on the same data shares: where it is, how it is set up, and how its keys are named."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any, Self

import attrs
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from camora_redis.keys import Keys
from camora_redis.settings import Address, RedisSettings, split_url
from camora_redis.topology import Clustered, Sentinels, Single, Topology, topology_of

__all__ = ["Store"]


@attrs.frozen
class Store:
    """Data in Redis or Valkey. Making one does no I/O, and it belongs to no event loop."""

    topology: Topology
    settings: RedisSettings
    keys: Keys

    @classmethod
    def of_url(cls, url: str, settings: RedisSettings | None = None, **names: Any) -> Self:
        """The data at a URL. Raises `ConfigurationError`."""
        address, made = split_url(url, settings)
        return cls._made(_topology(address), made, names)

    @classmethod
    def of_client(cls, client: Any, settings: RedisSettings | None = None, **names: Any) -> Self:
        """The data that a client of the redis library's leads to. Raises `TypeError`."""
        return cls._made(topology_of(client), settings or RedisSettings(), names)

    @classmethod
    def _made(cls, topology: Topology, settings: RedisSettings, names: Mapping[str, Any]) -> Self:
        database = int(topology.options.get("db") or 0)
        keys = Keys(prefix=settings.prefix, group=settings.group, clustered=topology.clustered, database=database)
        return cls(topology, settings, attrs.evolve(keys, **names))

    def careful(self, replicas: int) -> Self:
        """The same, where a dispatch waits for so many replicas or more."""
        most = max(replicas, self.settings.wait_replicas)
        return attrs.evolve(self, settings=attrs.evolve(self.settings, wait_replicas=most))

    @property
    def label(self) -> str:
        """What users know it by, without secrets."""
        return self.topology.label

    @property
    def identity(self) -> Hashable:
        """Equal for stores of the same data."""
        return (self.topology.identity, self.keys.prefix)


def _topology(address: Address) -> Topology:
    options = dict(address.options)
    if address.form == "sentinel":
        return Sentinels(
            address.label,
            options,
            addresses=address.hosts,
            service=address.service,
            sentinel_options=address.sentinel_options,
        )
    if address.form == "cluster":
        return Clustered(address.label, options, addresses=address.hosts)
    if address.form == "unix":
        return Single(address.label, options, UnixDomainSocketConnection)
    return Single(address.label, options, SSLConnection if options.pop("ssl", False) else Connection)
