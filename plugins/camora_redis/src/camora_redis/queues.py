"""Looking into queues, and stopping things in them."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Mapping, Sequence
from typing import Any

from camora.errors import UnsupportedCapability
from camora.interfaces.queues import CancelResult, QueuedJob, Queues

from camora_redis.calling import answered
from camora_redis.link import Link
from camora_redis.scripting import script

__all__ = ["RedisQueues", "known_queues"]

_FIND, _COUNT, _CANCEL = script("find"), script("count"), script("cancel")
_RESCHEDULE = script("reschedule")
_PAUSE, _PURGE, _ENLIST = script("pause"), script("purge"), script("enlist")
_SCANNED = 1000
_STATES = ("ready", "scheduled", "leased", "dead")


async def known_queues(link: Link) -> list[str]:
    """The names of all queues that were ever used. Raises `BrokerUnavailable`."""
    name = link.store.keys.queues
    return sorted(queue.decode() for queue in await answered(link, link.call(name, "SMEMBERS", name)))


class RedisQueues(Queues):
    """One script for each question and queue. What asks for a job without its queue asks all of them."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._keys = link.store.keys
        self._group = link.store.keys.group

    def _pair(self, queue: str) -> tuple[str, str]:
        return self._keys.of_queue(queue), self._keys.failures_of(queue)

    async def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Messages per queue and state."""
        queues = sorted({*await known_queues(self._link), *self._keys.kinds.lists})
        found = await asyncio.gather(
            *(answered(self._link, self._link.run(_COUNT, self._pair(queue), self._group)) for queue in queues)
        )
        lists = await self._in_lists(queues)
        return {
            queue: {state: number for state, number in zip(_STATES, (ready + more, *others), strict=True) if number > 0}
            for queue, (ready, *others), more in zip(queues, found, lists, strict=True)
            if ready or more or any(others)
        }

    async def _in_lists(self, queues: Sequence[str]) -> list[int]:
        """How many messages of each queue lie in its list, where it has one, and were not moved yet."""
        lists = self._keys.kinds.lists
        keys = [lists[queue].list_key for queue in queues if queue in lists]
        lengths = iter(await answered(self._link, self._link.calls([(key, ("LLEN", key)) for key in keys])))
        return [next(lengths) if queue in lists else 0 for queue in queues]

    async def find(self, job_id: str) -> QueuedJob | None:
        """Where it lies."""
        queues = await known_queues(self._link)
        calls = [self._link.run(_FIND, self._pair(queue), self._group, 1, job_id) for queue in queues]
        found = await answered(self._link, asyncio.gather(*calls))
        for queue, [one] in zip(queues, found, strict=True):
            if one:
                return _shown(queue, job_id, one)
        return None

    async def list(self, queue: str, *, limit: int = 100, after: str = "") -> Sequence[QueuedJob]:
        """A page of the unfinished: all ids are looked through."""
        index, cursor = self._keys.helper(queue, "index"), b"0"
        ids: Sequence[str] = []
        while True:
            call = self._link.call(index, "HSCAN", index, cursor, "COUNT", _SCANNED)
            cursor, flat = await answered(self._link, call)
            pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
            here = [name.decode() for name, place in pairs if name and place != b"-" and place[:1] != b"x"]
            # A scan may come by the same one twice.
            ids = heapq.nsmallest(limit, {*ids, *(job_id for job_id in here if job_id > after)})
            if cursor in (b"0", 0):
                break
        if not ids:
            return []
        found = await answered(self._link, self._link.run(_FIND, self._pair(queue), self._group, 0, *ids))
        return [_shown(queue, job_id, one) for job_id, one in zip(ids, found, strict=True) if one]

    async def cancel(self, job_id: str) -> CancelResult:
        """Remove or flag, in whichever queue it is."""
        queues = await known_queues(self._link)
        window = self._link.store.settings.dedup_window
        calls = [
            self._link.run(_CANCEL, (self._keys.of_queue(queue),), self._group, window, job_id) for queue in queues
        ]
        answers = [CancelResult(one.decode()) for one in await answered(self._link, asyncio.gather(*calls))]
        return next((one for one in answers if one is not CancelResult.UNKNOWN), CancelResult.UNKNOWN)

    async def reschedule(self, job_id: str, due: int) -> bool:
        """Move it, in whichever queue it waits."""
        queues = await known_queues(self._link)
        calls = [
            self._link.run(_RESCHEDULE, (self._keys.of_queue(queue),), self._group, job_id, due) for queue in queues
        ]
        return any(await answered(self._link, asyncio.gather(*calls)))

    async def pause(self, queue: str, *, paused: bool = True) -> None:
        """Stop or let go on."""
        if queue in self._keys.kinds.broadcasts:
            raise UnsupportedCapability(
                f"queue {queue!r} is a PubSubQueue: nothing is stored that could wait until it is resumed. Stop its "
                "workers, or use a plain queue",
                capability="pause",
            )
        if paused:
            await answered(self._link, self._link.run(_ENLIST, (self._keys.queues,), queue))
        call = self._link.run(_PAUSE, (self._keys.of_queue(queue),), "p" if paused else "r", self._group)
        if await answered(self._link, call) == 2:
            await answered(self._link, self._link.call(self._keys.queues, "SREM", self._keys.queues, queue))

    async def paused(self) -> Sequence[str]:
        """In order of name."""
        queues = await known_queues(self._link)
        names = [self._keys.helper(queue, "index") for queue in queues]
        states = await answered(self._link, self._link.calls([(name, ("HGET", name, "")) for name in names]))
        return [queue for queue, state in zip(queues, states, strict=True) if state is not None and state[:1] == b"p"]

    async def purge(self, queue: str) -> int:
        """Delete what waits, some hundreds in each step."""
        total = await self._purge_list(queue)
        while True:
            window = self._link.store.settings.dedup_window
            call = self._link.run(_PURGE, (self._keys.of_queue(queue),), self._group, window)
            gone: int = await answered(self._link, call)
            total += gone
            if not gone:
                return total

    async def _purge_list(self, queue: str) -> int:
        """What others, or we, have put into the list of this queue, and nobody has taken yet."""
        if queue not in self._keys.kinds.lists:
            return 0
        key, total = self._keys.kinds.lists[queue].list_key, 0
        while gone := await answered(self._link, self._link.call(key, "LPOP", key, 500)):
            total += len(gone)
        return total


def _shown(queue: str, job_id: str, found: Any) -> QueuedJob:
    state, fields, due, taken, consumer = found
    named = dict(zip(fields[::2], fields[1::2], strict=True))
    base = int(named.get(b"n", 0))
    return QueuedJob(
        id=job_id,
        task=(named.get(b"t") or named.get(b"task") or b"").decode(),
        queue=queue,
        state=state.decode(),
        due=round(float(due)),
        deliveries=base + taken,
        worker=consumer.decode().rsplit("|", 2)[0],
        body=named.get(b"b", b""),
    )
