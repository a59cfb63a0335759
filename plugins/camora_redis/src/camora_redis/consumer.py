"""One worker's hold on a set of queues."""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from camora.errors import BrokerUnavailable
from camora.interfaces.broker import Consumer, ConsumerSettings, Leases
from camora.message import Delivery
from camora.outcome import Settlement

from camora_redis.leases import RedisLeases
from camora_redis.link import Link
from camora_redis.receipt import Receipt
from camora_redis.settling import given_back, settle
from camora_redis.shelf import Shelf, Taken
from camora_redis.store import Store

__all__ = ["RedisConsumer"]

_MARGIN = 0.001
_AWAY = 1.0
"""Seconds for which a server that did not answer is left alone, while others are served."""

logger = logging.getLogger("camora.redis")


class RedisConsumer(Consumer):
    """Looks at its shelves, and where nothing is there, waits at all of them.

    A single server is one shelf. In a cluster each queue is one: a wait at keys of several slots is refused there.
    """

    def __init__(self, link: Link, settings: ConsumerSettings) -> None:
        self._link = link
        self._store: Store = link.store
        self._lease = settings.lease
        # Whoever sees the name of the group's consumer knows how long its leases are: see `scripts/take.lua`.
        self.name = f"{settings.worker}|{secrets.token_hex(4)}|{max(1, round(settings.lease * 1000))}"
        queues = list(dict.fromkeys(settings.queues))
        groups = [[queue] for queue in queues] if self._store.topology.clustered else [queues]
        self._shelves = [Shelf(link, self.name, settings.lease, group) for group in groups]
        self._turn = 0
        self._ahead: list[tuple[float, Delivery]] = []
        self._held: dict[tuple[str, str], Receipt] = {}
        """What was taken here and not settled yet, by the queue and the job's id."""
        self._receiving = 0
        self._beside: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def enroll(self) -> None:
        """Make the groups, and known which queues there are. Raises `BrokerUnavailable`."""
        answers = await asyncio.gather(*(shelf.enroll() for shelf in self._shelves), return_exceptions=True)
        for error in answers:
            # In a cluster one node may be gone while others serve, and other consumers of this worker too.
            passing = isinstance(error, BrokerUnavailable) and self._store.topology.clustered
            if isinstance(error, BaseException) and not passing:
                raise error

    # Taking

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Look, and where nothing is there, wait."""
        if self._stopped or limit <= 0:
            return ()
        self._receiving += 1
        try:
            found = await self._received(limit, wait)
        finally:
            self._receiving -= 1
        if len(found) >= limit:
            self.rest()
        return found

    def put_back(self, deliveries: Sequence[Delivery]) -> None:
        """Take back what was just received, and reached nobody."""
        self._ahead[:0] = [(time.monotonic(), one) for one in deliveries]

    def rest(self) -> None:
        """Take nothing more, and keep nothing ahead, until somebody asks: whoever is full may not for long."""
        if self._ahead or any(shelf.waits for shelf in self._shelves):
            self._begin(self._let_go())

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _let_go(self) -> None:
        await self._unblock()
        if not self._receiving:
            await self._give_back()

    async def _give_back(self) -> None:
        ahead, self._ahead = self._ahead, []
        if not ahead:
            return
        try:
            await settle(self._link, self.name, [given_back(delivery) for _, delivery in ahead], len(self._held))
        except (BrokerUnavailable, asyncio.CancelledError) as error:
            # The server knows whether they were given back.
            for shelf in self._shelves:
                shelf.in_doubt = True
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            for _, delivery in ahead:
                self._held.pop((delivery.queue, delivery.id), None)

    async def _received(self, limit: int, wait: float) -> list[Delivery]:
        until = time.monotonic() + wait
        found = self._kept(limit)
        while not found and not self._stopped:
            await self._look(limit, exact=wait <= 0)
            found = self._kept(limit)
            left = until - time.monotonic()
            if found or left <= 0 or self._stopped:
                break
            await self._wait(limit, left)
            if self._ahead and any(shelf.rung for shelf in self._shelves):
                await self._look(limit, exact=False)
            found = self._kept(limit)
            if time.monotonic() >= until - _MARGIN:
                break
        return found

    def _keep(self, taken: Taken | None) -> None:
        if taken is not None:
            since, deliveries = taken
            for delivery in deliveries:
                self._held[delivery.queue, delivery.id] = delivery.receipt
                self._ahead.append((since, delivery))

    def _kept(self, limit: int) -> list[Delivery]:
        """What was taken, the oldest first. What has lain here for half a lease is left to others."""
        if not self._ahead:
            return []
        oldest = time.monotonic() - self._lease / 2
        fresh = [one for one in self._ahead if one[0] > oldest]
        self._ahead = fresh[limit:]
        return [delivery for _, delivery in fresh[:limit]]

    async def _look(self, limit: int, *, exact: bool) -> None:
        self._turn += 1
        now, errors = time.monotonic(), []
        shelves = self._shelves
        for number in range(len(shelves)):
            shelf = shelves[(self._turn + number) % len(shelves)]
            try:
                self._keep(shelf.come())
                # What rings may be more urgent than what came by waiting.
                wanted = limit if shelf.rung else limit - len(self._ahead)
                if shelf.waits or now < shelf.away_until or wanted <= 0:
                    continue
                if shelf.away_until and any(not other.away_until for other in shelves):
                    shelf.away_until = math.inf
                    self._begin(self._ask_again(shelf))
                    continue
                if not exact and not shelf.needs_a_look(now):
                    continue
                if shelf.in_doubt:
                    await self._regain(shelf)
                self._keep((now, await shelf.look(wanted, self._turn, self._keep)))
                self._back(shelf)
            except BrokerUnavailable as error:
                errors.append(self._gone(shelf, error))
        if len(errors) == len(shelves) and not self._ahead:
            raise errors[0]
        self._ahead.sort(key=_rank)

    async def _regain(self, shelf: Shelf) -> None:
        """Take up what the server lent with an answer that was lost, rather than wait for its lease to lapse."""
        now = time.monotonic()
        lent = await shelf.regain()
        self._keep((now, [one for one in lent if self._held.get((one.queue, one.id)) != one.receipt]))
        still = {(one.queue, one.id) for one in lent}
        if len(self._shelves) == 1:
            # What others have taken over meanwhile is not settled here any more.
            self._held = {job: receipt for job, receipt in self._held.items() if job in still}

    async def _ask_again(self, shelf: Shelf) -> None:
        """Look whether a server is back, while others are served: that it hangs is only known after the timeout."""
        try:
            await self._regain(shelf)
        except BrokerUnavailable as error:
            self._gone(shelf, error)
        except BaseException:
            shelf.away_until = time.monotonic()
            raise
        else:
            self._back(shelf)

    def _gone(self, shelf: Shelf, error: BrokerUnavailable) -> BrokerUnavailable:
        if len(self._shelves) == 1:
            return error  # the worker knows when to ask again
        if not shelf.away_until:
            logger.warning("queue %s is away, the others are served: %s", ", ".join(shelf.queues), error)
        shelf.away_until = time.monotonic() + _AWAY
        return error

    def _back(self, shelf: Shelf) -> None:
        if shelf.away_until:
            logger.info("queue %s is back", ", ".join(shelf.queues))
        shelf.away_until = 0.0

    async def _wait(self, limit: int, left: float) -> None:
        now = time.monotonic()
        here = [shelf for shelf in self._shelves if shelf.away_until <= now]
        pauses = [shelf.pause(now) for shelf in here if not shelf.waits]
        if pauses and min(pauses) <= _MARGIN:
            return
        tasks = [shelf.wait(limit, min(left, shelf.pause(now))) for shelf in here]
        # The server ends each wait in its time; one that was begun by an earlier call may last longer than this one.
        again = min((shelf.away_until - now for shelf in self._shelves if shelf not in here), default=left)
        events = [*tasks, *self._beside]
        if not events:
            await asyncio.sleep(min(left, again))
            return
        await asyncio.wait(events, timeout=min(left, again) + 2 * _MARGIN, return_when=asyncio.FIRST_COMPLETED)
        for shelf in self._shelves:
            try:
                self._keep(shelf.come())
            except BrokerUnavailable as error:
                self._gone(shelf, error)
                if len(self._shelves) == 1:
                    raise

    async def _unblock(self) -> None:
        await asyncio.gather(*(shelf.unblock() for shelf in self._shelves))
        for shelf in self._shelves:
            try:
                self._keep(shelf.come())
            except BrokerUnavailable as error:
                self._gone(shelf, error)

    # Settling

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool | None]:
        """One script for each queue."""
        answers = await settle(self._link, self.name, settlements, len(self._held))
        held = self._held
        for settlement, answer in zip(settlements, answers, strict=True):
            delivery = settlement.delivery
            job = (delivery.queue, delivery.id)
            if answer is not None and held.get(job) is delivery.receipt:
                del held[job]
        return answers

    def leases(self) -> Leases:
        """A keeper with a connection of its own."""
        return RedisLeases(self._store, self.name, self._lease)

    # Its end

    async def stop(self) -> None:
        """Take nothing more; what was taken and not handed out goes back."""
        self._stopped = True
        await self._unblock()
        for shelf in self._shelves:
            await shelf.looked()
        if self._beside:
            await asyncio.wait(self._beside)
        # One turn: a `receive` that was waiting takes what it waited for.
        await asyncio.sleep(0)
        await self._give_back()

    async def close(self) -> None:
        """Let go of connections."""
        await self.stop()
        for shelf in self._shelves:
            await shelf.close()


def _rank(taken: tuple[float, Delivery]) -> int:
    priority: int = taken[1].receipt.priority
    return -priority
