"""The directory of workers in Redis: a key for each worker, which expires when it is silent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import msgspec
from camora.interfaces.workers import Order, WorkerDirectory, WorkerInfo

from camora_redis.calling import answered
from camora_redis.link import Link
from camora_redis.opening import check_server
from camora_redis.scripting import script
from camora_redis.store import Store

__all__ = ["RedisWorkerDirectory"]

_REPORT = script("worker_report")
_ORDER = script("worker_order")
_BATCH = 500

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(WorkerInfo).decode


class RedisWorkerDirectory(WorkerDirectory):
    """A report is one short script; the server's clock decides who lives. In a cluster all is in one slot."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._link = Link(store, f"RedisWorkerDirectory({store.label})")
        self._names = store.keys.own("workers")

    def __repr__(self) -> str:
        return f"RedisWorkerDirectory({self._store.label!r})"

    async def open(self) -> None:
        """Connect, and look what server it is."""
        await check_server(self._link)

    async def report(self, info: WorkerInfo, *, ttl: float) -> Sequence[Order]:
        """Note what it says; the orders it has not heard yet."""
        keys = (self._names, self._worker(info.name), self._orders(info.name))
        call = self._link.run(_REPORT, keys, info.name, _encode(info), max(1, round(ttl * 1000)))
        return [order.decode() for order in await answered(self._link, call)]

    async def list(self) -> Sequence[WorkerInfo]:
        """The names, then what they said, some hundreds at a time."""
        names = await answered(self._link, self._link.call(self._names, "ZRANGE", self._names, 0, -1))
        # In order of code point, which is that of the bytes.
        keys = [self._worker(name) for name in sorted(name.decode() for name in names)]
        batches = [keys[at : at + _BATCH] for at in range(0, len(keys), _BATCH)]
        found = await answered(self._link, self._link.calls([(self._names, ("MGET", *batch)) for batch in batches]))
        return [_decode(said) for batch in found for said in batch if said is not None]

    async def order(self, name: str, order: Order) -> bool:
        """Leave an order; it expires with its worker."""
        call = self._link.run(_ORDER, (self._worker(name), self._orders(name)), order)
        return bool(await answered(self._link, call))

    async def remove(self, name: str) -> None:
        """Forget one."""
        forget = [
            (self._names, ("DEL", self._worker(name), self._orders(name))),
            (self._names, ("ZREM", self._names, name)),
        ]
        await answered(self._link, self._link.calls(forget))

    def _worker(self, name: str) -> str:
        return self._store.keys.own(f"worker:{name}")

    def _orders(self, name: str) -> str:
        return self._store.keys.own(f"orders:{name}")

    def twin(self) -> Self:
        """Another one on the same data, with connections of its own."""
        return type(self)(self._store)

    def abandon(self) -> None:
        """Let go of the sockets of a loop that is gone."""
        self._link.abandon()

    async def close(self) -> None:
        """Close all connections."""
        await self._link.close()
