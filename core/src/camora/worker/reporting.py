"""What a worker says of itself, every few seconds, and the orders it finds there."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version

import attrs
from msgspec.structs import replace

from camora.clock import Clock
from camora.connections import Connection
from camora.interfaces.workers import Order, RunningJob, WorkerDirectory, WorkerInfo
from camora.worker.recycling import resident_bytes

__all__ = ["BEAT", "TTL", "Activity", "Reporter"]

BEAT = 5.0
"""Seconds between two reports."""
TTL = 15.0
"""Seconds after its last report for which a worker counts as alive."""
_PATIENCE = 5.0
_MOST_SHOWN = 20


@attrs.frozen(kw_only=True)
class Activity:
    """What a worker is at, at this moment. `polled_at` is monotonic seconds, 0 for never."""

    state: str
    running: list[RunningJob]
    busy: int
    settled: int
    polled_at: float


class Reporter:
    """Keeps one worker's entry in the directory of workers. What fails here is logged, and never harms the work."""

    def __init__(
        self,
        connection: Connection,
        info: WorkerInfo,
        *,
        activity: Callable[[], Activity],
        obey: Callable[[Order], None],
        clock: Clock,
        logger: logging.Logger,
    ) -> None:
        self._connection = connection
        self._activity = activity
        self._obey = obey
        self._clock = clock
        self._logger = logger
        self._info = replace(
            info, host=socket.gethostname(), pid=os.getpid(), version=version("camora"), started=clock.now_ms()
        )
        self._directory: WorkerDirectory | None = None
        self._kept = True
        self._failed = False
        self._cpu_spent, self._cpu_read = time.process_time(), time.monotonic()

    async def report(self) -> None:
        """Report, obey what was ordered, and report what came of it."""
        while orders := await self._report():
            for order in orders:
                self._obey(order)

    async def _report(self) -> Sequence[Order]:
        if not self._kept:
            return ()
        try:
            async with asyncio.timeout(_PATIENCE):
                directory = await self._open()
                orders = () if directory is None else await directory.report(self._now(), ttl=TTL)
        except Exception as error:  # noqa: BLE001 -- whatever a directory does, the work goes on
            self._tell_failure(error)
            return ()
        if self._failed:
            self._failed = False
            self._logger.info("the directory of workers is back")
        return orders

    async def _open(self) -> WorkerDirectory | None:
        if self._directory is None:
            self._directory = await self._connection.workers()
            self._kept = self._directory is not None
        return self._directory

    def _tell_failure(self, error: Exception) -> None:
        if not self._failed:
            self._failed = True
            self._logger.warning(
                "this worker cannot report to the directory of workers (%s: %s); the work goes on",
                type(error).__name__,
                error,
            )

    def _now(self) -> WorkerInfo:
        activity, now, now_ms = self._activity(), time.monotonic(), self._clock.now_ms()
        spent = time.process_time()
        cpu = (spent - self._cpu_spent) / max(0.001, now - self._cpu_read)
        self._cpu_spent, self._cpu_read = spent, now
        return replace(
            self._info,
            state=activity.state,
            running=tuple(sorted(activity.running, key=lambda job: job.since)[:_MOST_SHOWN]),
            busy=activity.busy,
            settled=activity.settled,
            cpu=round(cpu, 3),
            memory=resident_bytes(),
            polled=now_ms - round((now - activity.polled_at) * 1000) if activity.polled_at else 0,
            seen=now_ms,
        )

    async def close(self) -> None:
        """Leave the directory."""
        if self._directory is not None:
            with contextlib.suppress(Exception):
                async with asyncio.timeout(_PATIENCE):
                    await self._directory.remove(self._info.name)
