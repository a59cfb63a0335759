"""Keeping slots of shared limits, from a thread that a blocked event loop cannot starve."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading

from camora.errors import BrokerUnavailable
from camora.interfaces.limits import Limits

__all__ = ["SlotKeeper"]


class SlotKeeper:
    """Renews the lease of every held slot each third of its length. The thread starts with the first one."""

    def __init__(self, limits: Limits, *, lease: float, logger: logging.Logger) -> None:
        self._limits = limits
        self._lease = lease
        self._logger = logger
        # Single dict operations are atomic: the event loop and the thread share it without a lock.
        self._held: dict[str, None] = {}
        self._thread: threading.Thread | None = None
        self._ended = threading.Event()
        self._awake: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None

    def hold(self, holder: str) -> None:
        """Keep its slots."""
        self._held[holder] = None
        if self._thread is None or not self._thread.is_alive():  # a stranger's store may have ended it
            self._thread = threading.Thread(target=self._run, name="camora-slots", daemon=True)
            self._thread.start()

    def let_go(self, holder: str) -> None:
        """Keep them no longer."""
        self._held.pop(holder, None)

    def _run(self) -> None:
        asyncio.run(self._keep())

    async def _keep(self) -> None:
        awake = asyncio.Event()
        self._awake = (asyncio.get_running_loop(), awake)
        twin: Limits | None = None
        while not self._ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._lease / 3):
                    await awake.wait()
            holders = list(self._held)
            if not holders or self._ended.is_set():
                continue
            try:
                if twin is None:
                    twin = self._limits.twin()
                    await twin.open()
                kept = await twin.keep(holders, lease=self._lease)
            except Exception as error:
                if isinstance(error, BrokerUnavailable):
                    self._logger.warning("slots cannot be kept, trying again: %s", error)
                else:
                    self._logger.exception("slots cannot be kept, trying again")
                if twin is not None:
                    twin.abandon()
                    twin = None
                continue
            for holder, held in zip(holders, kept, strict=True):
                if not held and holder in self._held:
                    self.let_go(holder)
                    self._logger.warning("%s: its slot was lost; more may run than its limit says", holder)
        if twin is not None:
            await twin.close()

    async def close(self) -> None:
        """End the thread."""
        self._ended.set()
        if self._awake is not None:
            loop, awake = self._awake
            with contextlib.suppress(RuntimeError):  # its loop has ended by itself
                loop.call_soon_threadsafe(awake.set)
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 5.0)
