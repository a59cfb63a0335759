"""A scheduler's entry in the directory of workers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from importlib.metadata import version

from camora.interfaces.workers import Order, WorkerInfo
from camora.schedules import ScheduleParts

__all__ = ["Presence"]

_BEAT = 5.0
"""Seconds between two reports."""
_TTL = 15.0
_PATIENCE = 2.0


class Presence:
    """Reports, and brings orders back, where the stack keeps a directory. What fails here never harms the work."""

    def __init__(self, parts: ScheduleParts, name: str, logger: logging.Logger) -> None:
        self._parts = parts
        self._name = name
        self._logger = logger
        self._started = parts.clock.now_ms()
        self._last: float | None = None
        self._failed = False

    async def report(self, *, state: str, fired: int) -> list[Order]:
        """Say that this scheduler lives, if it is time; returns what it was ordered."""
        loop = asyncio.get_running_loop()
        if self._last is not None and loop.time() < self._last + _BEAT:
            return []
        self._last = loop.time()
        try:
            async with asyncio.timeout(_PATIENCE):
                directory = await (await self._parts.connection()).workers()
                orders = [] if directory is None else list(await directory.report(self._info(state, fired), ttl=_TTL))
        except Exception as error:  # noqa: BLE001 -- whatever a directory does, schedules fire
            if not self._failed:
                self._logger.warning("this scheduler cannot report to the directory of workers: %s", error)
            self._failed = True
            return []
        self._failed = False
        return orders

    def _info(self, state: str, fired: int) -> WorkerInfo:
        now = self._parts.clock.now_ms()
        return WorkerInfo(
            name=self._name,
            kind="scheduler",
            host=socket.gethostname(),
            pid=os.getpid(),
            app=self._parts.app,
            version=version("camora"),
            state=state,
            settled=fired,
            started=self._started,
            polled=now,
            seen=now,
        )

    async def leave(self) -> None:
        """Take the entry back."""
        if self._last is None:
            return
        with contextlib.suppress(Exception):
            async with asyncio.timeout(_PATIENCE):
                directory = await (await self._parts.connection()).workers()
                if directory is not None:
                    await directory.remove(self._name)
