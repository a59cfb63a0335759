"""The Redis result backend."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Self

import msgspec
from camora.interfaces.journal import Journal
from camora.interfaces.limits import Limits
from camora.interfaces.results import ResultBackend
from camora.interfaces.schedule import ScheduleStore
from camora.interfaces.workers import WorkerDirectory
from camora.interfaces.workflows import WorkflowStore
from camora.outcome import JobRecord

from camora_redis.batches import batches
from camora_redis.calling import answered
from camora_redis.link import Link
from camora_redis.lookup import Lookup, finished, record_of
from camora_redis.opening import check_server
from camora_redis.records import packed_record
from camora_redis.scripting import script
from camora_redis.settings import RedisSettings
from camora_redis.store import Store
from camora_redis.waiting import Waiting

__all__ = ["RedisResultBackend"]

_STORE = script("store")
_BATCH = 500
_pack = msgspec.msgpack.Encoder().encode


class RedisResultBackend(ResultBackend):
    """Records in keys that end by themselves; those who wait are told by a channel. See `RedisBroker` for the URL.

    In a cluster a record lies with its queue, and one without a queue in a place of its own: a job's records must all
    name the same queue, or the first writer does not win.
    """

    def __init__(self, url: str, settings: RedisSettings | None = None) -> None:
        self._start(Store.of_url(url, settings))

    @classmethod
    def on(cls, store: Store) -> Self:
        """A backend on a store that others use, too."""
        made = cls.__new__(cls)
        made._start(store)  # noqa: SLF001 -- its own class
        return made

    def _start(self, store: Store) -> None:
        self._store = store
        self._link = Link(store, f"RedisResultBackend({store.label})")
        self._lookup = Lookup(self._link)
        self._waiting = Waiting(self._link, self._lookup)
        self._enrolled: set[str] = {""}

    def __repr__(self) -> str:
        return f"RedisResultBackend({self._store.label!r})"

    @property
    def database(self) -> Store:
        """What its twins share with it."""
        return self._store

    def own_limits(self) -> Limits:
        """Limits in the same place."""
        from camora_redis.limits import RedisLimits

        return RedisLimits(self._store)

    def own_schedules(self) -> ScheduleStore:
        """Schedules in the same place."""
        from camora_redis.schedules import RedisScheduleStore

        return RedisScheduleStore(self._store)

    def own_workers(self) -> WorkerDirectory:
        """The directory of workers in the same place."""
        from camora_redis.workers import RedisWorkerDirectory

        return RedisWorkerDirectory(self._store)

    def own_workflows(self) -> WorkflowStore:
        """Workflows in the same place."""
        from camora_redis.workflows import RedisWorkflowStore

        return RedisWorkflowStore(self._store)

    def own_journal(self) -> Journal:
        """The journal in the same place."""
        from camora_redis.journals import RedisJournal

        return RedisJournal(self._store)

    async def open(self) -> None:
        """Connect, and look what server it is."""
        await check_server(self._link)

    async def store(self, records: Sequence[JobRecord]) -> None:
        """One step for each batch; in a cluster for each queue in it."""
        by_queue: dict[str, list[JobRecord]] = {}
        if self._store.keys.clustered:
            await self._enroll(records)
            for record in records:
                by_queue.setdefault(record.queue, []).append(record)
        elif records:
            by_queue[""] = list(records)
        await asyncio.gather(*(self._put(queue, some) for queue, some in by_queue.items()))

    async def _put(self, queue: str, records: Sequence[JobRecord]) -> None:
        """Batch by batch: the first record of a job is to be the first one there."""
        keys = self._store.keys
        for batch in batches(records, lambda record: len(record.value or b"")):
            blobs: list[bytes] = []
            packed = _pack([(record.id, packed_record(keys, record, blobs)) for record in batch])
            call = self._link.run(_STORE, (keys.of_queue(queue),), keys.finished, packed, *blobs)
            await answered(self._link, call)

    async def _enroll(self, records: Sequence[JobRecord]) -> None:
        """Make queues known whose records are to be found, even if nothing was ever published to them."""
        new = {record.queue for record in records} - self._enrolled
        if new:
            name = self._store.keys.queues
            await answered(self._link, self._link.call(name, "SADD", name, *sorted(new)))
            self._enrolled |= new

    async def fetch(self, job_ids: Sequence[str]) -> Sequence[JobRecord | None]:
        """One look for 500 ids; in a cluster one in each queue that was ever used.

        Raises `BrokerUnavailable`, in a cluster only where the missing ones may lie on a node that does not answer.
        """
        if not job_ids:
            return []
        found, trouble = await self._lookup.values(dict.fromkeys(job_ids, ""))
        if trouble is not None and not all(finished(found.get(job_id)) for job_id in job_ids):
            raise trouble
        return [record_of(job_id, found.get(job_id)) for job_id in job_ids]

    async def wait(self, job_id: str, timeout: float | None) -> JobRecord | None:
        """Told by the server, whichever process stores it. Raises `BrokerUnavailable` if it cannot be asked by then."""
        if timeout is None or timeout > 0:
            return await self._waiting.wait(job_id, timeout)
        [record] = await self.fetch([job_id])
        return record if record is not None and record.status.finished else None

    async def forget(self, job_ids: Sequence[str]) -> int:
        """In a cluster: in each queue that was ever used."""
        if not job_ids:
            return 0
        ids = list(dict.fromkeys(job_ids))
        homes = await self._lookup.homes()
        commands: list[tuple[str, tuple[Any, ...]]] = [
            (home, ("DEL", *[home + job_id for job_id in ids[at : at + _BATCH]]))
            for home in homes
            for at in range(0, len(ids), _BATCH)
        ]
        return sum(await answered(self._link, self._link.calls(commands)))

    def twin(self) -> Self:
        """Another backend on the same data, with connections of its own."""
        return type(self).on(self._store)

    def abandon(self) -> None:
        """Let go of the sockets of a loop that is gone."""
        self._waiting.abandon()
        self._link.abandon()

    async def close(self) -> None:
        """Close all connections."""
        await self._waiting.close()
        await self._link.close()
