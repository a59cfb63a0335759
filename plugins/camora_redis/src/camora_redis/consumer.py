"""One worker's hold on a set of queues."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import Any

import attrs
from camora.errors import BrokerUnavailable
from camora.interfaces.broker import Consumer, ConsumerSettings, Leases
from camora.message import Delivery
from camora.outcome import Settlement

from camora_redis.errors import ConnectionLost, ServerError, unavailable
from camora_redis.leases import RedisLeases
from camora_redis.link import Link, script
from camora_redis.receipt import Receipt
from camora_redis.settling import settle
from camora_redis.store import Store
from camora_redis.wire import Wire, pack

__all__ = ["RedisConsumer"]

_TAKE = script("take")
_NAP = 5.0
"""Seconds after which a wait begins anew, whatever wakes it before."""
_MARGIN = 0.001


@attrs.define
class _Shelf:
    """Queues whose keys lie on one server: they are looked at, and waited for, together."""

    queues: list[str]
    streams: list[str]
    due: float = 0.0
    """Monotonic seconds: when to look again, because something is due then."""
    sweep: float = 0.0
    """Monotonic seconds: when to look for lapsed leases again."""
    bells: list[Any] = attrs.field(factory=list)
    wire: Wire | None = None
    waiting: asyncio.Task[list[Delivery]] | None = None


class RedisConsumer(Consumer):
    """Looks with one script, then waits at the streams themselves: a message is handed out in one round trip."""

    def __init__(self, link: Link, settings: ConsumerSettings) -> None:
        self._link = link
        self._store: Store = link.store
        self._lease = settings.lease
        self._group = link.store.keys.group
        self.name = f"{settings.worker}|{secrets.token_hex(4)}|{max(1, round(settings.lease * 1000))}"
        """The name of the group's consumer: whoever sees it knows how long its leases are."""
        self._queues = list(dict.fromkeys(settings.queues))
        self._shelves = self._arranged()
        self._turn = 0
        self._ahead: list[tuple[float, Delivery]] = []
        self._held = 0
        self._stopped = False

    def _arranged(self) -> list[_Shelf]:
        keys = self._store.keys
        if not self._store.topology.clustered:
            return [_Shelf(self._queues, [keys.of_queue(queue) for queue in self._queues])]
        # A wait at keys of several slots is refused, on one node too.
        return [_Shelf([queue], [keys.of_queue(queue)]) for queue in self._queues]

    # Taking

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """Look, and where nothing is there, wait."""
        if self._stopped or limit <= 0:
            return ()
        until = time.monotonic() + wait
        found = self._kept(limit)
        while not found and not self._stopped:
            found = await self._look(limit)
            left = until - time.monotonic()
            if found or left <= 0:
                break
            found = await self._wait(limit, left)
            if not found and time.monotonic() >= until - _MARGIN:
                break
        self._held += len(found)
        return found

    def _kept(self, limit: int) -> list[Delivery]:
        """What came with an earlier call that was cancelled; what is too old for its lease is others' by now."""
        if not self._ahead:
            return []
        oldest = time.monotonic() - self._lease / 2
        fresh = [(since, delivery) for since, delivery in self._ahead if since > oldest]
        self._ahead = fresh[limit:]
        return [delivery for _, delivery in fresh[:limit]]

    async def _look(self, limit: int) -> list[Delivery]:
        found: list[Delivery] = []
        shelves = self._shelves
        self._turn += 1
        for number in range(len(shelves)):
            shelf = shelves[(self._turn + number) % len(shelves)]
            if shelf.waiting is None and len(found) < limit:
                found += await self._take(shelf, limit - len(found))
        for shelf in shelves:
            if shelf.waiting is not None and shelf.waiting.done() and len(found) < limit:
                found += self._gather(shelf)
        extra = found[limit:]
        self._ahead += [(time.monotonic(), delivery) for delivery in extra]
        return found[:limit]

    async def _take(self, shelf: _Shelf, limit: int) -> list[Delivery]:
        now = time.monotonic()
        sweep = now >= shelf.sweep
        # Each queue is the first in its turn, so that none starves behind another one's backlog.
        at = self._turn % len(shelf.streams)
        streams = shelf.streams[at:] + shelf.streams[:at]
        queues = shelf.queues[at:] + shelf.queues[:at]
        bells, shelf.bells = shelf.bells, []
        numbers = {stream: number for number, stream in enumerate(streams, 1)}
        words = [word for stream, entry in bells for word in (numbers[stream], entry)]
        taking = self._link.run(_TAKE, streams, self._group, self.name, limit, int(sweep), *words)
        soon, again, *lanes = await _kept_alive(taking, lambda answer: self._keep_late(answer, queues))
        if soon >= 0:
            shelf.due = now + soon / 1000
        else:
            shelf.due = now + 3600.0
        if sweep:
            shelf.sweep = now + min(self._lease / 3, again / 1000 if again >= 0 else self._lease / 3)
        return _deliveries(lanes, queues)

    def _keep_late(self, answer: Any, queues: Sequence[str]) -> None:
        """A call whose caller was cancelled has answered: what it took comes with the next one."""
        now = time.monotonic()
        self._ahead += [(now, delivery) for delivery in _deliveries(answer[2:], queues)]

    async def _wait(self, limit: int, left: float) -> list[Delivery]:
        now = time.monotonic()
        waits = []
        for shelf in self._shelves:
            pause = min(left, shelf.due - now, shelf.sweep - now, _NAP)
            if pause <= _MARGIN:
                return []
            waits.append((shelf, pause))
        loop = asyncio.get_running_loop()
        for shelf, pause in waits:
            if shelf.waiting is None:
                shelf.waiting = loop.create_task(self._at_streams(shelf, limit, pause))
        tasks = [shelf.waiting for shelf in self._shelves if shelf.waiting is not None]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        found: list[Delivery] = []
        for shelf in self._shelves:
            if shelf.waiting is not None and shelf.waiting.done():
                found += self._gather(shelf)
        if len(self._shelves) > 1:
            await self._unblock()
            for shelf in self._shelves:
                if shelf.waiting is not None:
                    await asyncio.wait([shelf.waiting])
                    found += self._gather(shelf)
        self._ahead += [(time.monotonic(), delivery) for delivery in found[limit:]]
        return found[:limit]

    def _gather(self, shelf: _Shelf) -> list[Delivery]:
        waiting, shelf.waiting = shelf.waiting, None
        return waiting.result() if waiting is not None and not waiting.cancelled() else []

    async def _at_streams(self, shelf: _Shelf, limit: int, pause: float) -> list[Delivery]:
        """Wait at the streams and their bells; in a task of its own, so that no cancellation loses what comes."""
        wire = shelf.wire
        if wire is None or wire.closed:
            wire = shelf.wire = await self._link.new_wire(shelf.streams[0])
            wire.client_id = await wire.call("CLIENT", "ID")
        bells = [f"{{{stream}}}:bell" for stream in shelf.streams]
        names = [*shelf.streams, *bells]
        block = max(1, round(pause * 1000))
        words = ("XREADGROUP", "GROUP", self._group, self.name, "COUNT", limit, "BLOCK", block, "STREAMS")
        try:
            answer = await wire.send(pack((*words, *names, *(">" for _ in names))), longer=pause)
        except ConnectionLost as error:
            raise unavailable(self._link.who, error) from error
        if isinstance(answer, ServerError):
            return await self._refused(shelf, wire, answer)
        if not answer:
            return []
        read = answer.items() if isinstance(answer, dict) else answer
        return self._heard(shelf, read)

    async def _refused(self, shelf: _Shelf, wire: Wire, error: ServerError) -> list[Delivery]:
        if error.code in ("NOGROUP", "UNBLOCKED", "ERR", "WRONGTYPE") and "group" not in str(error).lower():
            if error.code != "UNBLOCKED":
                raise unavailable(self._link.who, error)
        elif error.code not in ("NOGROUP", "UNBLOCKED"):
            await wire.close()
            shelf.wire = None
            self._link.topology.look_again()
            if error.code not in ("MOVED", "ASK"):
                raise unavailable(self._link.who, error)
        await self.enroll()
        return []

    def _heard(self, shelf: _Shelf, read: Iterable[Any]) -> list[Delivery]:
        found: list[Delivery] = []
        for name, entries in read:
            stream = name.decode()
            if stream in shelf.streams:
                queue = shelf.queues[shelf.streams.index(stream)]
                found += [_delivery(queue, 0, entry, fields, 1) for entry, fields in entries]
            else:
                stream = stream[1 : -len("}:bell")]
                shelf.bells += [(stream, entry) for entry, _ in entries]
                shelf.due = 0.0
        return found

    async def enroll(self) -> None:
        """Make the group where it is missing, and the queues known. Raises `BrokerUnavailable`."""
        keys = self._store.keys
        made = []
        for queue in self._queues:
            stream = keys.of_queue(queue)
            for name in (stream, f"{{{stream}}}:bell"):
                made.append((stream, ("XGROUP", "CREATE", name, self._group, "0", "MKSTREAM")))
        answers = await asyncio.gather(*(self._link.call(key, *words) for key, words in made), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and "BUSYGROUP" not in str(answer):
                if isinstance(answer, (ServerError, ConnectionLost)):
                    raise unavailable(self._link.who, answer)
                raise answer
        await _told(self._link, self._link.call(keys.queues, "SADD", keys.queues, *self._queues))

    # Settling

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
        """One script for each queue."""
        answers = await settle(self._link, self.name, settlements, self._held)
        self._held = max(0, self._held - len(settlements))
        return answers

    def leases(self) -> Leases:
        """A keeper with a connection of its own."""
        return RedisLeases(self._store, self.name)

    # Its end

    async def stop(self) -> None:
        """Take nothing more; what was taken and not handed out goes back."""
        self._stopped = True
        await self._unblock()
        for shelf in self._shelves:
            if shelf.waiting is not None:
                await asyncio.wait([shelf.waiting])
        await asyncio.sleep(0)
        with contextlib.suppress(BrokerUnavailable):
            await self._give_back()

    async def _unblock(self) -> None:
        """End waits on the server, so that it is certain what they took."""
        for shelf in self._shelves:
            if shelf.waiting is None or shelf.waiting.done():
                continue
            wire = shelf.wire
            try:
                if wire is None or wire.closed or not wire.client_id:
                    shelf.waiting.cancel()
                else:
                    await self._link.call(shelf.streams[0], "CLIENT", "UNBLOCK", wire.client_id)
            except (BrokerUnavailable, ConnectionLost, ServerError) as error:
                if wire is not None:
                    wire.abort(ConnectionLost(str(error)))

    async def _give_back(self) -> None:
        from camora_redis.settling import given_back

        for shelf in self._shelves:
            if shelf.waiting is not None and shelf.waiting.done():
                with contextlib.suppress(BrokerUnavailable):
                    self._ahead += [(0.0, delivery) for delivery in self._gather(shelf)]
        ahead, self._ahead = self._ahead, []
        if ahead:
            await settle(self._link, self.name, [given_back(delivery) for _, delivery in ahead], self._held)

    async def close(self) -> None:
        """Let go of connections; the group forgets this consumer if it has nothing on loan."""
        await self.stop()
        for shelf in self._shelves:
            if shelf.wire is not None:
                await shelf.wire.close()
                shelf.wire = None


async def _kept_alive(call: Any, keep: Any) -> Any:
    """The answer of a call that goes on when its caller is cancelled: then `keep` gets the answer."""
    task = asyncio.ensure_future(call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(lambda done: None if done.cancelled() or done.exception() else keep(done.result()))
        raise
    except (ConnectionLost, ServerError) as error:
        raise BrokerUnavailable(str(error)) from error


async def _told(link: Link, call: Any) -> Any:
    try:
        return await call
    except (ConnectionLost, ServerError) as error:
        raise unavailable(link.who, error) from error


def _deliveries(lanes: Sequence[Any], queues: Sequence[str]) -> list[Delivery]:
    found = []
    for number, priority, entries in lanes:
        queue = queues[number - 1]
        for entry, fields, *taken in entries:
            found.append(_delivery(queue, priority, entry, fields, taken[0] if taken else 1))
    return found


def _delivery(queue: str, priority: int, entry: bytes, fields: Any, taken: int) -> Delivery:
    # As `scripts/common.lua` writes them: id, task and body come first; the rest is rare.
    if len(fields) == 6:
        return Delivery(
            id=fields[1].decode(),
            queue=queue,
            body=fields[5],
            deliveries=taken,
            receipt=Receipt(priority, entry.decode(), taken),
        )
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    key = named.get(b"k")
    return Delivery(
        id=named[b"i"].decode(),
        queue=queue,
        body=named[b"b"],
        deliveries=int(named.get(b"n", 0)) + taken,
        receipt=Receipt(
            priority, entry.decode(), taken, "" if key is None else key.decode(), float(named.get(b"l", 0))
        ),
    )
