"""Keeps deliveries alive, from a thread of its own, with an event loop and a connection of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, TypeVar

from camora.errors import BrokerUnavailable
from camora.interfaces.broker import Leases, LeaseVerdict
from camora.message import Delivery

from camora_redis.calling import answered
from camora_redis.link import Link
from camora_redis.scripting import script
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
        self._lease = lease
        self._since: dict[Delivery, float] = {}
        self._runner: asyncio.Runner | None = asyncio.Runner()
        # Without an answer, the loss of a lease must be known before its end, and another try be made.
        self._link = Link(store, "the keeper of leases", lease / 3)

    def extend(self, deliveries: Sequence[Delivery]) -> Sequence[LeaseVerdict]:
        """One verdict each."""
        return self._run(self._extended(deliveries)) if deliveries else []

    async def _extended(self, deliveries: Sequence[Delivery]) -> list[LeaseVerdict]:
        """Of queues whose server is away nothing is known: theirs are held until they have lapsed by our own clock."""
        now = time.monotonic()
        since = {one: self._since.get(one, now - self._lease / 2) for one in deliveries}
        groups = _by_queue(deliveries)
        answers = await self._each(self._extend(queue, [deliveries[n] for n in numbers]) for queue, numbers in groups)
        verdicts = [LeaseVerdict.LOST] * len(deliveries)
        for (_, numbers), held in zip(groups, answers, strict=True):
            for at, number in enumerate(numbers):
                one = deliveries[number]
                if held is None:
                    alive = now - since[one] < self._lease
                else:
                    alive = bool(held[at])
                    since[one] = now
                if alive:
                    verdicts[number] = LeaseVerdict.HELD
        self._since = {one: at for one, at in {**self._since, **since}.items() if now - at < self._lease}
        return verdicts

    async def _extend(self, queue: str, deliveries: Sequence[Delivery]) -> list[int]:
        keys, held = self._store.keys, []
        for at in range(0, len(deliveries), _BATCH):
            receipts = [one.receipt for one in deliveries[at : at + _BATCH]]
            words = [word for one in receipts for word in (one.priority, one.entry, one.taken)]
            call = self._link.run(_EXTEND, (keys.of_queue(queue),), keys.group, self._consumer, *words)
            held += await answered(self._link, call)
        return held

    async def _each(self, calls: Iterable[Coroutine[Any, Any, T]]) -> list[T | None]:
        """The answers of calls for several queues; None where the server is away, unless that is so for all."""
        answers = await asyncio.gather(*calls, return_exceptions=True)
        errors = [one for one in answers if isinstance(one, BaseException)]
        for error in errors:
            if len(errors) == len(answers) or not isinstance(error, BrokerUnavailable):
                raise error
        return [None if isinstance(one, BaseException) else one for one in answers]

    def cancelled(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Those whose job is to be cancelled."""
        return self._run(self._flagged(deliveries)) if deliveries else ()

    async def _flagged(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        groups = _by_queue(deliveries)
        answers = await self._each(self._marks(queue, [deliveries[n].id for n in numbers]) for queue, numbers in groups)
        return [
            deliveries[number]
            for (_, numbers), marks in zip(groups, answers, strict=True)
            for number, mark in zip(numbers, marks or (), strict=bool(marks))
            if mark
        ]

    async def _marks(self, queue: str, ids: Sequence[str]) -> list[int]:
        name = self._store.keys.helper(queue, "cancel")
        marks: list[int] = await answered(self._link, self._link.call(name, "SMISMEMBER", name, *ids))
        return marks

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
