"""The journal in Redis: a hash for each job that is done in steps, which expires."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Self

from camora.interfaces.journal import Journal

from camora_redis.calling import answered
from camora_redis.keeping import kept
from camora_redis.link import Link
from camora_redis.opening import check_server
from camora_redis.scripting import script
from camora_redis.store import Store

__all__ = ["RedisJournal"]

_ENTER, _POST = script("journal_enter"), script("journal_post")


class RedisJournal(Journal):
    """Each method is one script, so one atomic step, and one key for each job."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._link = Link(store, f"RedisJournal({store.label})")

    def __repr__(self) -> str:
        return f"RedisJournal({self._store.label!r})"

    async def open(self) -> None:
        """Connect, and look what server it is."""
        await check_server(self._link)

    def _key(self, job_id: str) -> str:
        return self._store.keys.shard(job_id, f"journal:{job_id}")

    async def claim(self, job_id: str, token: int, keep: float) -> Mapping[str, bytes] | None:
        """One step."""
        flat = await answered(self._link, self._link.run(_ENTER, (self._key(job_id),), token, kept(keep)))
        return None if flat is None else _entries(flat)

    async def write(self, job_id: str, token: int, name: str, value: bytes, keep: float) -> bytes | None:
        """One step."""
        call = self._link.run(_ENTER, (self._key(job_id),), token, kept(keep), name, value)
        stands: bytes | None = await answered(self._link, call)
        return stands

    async def post(self, job_id: str, name: str, value: bytes, keep: float, post_id: str) -> int:
        """One step."""
        call = self._link.run(_POST, (self._key(job_id),), kept(keep), name, value, post_id)
        return int(await answered(self._link, call))

    async def read(self, job_id: str) -> Mapping[str, bytes]:
        """One look."""
        key = self._key(job_id)
        found: Any = await answered(self._link, self._link.call(key, "HGETALL", key))
        # As a mapping by RESP3.
        flat: list[Any] = list(itertools.chain.from_iterable(found.items())) if isinstance(found, dict) else found
        return _entries(flat)

    async def forget(self, job_ids: Sequence[str]) -> int:
        """One step for each."""
        keys = [self._key(job_id) for job_id in dict.fromkeys(job_ids)]
        gone = await answered(self._link, asyncio.gather(*(self._link.call(key, "DEL", key) for key in keys)))
        return sum(gone)

    def twin(self) -> Self:
        """Another one on the same data, with connections of its own."""
        return type(self)(self._store)

    def abandon(self) -> None:
        """Let go of the sockets of a loop that is gone."""
        self._link.abandon()

    async def close(self) -> None:
        """Close all connections."""
        await self._link.close()


def _entries(flat: Sequence[Any]) -> dict[str, bytes]:
    """The fields that are entries, without the letter that says so."""
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return {name[1:].decode(): value for name, value in pairs if name[:1] == b"e"}
