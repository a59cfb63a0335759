"""Running: which deliveries run, which wait for a slot, and which run alone."""

from __future__ import annotations

import asyncio
import collections
import logging
import random
import time
from collections.abc import Callable, Sequence

from camora.executor import Executor, Run, StopReason
from camora.failures import describe
from camora.links.timeouts import GRACE
from camora.message import Delivery
from camora.outcome import Outcome, OutcomeKind
from camora.worker.hands import Hands

__all__ = ["Runner"]

_AHEAD = 0.1
"""Seconds of work that may wait in this process: enough to hide a round trip, too little to hoard."""
_PATIENCE = 0.5
"""Seconds after which what was taken ahead goes back."""
_PUT_OFF = 1000
"""Runs that hold no slot while the broker does not take their settlement: each keeps its message in memory."""


class Runner:
    """Gives the slots of a lane to its runs.

    `finish(run, outcome)` is called once for each of them; `left()` when one left its slot without having ended.
    """

    def __init__(
        self,
        hands: Hands,
        executor: Executor,
        *,
        concurrency: int,
        prefetch: int | None,
        isolate_after: int,
        finish: Callable[[Run, Outcome], None],
        left: Callable[[], None],
        logger: logging.Logger,
    ) -> None:
        self._hands = hands
        self._executor = executor
        self._concurrency = concurrency
        self._prefetch = prefetch
        self._isolate_after = isolate_after
        self._finish = finish
        self._left = left
        self._logger = logger
        self._running = 0
        self._ahead: collections.deque[Run] = collections.deque()
        self._ahead_timer: asyncio.TimerHandle | None = None
        self._returning: collections.deque[asyncio.Future[None]] = collections.deque()
        self._too_slow = False
        self._suspect: Delivery | None = None
        self._stopping = False
        self._let_go_before = 0
        self._asked_at = 0.0
        self.parked = 0
        """Runs that wait for a limit, and hold no slot meanwhile."""
        self.abandoned = 0
        """Attempts that ignored their interruption and were left to themselves."""

    def room(self) -> int:
        """How many to ask for: free slots, and what is worked off within a moment."""
        now = time.monotonic()
        elapsed = now - self._asked_at
        done = self._hands.let_go - self._let_go_before
        ahead = self._prefetch
        if ahead is None:
            ahead = min(self._concurrency, int(done / elapsed * _AHEAD)) if elapsed > 0 else 0
        if self._too_slow:
            ahead = 0  # until a job has ended: what just went back would be taken again
        # What waits for a full queue to have room must not be what keeps it full: nothing else would empty it.
        waiting = min(self.parked, self._concurrency) + min(len(self._hands.put_off), _PUT_OFF)
        held = len(self._hands) - waiting
        free = self._concurrency + ahead - held
        # Small bites cost a round trip each; while there is enough to do, wait for a mouthful.
        if free < self._concurrency // 4 and held >= self._concurrency:
            return 0
        self._asked_at, self._let_go_before = now, self._hands.let_go
        return free

    def take(self, deliveries: Sequence[Delivery]) -> None:
        """Start what finds a slot; the rest waits for one, for a moment."""
        suspects = []
        for delivery in deliveries:
            run = self._hands.add(delivery)
            if delivery.deliveries > self._isolate_after:
                suspects.append(run)
            elif self._running < self._concurrency:
                self._start(run)
            else:
                self._ahead.append(run)
        if self._ahead and self._ahead_timer is None:
            self._watch_ahead()
        if suspects:
            self._isolate(suspects)

    def _watch_ahead(self) -> None:
        waiting = list(self._ahead)
        self._ahead_timer = asyncio.get_running_loop().call_later(_PATIENCE, self._give_back_late, waiting)

    def _give_back_late(self, waiting: list[Run]) -> None:
        """What was taken ahead and did not find a slot in time is for others: the estimate was of quicker jobs."""
        self._ahead_timer = None
        for run in waiting:
            if run in self._ahead:
                self._ahead.remove(run)
                self._finish(run, Outcome(kind=OutcomeKind.RELEASED))
                self._too_slow = True
        if self._ahead:
            self._watch_ahead()

    def _isolate(self, suspects: list[Run]) -> None:
        """Messages whose workers died run one at a time: the one that kills is found, and only it is charged."""
        if self._suspect is None:
            chosen = suspects.pop(0)
            self._suspect = chosen.delivery
            self._running += 1
            chosen.task = asyncio.get_running_loop().create_task(self._start_alone(chosen, suspects))
            chosen.task.add_done_callback(self._task_ended)
        for run in suspects:
            pause = random.uniform(0.5, 1.5)  # noqa: S311 -- jitter
            self._finish(run, Outcome(kind=OutcomeKind.RELEASED, delay=pause))

    async def _start_alone(self, run: Run, others: Sequence[Run]) -> None:
        # Not before the others are given back: what this process holds when it dies is charged for it.
        while any(other.delivery in self._hands for other in others):  # noqa: ASYNC110 -- rare, and soon over
            await asyncio.sleep(0.002)
        await self._go(run)

    def _start(self, run: Run) -> None:
        self._running += 1
        run.task = asyncio.get_running_loop().create_task(self._go(run))
        run.task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """A task that is cancelled before its first step ends without having run at all."""
        if task.cancelled():
            for run in self._hands:
                if run.task is task and not run.settling:
                    self._ended(run, Outcome(kind=OutcomeKind.RELEASED))

    async def _go(self, run: Run) -> None:
        try:
            outcome = await self._executor.run(run)
        except Exception as error:
            # It promises not to; but a run that ends without an outcome would hold its lease and its slot for ever.
            self._logger.exception("%s: running it failed in a way that nobody foresaw", run.label)
            outcome = Outcome(kind=OutcomeKind.FAILED, error=describe(error))
        if not run.abandoned:
            self._ended(run, outcome)

    def _ended(self, run: Run, outcome: Outcome) -> None:
        self._too_slow = False
        if run.parked:
            run.parked = False
            self.parked -= 1
        else:
            self._slot_is_free()
        self._finish(run, outcome)

    def _slot_is_free(self) -> None:
        self._running -= 1
        while self._returning and self._running < self._concurrency:
            waiter = self._returning.popleft()
            if not waiter.done():
                self._running += 1  # in its name, so that nobody else gets the slot before it has woken
                waiter.set_result(None)
        while self._ahead and self._running < self._concurrency and not self._stopping:
            self._start(self._ahead.popleft())

    def look_at_suspect(self) -> None:
        """Some runs have left: where the suspect is one of them, another may run."""
        if self._suspect is not None and self._suspect not in self._hands:
            self._suspect = None

    # Parking: a run that waits for a limit leaves its slot to others.

    def park(self, run: Run) -> None:
        """Leave the slot."""
        run.parked = True
        self.parked += 1
        self._slot_is_free()
        self._left()

    async def unpark(self, run: Run) -> None:
        """Come back to a slot; waits for one."""
        if self._running < self._concurrency:
            self._running += 1
        else:
            waiter = asyncio.get_running_loop().create_future()
            self._returning.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._slot_is_free()
                raise
        run.parked = False
        self.parked -= 1

    # Interrupting

    def interrupt(self, run: Run, reason: StopReason) -> None:
        """Stop a run from outside; one that takes no notice loses its slot after a grace."""
        run.stop(reason)
        if run in self._ahead:
            self._ahead.remove(run)
            kind = OutcomeKind.CANCELLED if reason is StopReason.CANCELLED else OutcomeKind.RELEASED
            self._finish(run, Outcome(kind=kind))
        else:
            asyncio.get_running_loop().call_later(GRACE + 0.5, self._abandon, run)

    def _abandon(self, run: Run) -> None:
        """It was interrupted and goes on all the same: it loses its slot, and its outcome will not count."""
        if run.delivery in self._hands and not run.abandoned and run.task is not None and not run.task.done():
            run.abandoned = True
            self.abandoned += 1
            self._logger.error("%s ignores its cancellation; it is left to itself", run.label)
            kind = OutcomeKind.CANCELLED if run.reason is StopReason.CANCELLED else OutcomeKind.RELEASED
            self._ended(run, Outcome(kind=kind))

    def stop(self) -> None:
        """Start nothing more; give back what waits for a slot."""
        self._stopping = True
        while self._ahead:
            self._finish(self._ahead.popleft(), Outcome(kind=OutcomeKind.RELEASED))

    def close(self) -> None:
        """Let go of the timer."""
        if self._ahead_timer is not None:
            self._ahead_timer.cancel()
