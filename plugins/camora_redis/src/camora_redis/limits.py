"""Limits in Redis: for the workers of any number of processes and machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import msgspec
from camora import windows
from camora.errors import BrokerUnavailable
from camora.interfaces.limits import Ask, Limit, Limits, LimitUse

from camora_redis.calling import answered
from camora_redis.link import Link
from camora_redis.opening import check_server
from camora_redis.scripting import script
from camora_redis.store import Store

__all__ = ["RedisLimits"]

_TAKE = script("limits_take")
_KEEP = script("limits_keep")
_GIVE_BACK = script("limits_give_back")
_USAGE = script("limits_usage")

_unpack = msgspec.msgpack.Decoder(list[float]).decode


class RedisLimits(Limits):
    """Each method is one script, so one atomic step, by the server's clock. Every key expires when it counts nothing.

    In a cluster all limits of a prefix lie in one slot, and so on one node: only there can an ask be granted all of
    its limits or none. While that slot moves to another node, `BrokerUnavailable` is raised where part of what is
    needed has moved already.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._link = Link(store, f"RedisLimits({store.label})")

    def __repr__(self) -> str:
        return f"RedisLimits({self._store.label!r})"

    async def open(self) -> None:
        """Connect, and look what server it is."""
        await check_server(self._link)

    async def take(self, asks: Sequence[Ask], *, lease: float) -> Sequence[float]:
        """One step for all."""
        numbers: dict[str, int] = {}

        def number(key: str) -> int:
            return numbers.setdefault(key, len(numbers) + 1)

        words: list[Any] = []
        for ask in asks:
            slots = any(not limit.per for limit in ask.limits)
            words += (ask.holder, number(self._holder(ask.holder)) if slots else 0, len(ask.limits))
            for limit in ask.limits:
                words += (number(self._key(limit)), limit.most, limit.per)
        if not numbers:
            return [0.0] * len(asks)
        waits = await answered(self._link, self._link.run(_TAKE, list(numbers), _ms(lease), *words))
        return [wait / 1000 for wait in waits]

    async def keep(self, holders: Sequence[str], *, lease: float) -> Sequence[bool]:
        """One step for all."""
        if not holders:
            return []
        call = self._link.run(_KEEP, [self._holder(holder) for holder in holders], _ms(lease), *holders)
        states = await answered(self._link, call)
        if self._store.keys.clustered and -1 in states:
            raise BrokerUnavailable(f"{self._link.who}: slots are moving to another node of the cluster")
        return [state == 1 for state in states]

    async def give_back(self, holders: Sequence[str]) -> None:
        """One step for all."""
        if holders:
            call = self._link.run(_GIVE_BACK, [self._holder(holder) for holder in holders], *holders)
            await answered(self._link, call)

    async def usage(self, names: Sequence[str]) -> Sequence[LimitUse]:
        """One look."""
        if not names:
            return []
        keys = [key for name in names for key in (self._rate(name), self._slots(name))]
        now, *found = await answered(self._link, self._link.run(_USAGE, keys))
        return [_use(name, now, *found[2 * at : 2 * at + 2]) for at, name in enumerate(names)]

    def _key(self, limit: Limit) -> str:
        return self._rate(limit.name) if limit.per else self._slots(limit.name)

    def _rate(self, name: str) -> str:
        return self._store.keys.own(f"rate:{name}")

    def _slots(self, name: str) -> str:
        return self._store.keys.own(f"slots:{name}")

    def _holder(self, holder: str) -> str:
        return self._store.keys.own(f"holder:{holder}")

    def twin(self) -> Self:
        """Another one on the same data, with connections of its own."""
        return type(self)(self._store)

    def abandon(self) -> None:
        """Let go of the sockets of a loop that is gone."""
        self._link.abandon()

    async def close(self) -> None:
        """Close all connections."""
        await self._link.close()


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _use(name: str, now: int, rate: bytes | None, holders: Sequence[bytes]) -> LimitUse:
    if rate is None:
        return LimitUse(name=name, used=len(holders), holders=tuple(holder.decode() for holder in holders))
    per, *flat = _unpack(rate)
    window = [(int(bucket), int(count)) for bucket, count in zip(flat[::2], flat[1::2], strict=True)]
    return LimitUse(name=name, used=windows.used(window, now, per))
