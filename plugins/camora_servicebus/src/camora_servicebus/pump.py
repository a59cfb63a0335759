"""One connection to one queue, kept open: it is made anew whenever it ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Callable

from camora_servicebus.receiving import Receiving

__all__ = ["Pump"]

logger = logging.getLogger(__name__)

_PAUSES = (0.05, 2.0)
"""Seconds until the next try to connect: after the first one that failed, and at most."""
_LASTING = 1.0
"""Seconds after which a connection has come about: the service may let one in, and throw it out at once."""
_SHORT = 10
"""Connections in a row that may end sooner, before that is told."""
_GOODBYE = 2.0
"""Seconds that a connection may take to end politely."""
_STALE = 240.0
"""Seconds after which a connection that waits for messages and brings none is made anew.

The service ends idle links after ten minutes itself, and now and then forgets one without a word.
"""


class Pump:
    """Belongs to the feed's loop. `changed(pump)` is called when it is up again, and when `error` is another one."""

    def __init__(
        self, queue: str, make: Callable[[], Receiving], *, timeout: float, changed: Callable[[Pump], None],
        stale: float = _STALE,
    ) -> None:  # fmt: skip
        self.queue = queue
        self.receiving: Receiving | None = None
        """The connection, while there is one."""
        self.error: Exception | None = None
        """Why there is none, if more than one try has failed."""
        self.up = asyncio.Event()
        self.busy = time.monotonic()
        """Monotonic time at which it last brought a message, or was not waiting for one."""
        self._make = make
        self._timeout = timeout
        self._changed = changed
        self._stale = stale
        self._task: asyncio.Task[None] | None = None
        self._ended = False

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def end(self) -> None:
        """Close the connection, and make no other."""
        self._ended = True
        if self._task is not None:
            # Cancelling is no order: `wait_for` loses it if what it waits for comes at that moment.
            self._task.cancel()
            await asyncio.wait([self._task])

    def _is_over(self) -> bool:
        return self._ended  # may change with every await

    async def _run(self) -> None:
        pause, failures = _PAUSES[0], 0
        while not self._is_over():
            receiving: Receiving | None = None
            opened = math.inf
            try:
                receiving = self._make()
                await receiving.open(self._timeout)
                if self._is_over():
                    return
                self._open(receiving)
                opened = time.monotonic()
                await self._bring(receiving)
                pause, failures = _PAUSES[0], 0
            except Exception as error:  # noqa: BLE001 -- whatever the client or a credential raises
                if time.monotonic() - opened > _LASTING:
                    pause, failures = _PAUSES[0], 0
                failures += 1
                logger.debug("queue %r: the connection has ended: %r", self.queue, error)
                self._closed()
                # Connections end; that is worth no word, if the next one comes about.
                if failures > (1 if opened == math.inf else _SHORT):
                    self._tell(error)
            finally:
                self._closed()
                if receiving is not None:
                    # A task of its own: whoever cancels this one waits for it all the same.
                    await asyncio.shield(asyncio.ensure_future(receiving.close(_GOODBYE)))
            if failures > 1 and not self._is_over():
                await asyncio.sleep(random.uniform(pause / 2, pause))  # noqa: S311 -- jitter
                pause = min(pause * 2, _PAUSES[1])

    def _open(self, receiving: Receiving) -> None:
        self.receiving = receiving
        self.busy = time.monotonic()
        self.error = None
        self.up.set()
        self._changed(self)

    def _closed(self) -> None:
        self.receiving = None
        self.up.clear()

    def _tell(self, error: Exception) -> None:
        self.error = error
        self._changed(self)

    async def _bring(self, receiving: Receiving) -> None:
        reading = asyncio.ensure_future(receiving.run())
        try:
            while not reading.done():
                await asyncio.wait([reading], timeout=self._stale / 4)
                if not receiving.wanted or receiving.ordered:  # sessions look after their own connections
                    self.busy = time.monotonic()
                elif time.monotonic() - self.busy > self._stale:
                    await receiving.drain(_GOODBYE)
                    return
            reading.result()
        finally:
            receiving.cease()
            reading.cancel()
            with contextlib.suppress(BaseException):
                await reading
