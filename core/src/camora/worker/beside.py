"""What extensions run beside a worker."""

from __future__ import annotations

import asyncio
import logging
import random

from camora.errors import BrokerUnavailable
from camora.executor import growing
from camora.extensions import Installed
from camora.worker.draining import bounded

__all__ = ["Beside"]

_LONG = 60.0
"""Seconds after which one that runs has got over what was wrong with it before."""


class Beside:
    """Runs what one extension does beside a worker, until it is stopped; it may end by itself.

    One that raises is begun anew, after a pause that grows as long as it keeps failing. That a server is away is a
    line of the log; whatever else is wrong comes with its traceback.
    """

    def __init__(self, what: Installed, logger: logging.Logger) -> None:
        self._what = what
        self._logger = logger
        self._failures = 0
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        name = f"the extension {self._what.name}"
        self._task = asyncio.get_running_loop().create_task(self._run(), name=name)
        self._task.add_done_callback(self._again)

    def _again(self, ended: asyncio.Task[None]) -> None:
        """A job that cancels every task it can find must not end this, too."""
        if ended.cancelled() and not self._stopping:
            self.start()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            since = loop.time()
            try:
                return await self._what.extension.beside()
            except Exception as error:  # noqa: BLE001 -- whatever it is, it begins anew
                if loop.time() - since > _LONG:
                    self._failures = 0
                self._failures += 1
                pause = random.uniform(0.5, 1.0) * growing(self._failures - 1)  # noqa: S311 -- jitter
                self._tell(error, pause)
            await asyncio.sleep(pause)

    def _tell(self, error: Exception, pause: float) -> None:
        if isinstance(error, (BrokerUnavailable, OSError)):
            text = "what the extension %r of %s runs beside the worker has to wait, for %.1f s: %s"
            self._logger.warning(text, self._what.name, self._what.plugin, pause, error)
        else:
            text = "what the extension %r of %s runs beside the worker failed; again in %.1f s"
            self._logger.error(text, self._what.name, self._what.plugin, pause, exc_info=error)

    async def stop(self, grace: float) -> None:
        """Cancel it, and wait until it has ended, for so many seconds at most. May be repeated."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()
            await bounded(asyncio.wait([self._task]), grace)
