"""What goes on in a `TestWorker` at this moment of its time."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import attrs

from camora.builtin.memory import MemoryStore
from camora.message import Delivery
from camora.testing.clock import VirtualClock

__all__ = ["Log", "Seat", "Stage"]

_TURNS = 6
"""Turns of the event loop without anything going on, after which nothing will: a wake-up takes two."""


class Log:
    """One line for each thing that happened, in order; the same seed gives the same lines."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self.lines: list[str] = []

    def note(self, what: str, task: str = "", job_id: str = "", more: str = "") -> None:
        """Add a line. From any thread."""
        moment = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC).isoformat(timespec="milliseconds")
        self.lines.append(" ".join(filter(None, (moment, what, task, job_id, more))))


@attrs.define(eq=False)
class Seat:
    """A consumer's place. `looking`: it waits for work, and has found none."""

    worker: str
    looking: bool = False
    holds: int = 0


class Stage:
    """Who holds which delivery, who sleeps until when, and whether all is quiet. Belongs to one event loop."""

    def __init__(self, clock: VirtualClock, store: MemoryStore, *, at_once: int) -> None:
        self.clock = clock
        self.store = store
        self.log = Log(clock)
        self.at_once = at_once
        self.held: dict[Delivery, Seat] = {}
        """Deliveries in the hands of living workers."""
        self.dead: set[str] = set()
        """Names of workers that have crashed."""
        self.crashed: Callable[[str], None] = lambda worker: None
        """Called with the name of a worker that has just crashed."""
        self._early: dict[str, str] = {}
        """Jobs that run though their message is settled already (`ack="before"`), and their workers."""
        self._seats: set[Seat] = set()
        self._asleep: Counter[str] = Counter()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self._busy = 0
        self.changes = 0
        """How often there may have come to be room."""
        self._waiting: list[tuple[asyncio.Future[None], Seat]] = []
        self._stirred = asyncio.Event()

    def _note(self) -> None:
        self.changes += 1
        self._stirred.set()
        waiting, self._waiting = self._waiting, []
        for waiter, seat in waiting:
            if not waiter.done():
                # From now on it is about to look, however many turns it takes to wake up.
                seat.looking = False
                waiter.set_result(None)

    # Hands

    def sit(self, worker: str) -> Seat:
        """A place for a consumer of this worker."""
        seat = Seat(worker)
        self._seats.add(seat)
        return seat

    def leave(self, seat: Seat) -> None:
        """It looks for work no more. May be repeated."""
        self._seats.discard(seat)
        self._note()

    def take(self, delivery: Delivery, seat: Seat) -> None:
        """A worker has it now."""
        self.held[delivery] = seat
        seat.holds += 1
        self._note()

    def let_go(self, delivery: Delivery) -> None:
        """It is settled, or its worker is gone. May be repeated."""
        seat = self.held.pop(delivery, None)
        if seat is not None:
            seat.holds -= 1
        self._note()

    def begin_early(self, job_id: str, worker: str) -> None:
        """This job runs though its message is settled already (`ack="before"`)."""
        self._early[job_id] = worker
        self._note()

    def end_early(self, job_id: str) -> None:
        """Its end is known, or nobody is to know it. May be repeated."""
        self._early.pop(job_id, None)
        self._note()

    def room(self) -> int:
        """How many more may run beside what runs."""
        return self.at_once - self._awake()

    def _awake(self) -> int:
        if not self._asleep:
            return len(self.held) + len(self._early)
        return len(self.awake())

    def awake(self) -> list[str]:
        """The ids of the jobs that run, and do not wait for virtual time."""
        running = [*(delivery.id for delivery in self.held), *self._early]
        return [job_id for job_id in running if not self._asleep[job_id]]

    def kill(self, worker: str) -> None:
        """This worker is dead from now on: nothing that it does counts, and its leases lapse."""
        if worker in self.dead:
            return
        self.dead.add(worker)
        for delivery in [delivery for delivery, seat in self.held.items() if seat.worker == worker]:
            self.let_go(delivery)
        for job_id in [job_id for job_id, holder in self._early.items() if holder == worker]:
            self.end_early(job_id)
        self.crashed(worker)

    # Being quiet

    @contextmanager
    def looking(self, seat: Seat) -> Iterator[None]:
        """Inside the block it waits for work; outside of it, it may find some any moment."""
        seat.looking = True
        self._stirred.set()  # and no change: those who wait for room would wake each other for ever
        try:
            yield
        finally:
            seat.looking = False

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Inside the block something goes on that is nobody's job."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self._note()

    @contextmanager
    def asleep(self, job_ids: Sequence[str]) -> Iterator[None]:
        """Inside the block these jobs wait for virtual time: they are no hindrance to it."""
        self._asleep.update(job_ids)
        self._note()
        try:
            yield
        finally:
            self._asleep.subtract(job_ids)
            self._asleep += Counter()  # forget those at zero
            self._note()

    def _stirs(self) -> bool:
        if self._busy or self._awake():
            return True
        # One that does not look though it holds nothing is about to; one that holds sleepers may have no room.
        return any(not seat.looking and not seat.holds for seat in self._seats)

    async def change(self, seen: int, seat: Seat) -> None:
        """Wait, for this seat, until there have been more `changes` than the ones that were seen."""
        if self.changes == seen:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((waiter, seat))
            await waiter

    async def quiet(self, patience: float) -> bool:
        """Wait until nothing goes on but what waits for time; False when that takes longer than `patience` seconds.

        The seconds are real ones, and counted anew whenever something happens.
        """
        turns = 0
        while turns < _TURNS:
            self._stirred.clear()
            if self._stirs():
                try:
                    async with asyncio.timeout(patience):
                        await self._stirred.wait()
                except TimeoutError:
                    return False
                turns = 0
            await asyncio.sleep(0)
            turns += 1
        return True

    # Time

    async def sleep(self, seconds: float) -> None:
        """Wait for virtual time."""
        until = self.clock.now_ms() + max(0, round(seconds * 1000))
        waking: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (until, next(self._order), waking))
        await waking

    def next_event(self) -> float:
        """When time alone brings something next, in milliseconds since the epoch; infinity for never."""
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        with self.store.as_of_now():
            pass  # what has come by now is no event any more, even if nobody takes it
        return min(
            self._sleepers[0][0] if self._sleepers else math.inf,
            self.clock.now_ms() + self.store.pause_before_work() * 1000,
        )

    def move_to(self, moment: int) -> None:
        """Let time pass, and wake who waited for it. The living keep their leases, however long the step is."""
        step = (moment - self.clock.now_ms()) / 1000
        if step > 0:
            self._keep_slots(step)
            self.clock.advance(step)
            # Before anybody gets to look: what moved the clock has only told them to.
            self.store.extend(list(self.held))
        while self._sleepers and self._sleepers[0][0] <= moment:
            waking = heapq.heappop(self._sleepers)[2]
            if not waking.done():
                waking.set_result(None)

    def _keep_slots(self, step: float) -> None:
        if not self.held:
            return
        with self.store.lock:
            now = int(self.clock.monotonic() * 1000)
            names = tuple(f"{delivery.id}:{seat.worker}:" for delivery, seat in self.held.items())
            for holder in list(self.store.counters.names_of):
                if holder.startswith(names):
                    self.store.counters.keep(holder, now, now + round((step + 60) * 1000))
