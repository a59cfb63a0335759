"""Queues whose keys lie on one server: they are looked at, and waited for, together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from camora.errors import BrokerUnavailable
from camora.message import Delivery

from camora_redis.calling import answered
from camora_redis.errors import ConnectionLost, ServerError, unavailable
from camora_redis.link import Link
from camora_redis.reading import deliveries_of, delivery_of
from camora_redis.scripting import script
from camora_redis.wire import Wire, pack

__all__ = ["Shelf"]

_TAKE, _REGAIN, _ENROLL, _ENLIST = script("take"), script("regain"), script("enroll"), script("enlist")
_NAP = 5.0
"""Seconds after which who waits looks, whatever wakes him before: another may have heard what concerns him, too."""

Taken = tuple[float, list[Delivery]]
"""Deliveries, and the monotonic time before they were asked for: their leases began then or later."""


class Shelf:
    """One consumer's way to some queues: it looks with a script, and waits at the streams themselves.

    Looking is exact (pauses, priorities, what has come due, lapsed leases); waiting hands a message out in one round
    trip. Both go on when their caller is cancelled, so that nothing is taken unseen.
    """

    def __init__(self, link: Link, consumer: str, lease: float, queues: Sequence[str]) -> None:
        self.queues = list(queues)
        self._link = link
        self._consumer = consumer
        self._lease = lease
        self._group = link.store.keys.group
        self._streams = [link.store.keys.of_queue(queue) for queue in queues]
        self._bells = {link.store.keys.helper(queue, "bell"): link.store.keys.of_queue(queue) for queue in queues}
        self._bells_heard: list[tuple[str, bytes]] = []
        self._wire: Wire | None = None
        self._waiting: asyncio.Task[Taken] | None = None
        self._called_off = False
        self._left: set[asyncio.Future[Any]] = set()
        """Looks under way whose callers were cancelled."""
        self._due = 0.0
        self._sweep = 0.0
        self._plain = False
        self.in_doubt = False
        """True after a call that may have taken something without our hearing of it."""
        self.away_until = 0.0
        """Monotonic seconds until which its server is left alone, because it did not answer."""

    # Looking

    def needs_a_look(self, now: float) -> bool:
        """False where waiting does as well: one queue, one priority, nothing due, no leases to look after."""
        return not self._plain or self.in_doubt or self.rung or now >= self._due or now >= self._sweep

    async def look(self, limit: int, turn: int, late: Callable[[Taken], None]) -> list[Delivery]:
        """Take up to `limit` messages that are there now. `late` gets them where the caller was cancelled meanwhile.

        `turn` is a number that grows: each queue is the first in its turn, so that none starves behind another one.
        Raises `BrokerUnavailable`.
        """
        now = time.monotonic()
        sweep = now >= self._sweep
        at = turn % len(self._streams)
        streams = self._streams[at:] + self._streams[:at]
        queues = self.queues[at:] + self.queues[:at]
        numbers = {stream: number for number, stream in enumerate(streams, 1)}
        heard, self._bells_heard = self._bells_heard, []
        bells = [word for stream, entry in heard for word in (numbers[stream], entry)]
        taking = self._link.run(_TAKE, streams, self._group, self._consumer, limit, int(sweep), *bells)
        task = asyncio.ensure_future(self._certain(taking))
        try:
            soon, again, others, *lanes = await asyncio.shield(task)
        except asyncio.CancelledError:
            self._left.add(task)
            task.add_done_callback(self._left.discard)
            task.add_done_callback(lambda done: _hand_over(done, now, queues, late))
            raise
        self._plain = len(self.queues) == 1 and not others
        self._due = now + (soon / 1000 if soon >= 0 else _NAP)
        if sweep:
            # Others' leases may be shorter than ours.
            self._sweep = now + min(self._lease / 3, _NAP, again / 1000 if again >= 0 else _NAP)
        return deliveries_of(lanes, queues)

    async def _certain(self, call: Awaitable[Any]) -> Any:
        try:
            return await answered(self._link, call)
        except (BrokerUnavailable, asyncio.CancelledError):
            # Whoever cancels all tasks does not reach the server.
            self.in_doubt = True
            raise

    async def regain(self) -> list[Delivery]:
        """All that this consumer has on loan by the server's account. Raises `BrokerUnavailable`."""
        lanes = await answered(self._link, self._link.run(_REGAIN, self._streams, self._group, self._consumer))
        self.in_doubt = False
        return deliveries_of(lanes, self.queues)

    # Waiting

    @property
    def waits(self) -> bool:
        """True while something may come that was not looked at yet."""
        return self._waiting is not None

    @property
    def rung(self) -> bool:
        """True while somebody wants it to look: there may be something more urgent than what came by waiting."""
        return bool(self._bells_heard)

    def pause(self, now: float) -> float:
        """Seconds until there is a reason to look again, though nobody publishes."""
        return min(self._due - now, self._sweep - now, _NAP)

    def wait(self, limit: int, seconds: float) -> asyncio.Task[Taken]:
        """Begin to wait at the streams, or go on with it; the task ends when something has come, or with the time."""
        if self._waiting is None:
            self._called_off = False
            self._waiting = asyncio.get_running_loop().create_task(self._at_streams(limit, seconds))
        return self._waiting

    def come(self) -> Taken | None:
        """What has come by waiting; None while it goes on, or where nobody waits. Raises `BrokerUnavailable`."""
        waiting = self._waiting
        if waiting is None or not waiting.done():
            return None
        self._waiting = None
        return (0.0, []) if waiting.cancelled() else waiting.result()

    async def _at_streams(self, limit: int, seconds: float) -> Taken:
        since = time.monotonic()
        wire = self._wire
        if wire is None or wire.closed:
            wire = self._wire = await self._link.new_wire(self._streams[0])
            wire.client_id = await answered(self._link, wire.call("CLIENT", "ID"))
            if self._called_off:
                return since, []
        names = [*self._streams, *self._bells]
        head = ("XREADGROUP", "GROUP", self._group, self._consumer, "COUNT", limit)
        words = (*head, "BLOCK", max(1, round(seconds * 1000)), "STREAMS", *names, *(">" for _ in names))
        try:
            answer = await self._certain(wire.send(pack(words), longer=seconds))
        except asyncio.CancelledError:
            # So that the server takes nothing more for it.
            wire.abort(ConnectionLost("its wait was cancelled"))
            raise
        if isinstance(answer, ServerError):
            await self._refused(wire, answer)
            return since, []
        if not answer:
            return since, []
        return since, self._read(answer.items() if isinstance(answer, dict) else answer)

    def _read(self, streams: Iterable[Any]) -> list[Delivery]:
        found: list[Delivery] = []
        for name, entries in streams:
            stream = name.decode()
            if stream in self._streams:
                queue = self.queues[self._streams.index(stream)]
                found += [delivery_of(queue, 0, entry, fields, 1) for entry, fields in entries]
            else:
                self._bells_heard += [(self._bells[stream], entry) for entry, _ in entries]
                self._due = 0.0
        return found

    async def _refused(self, wire: Wire, error: ServerError) -> None:
        if error.code in ("NOGROUP", "UNBLOCKED"):
            # Emptied by somebody, or moved to another node.
            await self.enroll()
            self._due = 0.0
            if error.code == "UNBLOCKED":
                await wire.close()
            return
        await wire.close()
        self._link.redirected(wire, error)
        if error.code not in ("MOVED", "ASK"):
            raise unavailable(self._link.who, error)
        self._due = 0.0

    async def enroll(self) -> None:
        """Make the groups where they are missing, and the queues known. Raises `BrokerUnavailable`."""
        name = self._link.store.keys.queues
        grouped = answered(self._link, self._link.run(_ENROLL, self._streams, self._group))
        known = answered(self._link, self._link.run(_ENLIST, (name,), *self.queues))
        answers: Sequence[Any] = await asyncio.gather(grouped, known, return_exceptions=True)
        first, second = answers
        if isinstance(first, BaseException):
            raise first
        # In a cluster the node of the names may be gone while these queues can be served.
        alone = not self._link.store.topology.clustered
        if isinstance(second, BaseException) and (alone or not isinstance(second, BrokerUnavailable)):
            raise second

    # Its end

    async def unblock(self) -> None:
        """End the wait on the server, so that it is certain what it took."""
        waiting, wire = self._waiting, self._wire
        if waiting is None:
            return
        if not waiting.done():
            if wire is None or wire.closed or not wire.client_id:
                # Who opens a connection may not hear of it: the redis client swallows some cancellations.
                self._called_off = True
                waiting.cancel()
            else:
                try:
                    await self._link.call_at(wire.home, "CLIENT", "UNBLOCK", wire.client_id)
                except (BrokerUnavailable, ConnectionLost, ServerError) as error:
                    self.in_doubt = True
                    wire.abort(ConnectionLost(str(error)))
        await asyncio.wait([waiting])

    async def looked(self) -> None:
        """Wait for looks whose callers are gone."""
        if self._left:
            await asyncio.wait(self._left)

    async def close(self) -> None:
        """Let go of the connection."""
        if self._wire is not None:
            await self._wire.close()
            self._wire = None


def _hand_over(done: asyncio.Future[Any], since: float, queues: Sequence[str], late: Callable[[Taken], None]) -> None:
    if not done.cancelled() and done.exception() is None:
        late((since, deliveries_of(done.result()[3:], queues)))
