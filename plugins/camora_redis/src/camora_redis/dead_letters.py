"""The dead letters: a stream for each queue."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence
from typing import Any

import msgspec
from camora.interfaces.dead_letters import DeadLetters
from camora.outcome import DeadLetter

from camora_redis.calling import answered
from camora_redis.link import Link
from camora_redis.queues import known_queues
from camora_redis.scripting import script

__all__ = ["RedisDeadLetters"]

_REQUEUE, _FORGET = script("requeue"), script("forget_letters")
_PAGE = 500
_decode = msgspec.json.Decoder(DeadLetter).decode


class RedisDeadLetters(DeadLetters):
    """Letters are kept until somebody requeues or purges them: they are not bounded."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._keys = link.store.keys

    async def list(self, *, queue: str | None = None, limit: int = 100, after: str = "") -> Sequence[DeadLetter]:
        """A page: the streams are in order of death, so all of them are looked through."""
        queues = [queue] if queue is not None else await known_queues(self._link)
        page: list[tuple[str, bytes, bytes]] = []
        for one in queues:
            name, start = self._keys.failures_of(one), "-"
            while True:
                call = self._link.call(name, "XRANGE", name, start, "+", "COUNT", _PAGE)
                entries = await answered(self._link, call)
                named = [_fields(fields) for _, fields in entries]
                # What a stranger has written is no letter; a purge takes it along.
                ours = [letter for letter in named if b"id" in letter and b"letter" in letter]
                here = [(letter[b"id"].decode(), letter[b"letter"], letter[b"b"]) for letter in ours]
                page = heapq.nsmallest(limit, page + [letter for letter in here if letter[0] > after])
                if len(entries) < _PAGE:
                    break
                start = f"({entries[-1][0].decode()}"
        return [_letter(letter, body) for _, letter, body in page]

    async def get(self, job_id: str) -> DeadLetter | None:
        """One."""
        queues = await known_queues(self._link)
        names = [self._keys.helper(queue, "index") for queue in queues]
        places = await answered(self._link, self._link.calls([(name, ("HGET", name, job_id)) for name in names]))
        for queue, place in zip(queues, places, strict=True):
            if place is not None and place[:1] == b"x":
                name, entry = self._keys.failures_of(queue), place[1:]
                entries = await answered(self._link, self._link.call(name, "XRANGE", name, entry, entry))
                if entries:
                    fields = _fields(entries[0][1])
                    return _letter(fields[b"letter"], fields[b"b"])
        return None

    async def requeue(self, job_id: str, *, body: bytes | None = None) -> bool:
        """Back into its queue, as a message that was never taken."""
        queues = await known_queues(self._link)
        calls = [
            self._link.run(
                _REQUEUE,
                (self._keys.of_queue(queue), self._keys.failures_of(queue)),
                job_id,
                int(body is not None),
                body or b"",
                self._keys.record(queue, job_id),
            )
            for queue in queues
        ]
        return any(await answered(self._link, asyncio.gather(*calls)))

    async def purge(self, *, queue: str | None = None, ids: Sequence[str] | None = None) -> int:
        """Delete for good, some hundreds in each step."""
        queues = [queue] if queue is not None else await known_queues(self._link)
        total = 0
        for one in queues:
            if ids is None:
                while gone := await self._forget(one, ()):
                    total += gone
            else:
                for at in range(0, len(ids), _PAGE):
                    total += await self._forget(one, ids[at : at + _PAGE])
        return total

    async def _forget(self, queue: str, ids: Sequence[str]) -> int:
        pair = (self._keys.of_queue(queue), self._keys.failures_of(queue))
        window = self._link.store.settings.dedup_window
        gone: int = await answered(self._link, self._link.run(_FORGET, pair, window, *ids))
        return gone


def _letter(letter: bytes, body: bytes) -> DeadLetter:
    return msgspec.structs.replace(_decode(letter), body=body)


def _fields(flat: Any) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
