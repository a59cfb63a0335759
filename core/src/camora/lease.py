"""Keeping leases alive, from a thread that a blocked event loop cannot starve.

The same thread watches the loop, because it is the only one that still can when the loop stands still.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence

from camora.errors import BrokerUnavailable
from camora.interfaces.broker import Consumer, Leases, LeaseVerdict
from camora.message import Delivery

__all__ = ["LeaseKeeper", "LoopWatch"]

_TICK = 1.0


class LeaseKeeper:
    """Extends the leases of one consumer's deliveries for as long as they are held.

    `lost` and `cancelled` are called in the event loop, `busy` in the thread: when it begins to have something to do,
    and when it has nothing any more. Each lease is extended a third of its length after it was
    taken or last extended, by the monotonic clock; one that could not be extended for its full length is lost.
    """

    def __init__(
        self,
        consumer: Consumer,
        *,
        lease: float,
        lost: Callable[[Delivery], None],
        cancelled: Callable[[Delivery], None],
        logger: logging.Logger,
        busy: Callable[[bool], None] = lambda _: None,
    ) -> None:
        self._consumer = consumer
        self._lease = lease
        self._lost = lost
        self._cancelled = cancelled
        self._logger = logger
        self._loop = asyncio.get_running_loop()
        # Delivery -> monotonic time its lease was last known to begin. Single dict operations are atomic, so the
        # event loop and the thread share it without a lock.
        self._held: dict[Delivery, float] = {}
        self._busy = busy
        self._told_busy = False
        self._awake = threading.Event()
        self._ended = threading.Event()
        self._away = False
        self._thread = threading.Thread(target=self._keep, name="camora-leases", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def hold(self, deliveries: Sequence[Delivery], since: float) -> None:
        """Keep these alive; `since` is the monotonic time before they were asked for."""
        for delivery in deliveries:
            self._held[delivery] = since
        if not self._awake.is_set():
            self._awake.set()

    def let_go(self, delivery: Delivery) -> None:
        """It is settled."""
        self._held.pop(delivery, None)

    async def close(self) -> None:
        """End the thread; waits for a call that is under way."""
        self._ended.set()
        self._awake.set()
        while self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, 1.0)

    def _keep(self) -> None:
        leases: Leases | None = None
        try:
            while self._has_work():
                held = list(self._held.items())
                try:
                    leases = leases or self._consumer.leases()
                    self._tick(leases, held)
                    self._recovered()
                except BrokerUnavailable as error:
                    self._unavailable(error)
                    self._give_up(held)
                except Exception:
                    # This thread must outlive whatever a broker does: without it every lease lapses.
                    self._logger.exception("extending leases failed")
                    self._give_up(held)
        finally:
            self._tell_busy(False)
            if leases is not None:
                leases.close()

    def _has_work(self) -> bool:
        """Wait for the next tick, or without any clock while nothing is held; False at the end."""
        if not self._held:
            self._tell_busy(False)
            # In this order: what is held from here on sets it again.
            self._awake.clear()
            while not self._held and not self._ended.is_set():
                self._awake.wait()
                self._awake.clear()
            self._awake.set()
            self._tell_busy(True)
        return not self._ended.wait(min(_TICK, self._lease / 6))

    def _tell_busy(self, busy: bool) -> None:
        if busy != self._told_busy:
            self._told_busy = busy
            self._busy(busy)

    def _tick(self, leases: Leases, held: list[tuple[Delivery, float]]) -> None:
        now = time.monotonic()
        old = [delivery for delivery, since in held if now - since >= self._lease / 3]
        if old:
            for delivery, verdict in zip(old, leases.extend(old), strict=True):
                if verdict is LeaseVerdict.LOST:
                    self._tell_lost(delivery)
                elif delivery in self._held:
                    self._held[delivery] = now
        for delivery in leases.cancelled([delivery for delivery, _ in held]):
            self._tell(self._cancelled, delivery)

    def _give_up(self, held: list[tuple[Delivery, float]]) -> None:
        """Without an answer for a whole lease, another worker may have it: certain by our own clock."""
        now = time.monotonic()
        for delivery, since in held:
            if now - since > self._lease:
                self._tell_lost(delivery)

    def _tell_lost(self, delivery: Delivery) -> None:
        if self._held.pop(delivery, None) is not None:
            self._tell(self._lost, delivery)

    def _tell(self, what: Callable[[Delivery], None], delivery: Delivery) -> None:
        try:
            self._loop.call_soon_threadsafe(what, delivery)
        except RuntimeError:  # the loop is closed; nobody is left to be told
            self._ended.set()

    def _unavailable(self, error: Exception) -> None:
        if not self._away:
            self._away = True
            self._logger.warning("leases cannot be extended: %s", error)

    def _recovered(self) -> None:
        if self._away:
            self._away = False
            self._logger.info("leases are extended again")


class LoopWatch:
    """Says so when something blocks the event loop: which task, where, and for how long.

    With `sleepy` it only looks between `attend(True)` and `attend(False)`, which may come from several threads.
    """

    def __init__(
        self,
        label: Callable[[asyncio.Task[object] | None], str],
        *,
        after: float,
        logger: logging.Logger,
        sleepy: bool = False,
    ) -> None:
        self._label = label
        self._after = after
        self._logger = logger
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._ended = threading.Event()
        self._beat = threading.Event()
        self._attended = 0 if sleepy else 1
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._watch, name="camora-loop-watch", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def attend(self, needed: bool) -> None:
        """One more has something to lose if the loop is blocked, or one less."""
        with self._changed:
            self._attended += 1 if needed else -1
            self._changed.notify_all()

    async def close(self) -> None:
        """End the thread."""
        self._ended.set()
        with self._changed:
            self._changed.notify_all()
        await asyncio.to_thread(self._thread.join)

    def _needed(self) -> bool:
        """Wait until there is a reason to look; False at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._attended > 0 or self._ended.is_set())
        return not self._ended.wait(self._after)

    def _watch(self) -> None:
        while self._needed():
            self._beat.clear()
            asked = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(self._beat.set)
            except RuntimeError:  # the loop is closed
                return
            if self._beat.wait(self._after):
                continue
            label = self._culprit()
            self._logger.warning("%s", label)
            self._beat.wait()
            blocked = time.monotonic() - asked
            self._logger.warning("the event loop was blocked for %.1f s by %s", blocked, label.split(" has blocked")[0])

    def _culprit(self) -> str:
        task: asyncio.Task[object] | None = asyncio.current_task(self._loop)
        frame = sys._current_frames().get(self._loop_thread)  # noqa: SLF001 -- the documented way to see another thread
        where = traceback.extract_stack(frame)[-1] if frame is not None else None
        place = f" at {where.filename}:{where.lineno} in {where.name}" if where else ""
        return (
            f"{self._label(task)} has blocked the event loop for {self._after:.1f} s, and goes on{place}; "
            'run blocking code as a plain function (execution="thread" or "process")'
        )
