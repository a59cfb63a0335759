"""Taking: asking the broker for messages for as long as there is room for them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence

from camora.errors import BrokerUnavailable
from camora.interfaces.broker import Consumer
from camora.message import Delivery

__all__ = ["Taker"]


class Taker:
    """One loop around `Consumer.receive`, which nothing but `stop` ends.

    `room()` says how many to ask for; `took(deliveries, asked)` gets them, with the monotonic moment before the
    question.
    """

    def __init__(
        self,
        consumer: Consumer,
        *,
        room: Callable[[], int],
        took: Callable[[Sequence[Delivery], float], None],
        poll_interval: float,
        logger: logging.Logger,
    ) -> None:
        self._consumer = consumer
        self._room = room
        self._took = took
        self._poll_interval = poll_interval
        self._logger = logger
        self._more = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._failures = 0
        self._away = False
        self._held_until = 0.0
        self.quiet = False
        self.stopping = False
        self.polled_at = 0.0
        """Monotonic time of the last answer from the broker."""

    def start(self) -> None:
        """Begin to take."""
        self._task = asyncio.get_running_loop().create_task(self._until_stopped())
        self._task.add_done_callback(self._start_again)

    def look_again(self) -> None:
        """There may be more room now."""
        self._more.set()

    def pause(self) -> None:
        """Take nothing more, until resumed."""
        self.quiet = True

    def resume(self) -> None:
        """Take again."""
        self.quiet = False
        self._more.set()

    def hold(self, seconds: float) -> None:
        """Take nothing for a while: it would only have to be given back."""
        self._held_until = max(self._held_until, time.monotonic() + seconds)

    @property
    def held(self) -> bool:
        """True while it takes nothing on purpose."""
        return time.monotonic() < self._held_until

    async def stop(self) -> None:
        """Take nothing more, ever. Returns when no message is under way any more, or after 5 seconds."""
        self.stopping = True
        self._more.set()
        try:
            await self._consumer.stop()
        except Exception:
            # Whatever it is, what is held here must be given back all the same.
            self._logger.exception("the consumer could not be stopped")
        if self._task is not None:
            done, _ = await asyncio.wait([self._task], timeout=5.0)
            if not done:
                self._task.cancel()

    def _start_again(self, ended: asyncio.Task[None]) -> None:
        """A job that cancels every task it can find must not end the work.

        A new task, not a refusal to end: a program that is ending for good cancels once, and waits.
        """
        if ended.cancelled() and not self.stopping:
            self._logger.warning("a job has cancelled the worker's own task; it goes on")
            self.start()

    async def _until_stopped(self) -> None:
        self._failures = 0
        while True:
            self._failures += 1
            try:
                await self._while_up()
            except BrokerUnavailable as error:
                if not self._away:
                    self._logger.warning("broker away, reconnecting: %s", error)
                    self._away = True
            except Exception:
                # A lane that dies in silence is a worker that looks alive and does nothing.
                self._logger.exception("receiving failed, trying again")
            if self.stopping:
                return
            await asyncio.sleep(random.uniform(0.05, min(2.0, 0.1 * 2 ** min(self._failures, 5))))  # noqa: S311 -- jitter

    async def _while_up(self) -> None:
        while not self.stopping:
            left = self._held_until - time.monotonic()
            limit = 0 if self.quiet or left > 0 else self._room()
            if limit <= 0:
                self._more.clear()
                # Loops differ in how early a timer may fire: what is left is looked at anew after each.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(left + 0.002 if left > 0 else None):
                        await self._more.wait()
                continue
            asked = time.monotonic()
            deliveries = await self._consumer.receive(limit, self._poll_interval)
            self.polled_at = time.monotonic()
            self._failures = 0
            if self._away:
                self._away = False
                self._logger.info("broker is back")
            if deliveries:
                self._took(deliveries, asked)
            # One turn of the loop, so that what is quick is done before more is asked for.
            await asyncio.sleep(0)
