"""Keeps deliveries alive, from a thread of its own, with an event loop and a connection of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from camora.interfaces.broker import Leases, LeaseVerdict
from camora.message import Delivery

from camora_redis.calling import answered
from camora_redis.link import Link, script
from camora_redis.store import Store

__all__ = ["RedisLeases"]

T = TypeVar("T")
_EXTEND = script("extend")
_BATCH = 500


class RedisLeases(Leases):
    """The same client as everybody else's, driven by a small loop that nobody can block."""

    def __init__(self, store: Store, consumer: str, lease: float) -> None:
        self._store = store
        self._consumer = consumer
        self._runner: asyncio.Runner | None = asyncio.Runner()
        # Without an answer, the loss of a lease must be known before its end, and another try be made.
        self._link = Link(store, "the keeper of leases", lease / 3)

    def extend(self, deliveries: Sequence[Delivery]) -> Sequence[LeaseVerdict]:
        """One verdict each."""
        return self._run(self._extended(deliveries)) if deliveries else []

    async def _extended(self, deliveries: Sequence[Delivery]) -> list[LeaseVerdict]:
        verdicts = [LeaseVerdict.LOST] * len(deliveries)
        keys = self._store.keys
        for queue, numbers in _by_queue(deliveries):
            for at in range(0, len(numbers), _BATCH):
                some = numbers[at : at + _BATCH]
                receipts = [deliveries[number].receipt for number in some]
                words = [word for one in receipts for word in (one.priority, one.entry, one.taken)]
                call = self._link.run(_EXTEND, (keys.of_queue(queue),), keys.group, self._consumer, *words)
                for number, held in zip(some, await answered(self._link, call), strict=True):
                    if held:
                        verdicts[number] = LeaseVerdict.HELD
        return verdicts

    def cancelled(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Those whose job is to be cancelled."""
        return self._run(self._flagged(deliveries)) if deliveries else ()

    async def _flagged(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        found = []
        keys = self._store.keys
        for queue, numbers in _by_queue(deliveries):
            ids = [deliveries[number].id for number in numbers]
            name = keys.helper(queue, "cancel")
            marks = await answered(self._link, self._link.call(name, "SMISMEMBER", name, *ids))
            found += [deliveries[number] for number, mark in zip(numbers, marks, strict=True) if mark]
        return found

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        assert self._runner is not None, "it is closed"
        return self._runner.run(call)

    def close(self) -> None:
        """Let go of the connection. May be repeated."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            runner.run(self._link.close())
            runner.close()


def _by_queue(deliveries: Sequence[Delivery]) -> list[tuple[str, list[int]]]:
    found: dict[str, list[int]] = {}
    for number, delivery in enumerate(deliveries):
        found.setdefault(delivery.queue, []).append(number)
    return list(found.items())
