"""What has come back to this process: records of jobs, for whoever asks for them, in any loop and in any thread."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable

import attrs
from camora.outcome import JobRecord

__all__ = ["Inbox", "Waiter"]

logger = logging.getLogger(__name__)

_MOST_RECORDS = 100_000
_MOST_BYTES = 256 * 1024 * 1024
_SWEEP = 60.0
"""Seconds between two looks for what is over its time."""


class Waiter:
    """Somebody who waits for one job. Belongs to the loop in which it was made; told from any thread."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self._loop = asyncio.get_running_loop()
        self._told: asyncio.Future[JobRecord | None] = self._loop.create_future()

    async def heard(self, timeout: float | None) -> JobRecord | None:
        """The finished record; None after so many seconds, or when waiting was ended."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                return await self._told
        return None

    def tell(self, record: JobRecord | None) -> None:
        """End its waiting."""
        with contextlib.suppress(RuntimeError):  # its loop has ended
            self._loop.call_soon_threadsafe(self._end, record)

    def _end(self, record: JobRecord | None) -> None:
        if not self._told.done():
            self._told.set_result(record)


@attrs.frozen
class _Kept:
    record: JobRecord
    until: float
    size: int


class Inbox:
    """Records by job, each until it is over its time. For any thread.

    A program that never asks for results must not grow for ever: beyond so many records, or bytes of them, the oldest
    go first.
    """

    def __init__(self, who: str, *, ttl: float, records: int = _MOST_RECORDS, size: int = _MOST_BYTES) -> None:
        self._who = who
        self._ttl = ttl
        self._most_records = records
        self._most_bytes = size
        self._lock = threading.Lock()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._bytes = 0
        self._waiting: dict[str, set[Waiter]] = {}
        self._next_sweep = 0.0
        self._full = False

    def keep(self, record: JobRecord, size: int) -> None:
        """Note what became of a job, and tell those who wait for it. The first finished record stands."""
        now = time.monotonic()
        with self._lock:
            if now >= self._next_sweep:
                self._sweep(now)
            known = self._kept.get(record.id)
            if known is not None and known.record.status.finished and known.until > now:
                return
            self._drop(record.id)
            self._kept[record.id] = _Kept(record, now + min(record.ttl, self._ttl), size)
            self._bytes += size
            dropped = self._make_room()
            waiters = self._waiting.pop(record.id, ()) if record.status.finished else ()
        if dropped and not self._full:
            self._full = True
            logger.warning(
                "%s: more than %d results (or %d MiB) have come that nobody has forgotten; the oldest are dropped, "
                "from now on without a word. Ask for fewer: keep_result=False, results=False, or a shorter result_ttl",
                self._who,
                self._most_records,
                self._most_bytes // 1024**2,
            )
        for waiter in waiters:
            waiter.tell(record)

    def _make_room(self) -> int:
        dropped = 0
        while len(self._kept) > 1 and (len(self._kept) > self._most_records or self._bytes > self._most_bytes):
            self._drop(next(iter(self._kept)))
            dropped += 1
        return dropped

    def _drop(self, job_id: str) -> bool:
        kept = self._kept.pop(job_id, None)
        if kept is None:
            return False
        self._bytes -= kept.size
        return True

    def _sweep(self, now: float) -> None:
        self._next_sweep = now + _SWEEP
        for job_id in [job_id for job_id, kept in self._kept.items() if kept.until <= now]:
            self._drop(job_id)

    def found(self, job_id: str) -> JobRecord | None:
        """The record of a job, if it has come and its time is not over."""
        with self._lock:
            return self._found(job_id)

    def _found(self, job_id: str) -> JobRecord | None:
        kept = self._kept.get(job_id)
        return kept.record if kept is not None and kept.until > time.monotonic() else None

    def forget(self, job_ids: Iterable[str]) -> int:
        """Delete records; how many there were."""
        with self._lock:
            return sum(self._found(job_id) is not None and self._drop(job_id) for job_id in job_ids)

    def enter(self, waiter: Waiter) -> JobRecord | None:
        """Have this one told, until it `leave`s; the finished record instead, if it has come already."""
        with self._lock:
            found = self._found(waiter.job_id)
            if found is not None and found.status.finished:
                return found
            self._waiting.setdefault(waiter.job_id, set()).add(waiter)
            return None

    def leave(self, waiter: Waiter) -> None:
        """It waits no more. May be repeated."""
        with self._lock:
            waiters = self._waiting.get(waiter.job_id)
            if waiters is not None:
                waiters.discard(waiter)
                if not waiters:
                    del self._waiting[waiter.job_id]
