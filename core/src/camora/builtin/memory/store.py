"""The store that memory brokers and result backends share: in one process, for any number of loops and threads.

Everything happens under one lock, held for the length of a batch and never across an `await`: that alone makes every
step atomic. Whoever waits is woken after the lock is let go.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Iterable, Iterator, Sequence

from camora.builtin.memory.counters import Counters
from camora.builtin.memory.dedup import FinishedIds, Keys
from camora.builtin.memory.delayed import Delayed
from camora.builtin.memory.entries import Entry, Stake
from camora.builtin.memory.graphs import Graphs
from camora.builtin.memory.journals import Journals
from camora.builtin.memory.presences import Presences
from camora.builtin.memory.ready import Ready
from camora.builtin.memory.records import Records
from camora.builtin.memory.timetable import Timetable
from camora.builtin.memory.waiting import Waiter, wake_all
from camora.clock import SYSTEM_CLOCK, Clock
from camora.interfaces.broker import JobState
from camora.message import Delivery, Envelope
from camora.outcome import DeadLetter

__all__ = ["MemoryStore"]

_READY, _SCHEDULED, _LEASED = JobState.READY, JobState.SCHEDULED, JobState.LEASED


class MemoryStore:
    """Messages, leases, keys, dead letters and records.

    `dedup_window` is how many finished ids are remembered, so that a late repetition of their publication is
    recognised; `most_records` is how many finished records are kept at most, whatever their `ttl`.

    Methods whose name begins with `locked_` are for callers that hold `lock`.
    """

    def __init__(
        self, clock: Clock = SYSTEM_CLOCK, *, dedup_window: int = 100_000, most_records: int = 250_000
    ) -> None:
        self.clock = clock
        self.lock = threading.Lock()
        self.entries: dict[str, Entry] = {}
        self.ready = Ready()
        self.delayed = Delayed()
        self.finished = FinishedIds(dedup_window)
        self.keys = Keys()
        self.letters: dict[str, DeadLetter] = {}
        self.records = Records(most_records)
        self.counters = Counters()
        self.timetable = Timetable()
        self.presences = Presences()
        self.graphs = Graphs()
        self.journals = Journals()
        self.flagged: set[str] = set()
        """Ids of leased jobs that somebody has asked to cancel."""
        self._idle: set[Waiter[None]] = set()
        self.stakes: dict[int, Stake] = {}
        """Those that have anything on loan."""
        # A moment before which no lease lapses: looked at often, made exact only when it has come.
        self._next_lapse = math.inf
        self._order = 0
        self._last_stake = 0
        self._receipt = 0

    # Publishing

    def publish(self, envelopes: Iterable[Envelope]) -> list[str]:
        """Store a batch; the id that stands for each."""
        touched: set[str] = set()
        with self.lock:
            answers = self.locked_publish(envelopes, touched)
        self.wake(touched)
        return answers

    def locked_publish(self, envelopes: Iterable[Envelope], touched: set[str]) -> list[str]:
        """The same; the queues that have more now are added to `touched`."""
        entries, finished, order = self.entries, self.finished, self._order
        answers = []
        lane_of, append = None, None
        for envelope in envelopes:
            job_id, queue = envelope.id, envelope.queue
            if job_id in entries or job_id in finished.new or job_id in finished.old:
                answers.append(job_id)
                continue
            if envelope.key is not None:
                holder = self.keys.take(envelope.key, job_id, self.clock.monotonic())
                if holder != job_id:
                    answers.append(holder)
                    continue
            order += 1
            entry = entries[job_id] = Entry(envelope, order, _READY)
            answers.append(job_id)
            if envelope.due:
                self._order = order
                self.locked_enqueue(entry, touched)
                continue
            if append is None or lane_of != (queue, envelope.priority):
                lane_of = (queue, envelope.priority)
                append = self.ready.lane(queue, envelope.priority).append
                touched.add(queue)
            append(entry)
        self._order = order
        return answers

    def locked_enqueue(self, entry: Entry, touched: set[str]) -> None:
        """Make an entry of the store ready, or scheduled when it is due later."""
        envelope = entry.envelope
        if envelope.due > self.clock.now_ms():
            entry.state = _SCHEDULED
            if self.delayed.add(envelope.due, entry):
                # The timers of all who wait are set too late now.
                touched.update(queue for waiter in self._idle for queue in waiter.queues)
            return
        entry.state = _READY
        self.ready.lane(envelope.queue, envelope.priority).append(entry)
        touched.add(envelope.queue)

    def locked_next_order(self) -> int:
        """A place behind everything that is ready."""
        self._order += 1
        return self._order

    # Taking

    def new_stake(self, worker: str, lease: float) -> Stake:
        """What a consumer takes its loans under."""
        with self.lock:
            self._last_stake += 1
            return Stake(self._last_stake, worker, lease)

    def take(self, stake: Stake, queues: Sequence[str], limit: int) -> tuple[list[Delivery], float]:
        """Lend up to `limit` messages, and when there were none, how many seconds until time alone brings one."""
        touched: set[str] = set()
        with self.lock:
            now = self.clock.monotonic()
            self.locked_pass_time(now, touched)
            taken = self.ready.take(queues, limit)
            if taken:
                deliveries = self._locked_lend(stake, taken, now, touched)
                pause = 0.0
            else:
                deliveries, pause = [], self._pause(now)
        if touched:
            self.wake(touched)
        return deliveries, pause

    def pause_before_work(self) -> float:
        """Seconds until time alone brings a message; infinity when it never will, 0 when it has."""
        with self.lock:
            return self._pause(self.clock.monotonic())

    def _pause(self, now: float) -> float:
        until_due = (self.delayed.first_due() - self.clock.now_ms()) / 1000
        return max(0.0, min(until_due, self._next_lapse - now))

    def _locked_lend(self, stake: Stake, taken: list[Entry], now: float, touched: set[str]) -> list[Delivery]:
        number, held, receipt, lapses = stake.number, stake.held, self._receipt, now + stake.lease
        self.stakes[stake.number] = stake
        deliveries = []
        for entry in taken:
            receipt += 1
            deliveries_so_far = entry.deliveries = entry.deliveries + 1
            entry.state = _LEASED
            entry.receipt = receipt
            entry.lapses = lapses
            entry.stake = number
            envelope = entry.envelope
            job_id = envelope.id
            held[job_id] = entry
            deliveries.append(
                Delivery(
                    id=job_id,
                    queue=envelope.queue,
                    body=envelope.body,
                    deliveries=deliveries_so_far,
                    receipt=receipt,
                )
            )
        self._receipt = receipt
        if lapses < self._next_lapse:
            self._next_lapse = lapses
            touched.update(queue for waiter in self._idle for queue in waiter.queues)
        return deliveries

    @contextlib.contextmanager
    def as_of_now(self) -> Iterator[set[str]]:
        """Hold the lock, with all that time alone does done; wake afterwards who waits for the queues in the set."""
        touched: set[str] = set()
        with self.lock:
            self.locked_pass_time(self.clock.monotonic(), touched)
            yield touched
        self.wake(touched)

    def locked_pass_time(self, now: float, touched: set[str]) -> None:
        """Bring back what has lapsed, and make ready what has come due."""
        if self._next_lapse <= now:
            lapsed = [entry for stake in self.stakes.values() for entry in stake.lapsed(now)]
            for entry in lapsed:
                self.locked_unlend(entry)
                touched.add(entry.envelope.queue)
            self.ready.put_back(lapsed)
            self.stakes = {number: stake for number, stake in self.stakes.items() if stake.held}
            self._next_lapse = min((stake.first_lapse() for stake in self.stakes.values()), default=math.inf)
        now_ms = self.clock.now_ms()
        if self.delayed.first_due() <= now_ms:
            for entry in self.delayed.due(now_ms):
                # Behind what is ready already: it was not there before.
                entry.order = self.locked_next_order()
                self.locked_enqueue(entry, touched)

    def locked_unlend(self, entry: Entry) -> None:
        """The delivery it is out on ends here: its receipt is worth nothing any more."""
        self.stakes[entry.stake].held.pop(entry.envelope.id, None)
        entry.state, entry.receipt, entry.stake = _READY, 0, 0

    def extend(self, deliveries: Sequence[Delivery]) -> list[bool]:
        """Make each lease last its full length from now; False for those that are over."""
        with self.lock:
            now = self.clock.monotonic()
            held = []
            for delivery in deliveries:
                entry = self.entries.get(delivery.id)
                if entry is None or not entry.stake or entry.receipt != delivery.receipt:
                    held.append(False)
                    continue
                stake = self.stakes[entry.stake]
                entry.lapses = now + stake.lease
                # To the end: the order of `held` is the order of lapsing.
                stake.held[delivery.id] = stake.held.pop(delivery.id)
                held.append(True)
            return held

    # Ending

    def locked_finish(self, entry: Entry) -> None:
        """Its job has ended: only the id, and perhaps the key, are remembered."""
        envelope = entry.envelope
        job_id = envelope.id
        del self.entries[job_id]
        if envelope.key is not None:
            self.locked_free_key(entry)
        entry.state = None
        self.finished.add(job_id)
        if self.flagged:
            self.flagged.discard(job_id)

    def locked_free_key(self, entry: Entry) -> None:
        """Its job has ended, or is dead: the key is taken for its `key_ttl` only."""
        envelope = entry.envelope
        if envelope.key is not None:
            self.keys.finish(envelope.key, envelope.id, envelope.key_ttl, self.clock.monotonic())

    # Waiting

    def wait_for_work(self, waiter: Waiter[None]) -> None:
        """From now on, this waiter is woken by all that may concern its queues."""
        with self.lock:
            self._idle.add(waiter)

    def stop_waiting(self, waiter: Waiter[None]) -> None:
        """It has what it wanted, or wants no more."""
        with self.lock:
            self._idle.discard(waiter)

    def wake(self, queues: set[str]) -> None:
        """Have everybody look again who waits for one of these queues. Not under the lock."""
        if self._idle and queues:
            with self.lock:
                waiters = [waiter for waiter in self._idle if not waiter.queues.isdisjoint(queues)]
                # Told once; it registers again if it finds nothing.
                self._idle.difference_update(waiters)
            wake_all((waiter, None) for waiter in waiters)
