"""Looking up records: by id alone, wherever they lie."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import msgspec
from camora.errors import BrokerUnavailable, ConfigurationError, DecodeError
from camora.outcome import JobRecord

from camora_redis.calling import answered
from camora_redis.link import Link
from camora_redis.queues import known_queues
from camora_redis.records import read_record

__all__ = ["Lookup", "finished", "record_of"]

_BATCH = 500


def finished(value: bytes | None) -> bool:
    """Whether it is the value of a finished record."""
    return value is not None and value[:1] == b"F"


def record_of(job_id: str, value: bytes | None) -> JobRecord | None:
    """The record in a value. Raises `DecodeError`."""
    try:
        return read_record(value)
    except msgspec.MsgspecError as error:
        raise DecodeError(f"the record of job {job_id} cannot be read: {error}") from error


class Lookup:
    """A record's key begins with its home, and ends with the id.

    A single server has one home for all. In a cluster each queue has its own, in its slot, and so have records without
    a queue; who does not know the queue of a job asks at all homes.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._keys = link.store.keys
        self._known: list[str] = []

    async def homes(self) -> list[str]:
        """All homes. Raises `BrokerUnavailable` where they cannot be found out."""
        if not self._keys.clustered:
            return [self._keys.record("", "")]
        try:
            self._known = await known_queues(self._link)
        except BrokerUnavailable:
            # Their node is gone. Those of other nodes can be asked all the same.
            if not self._known:
                raise
        return [self._keys.record(queue, "") for queue in dict.fromkeys(("", *self._known))]

    async def values(self, places: Mapping[str, str]) -> tuple[dict[str, bytes], Exception | None]:
        """What there is of these jobs, each with its home, or "" where that is not known; and why not more, if so."""
        try:
            parts = await self._parts(places)
        except (BrokerUnavailable, ConfigurationError) as error:
            return {}, error
        found: dict[str, bytes] = {}
        trouble: Exception | None = None
        for (_, ids), answer in zip(parts, await self._answers(parts), strict=True):
            if isinstance(answer, (BrokerUnavailable, ConfigurationError)):
                trouble = answer
            elif isinstance(answer, BaseException):
                raise answer
            else:
                for job_id, value in zip(ids, answer, strict=True):
                    if value is not None and not finished(found.get(job_id)):
                        found[job_id] = value
        return found, trouble

    async def _parts(self, places: Mapping[str, str]) -> list[tuple[str, list[str]]]:
        """What to ask for: home, and ids."""
        by_home: dict[str, list[str]] = {}
        anywhere: list[str] = []
        for job_id, home in places.items():
            (by_home.setdefault(home, []) if home else anywhere).append(job_id)
        if anywhere:
            for home in await self.homes():
                by_home.setdefault(home, []).extend(anywhere)
        return [(home, ids[at : at + _BATCH]) for home, ids in by_home.items() for at in range(0, len(ids), _BATCH)]

    async def _answers(self, parts: list[tuple[str, list[str]]]) -> list[list[bytes | None] | BaseException]:
        if len(parts) == 1:
            try:
                return [await self._ask(*parts[0])]
            except (BrokerUnavailable, ConfigurationError) as error:
                return [error]
        return await asyncio.gather(*(self._ask(home, ids) for home, ids in parts), return_exceptions=True)

    async def _ask(self, home: str, ids: Iterable[str]) -> list[bytes | None]:
        values: list[bytes | None] = await answered(
            self._link, self._link.call(home, "MGET", *[home + job_id for job_id in ids])
        )
        return values
