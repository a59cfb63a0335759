"""What a broker must be doing, kept beside it: the memory of the hunt.

All moments are milliseconds by the subject's clock. Nothing happens at a moment: a call happens between `before` and
`after`, so a lease is over *certainly*, *perhaps* or *not yet*, and the model accepts what it cannot know.
"""

from __future__ import annotations

import enum
import itertools
from collections import defaultdict
from collections.abc import Iterable, Sequence

import attrs

from camora.interfaces.broker import LeaseVerdict
from camora.message import Delivery, Envelope
from camora.outcome import Action, CancelResult, Settlement

__all__ = ["Job", "Model", "Now", "Place", "Sure"]


class Place(enum.Enum):
    """Where a job is, as far as the calls made so far have put it."""

    WAITING = "waiting"
    LEASED = "leased"
    DEAD = "dead"
    OVER = "over"


class Sure(enum.IntEnum):
    """How certain something is."""

    NO = 0
    PERHAPS = 1
    YES = 2


@attrs.frozen
class Now:
    """The time a call took; `blur` is how far two clocks, or a rounding, may be apart."""

    before: float
    after: float
    blur: float = 2.0

    def reached(self, earliest: float, latest: float) -> Sure:
        """Whether a moment that lies between these two had come."""
        if latest + self.blur <= self.before:
            return Sure.YES
        return Sure.PERHAPS if earliest - self.blur <= self.after else Sure.NO


@attrs.define(eq=False)
class Job:
    """One message that was stored. `fresh` until it has been out once: only then is its place in the order fixed."""

    envelope: Envelope
    order: int
    place: Place = Place.WAITING
    body: bytes = b""
    deliveries: int = 0
    unpaid: int = 0
    """Deliveries that were given back uncharged, and may be counted all the same."""
    fresh: bool = True
    due: tuple[float, float] = (0.0, 0.0)
    lapses: tuple[float, float] = (0.0, 0.0)
    delivery: Delivery | None = None
    """The delivery that may settle it, if one may."""
    flagged: Sure = Sure.NO
    forgotten: bool = False
    """Removed by a person: whether its id may be used again is left open."""

    @property
    def id(self) -> str:
        """Its id."""
        return self.envelope.id


@attrs.define
class _Key:
    holder: Job
    ends: tuple[float, float] | None = None
    doubtful: bool = False


class Model:
    """Answers what may happen, and is told what did. Every method that is told something impossible fails.

    `lease` is in seconds. With `keys_by_queue`, the same idempotency key is another one in another queue. What is sent
    ahead (`pushes`) may pass others, and without `refunds` an uncharged release may be counted.
    """

    def __init__(
        self, lease: float, *, keys_by_queue: bool = False, pushes: bool = False, refunds: bool = True
    ) -> None:
        self.lease = lease * 1000
        self._pushes = pushes
        self._refunds = refunds
        self._keys_by_queue = keys_by_queue
        self.jobs: dict[str, Job] = {}
        self.paused: set[str] = set()
        self._keys: dict[tuple[str, str], _Key] = {}
        self._applied: dict[int, Action] = {}
        self._order = itertools.count()

    # Publishing

    def published(self, envelope: Envelope, answer: str, now: Now) -> None:
        """`publish` answered so for this one of its batch."""
        key = self._key_of(envelope)
        taken = Sure.NO if key is None else self._taken(key, now)
        if envelope.id in self.jobs:
            allowed = {envelope.id} | ({key.holder.id} if key and taken else set())
            assert answer in allowed, f"{envelope.id} was stored before, and publish answered {answer}"
            return
        allowed = set()
        if key is not None and taken:
            allowed.add(key.holder.id)
        if taken is not Sure.YES:
            allowed.add(envelope.id)
        assert answer in allowed, f"publish answered {answer} for {envelope.id}; it had to be one of {sorted(allowed)}"
        if answer == envelope.id:
            job = Job(envelope, next(self._order), body=envelope.body, due=(envelope.due, envelope.due))
            job.fresh = not envelope.due
            self.jobs[envelope.id] = job
            if envelope.key is not None:
                self._keys[self._key_name(envelope)] = _Key(job)

    def _key_name(self, envelope: Envelope) -> tuple[str, str]:
        return (envelope.queue if self._keys_by_queue else "", envelope.key or "")

    def _key_of(self, envelope: Envelope) -> _Key | None:
        return None if envelope.key is None else self._keys.get(self._key_name(envelope))

    def _taken(self, key: _Key, now: Now) -> Sure:
        if key.doubtful:
            return Sure.PERHAPS
        if key.ends is None:
            return Sure.YES
        return Sure(2 - now.reached(*key.ends))

    # Receiving

    def can_come(self, job: Job, now: Now) -> Sure:
        """Whether `receive` may hand it out."""
        if job.envelope.queue in self.paused or job.place in (Place.DEAD, Place.OVER):
            return Sure.NO
        return now.reached(*(job.lapses if job.place is Place.LEASED else job.due))

    def must_come(self, queues: Iterable[str], now: Now) -> list[Job]:
        """What a consumer of these queues cannot be refused."""
        wanted = set(queues)
        return [
            job for job in self.jobs.values() if job.envelope.queue in wanted and self.can_come(job, now) is Sure.YES
        ]

    def received(
        self,
        queues: Sequence[str],
        limit: int,
        taken: Sequence[Delivery],
        now: Now,
        *,
        by_priority: bool,
        exact: bool = True,
    ) -> None:
        """One call of `receive` handed these out.

        They had to be all there was, the most urgent first. Unless `exact`: then it may have been less, and what time
        or a worker gave back may come later than its place in the order.
        """
        assert len(taken) <= limit, f"receive({limit}) handed out {len(taken)}"
        assert len({delivery.id for delivery in taken}) == len(taken), "one message twice in a batch"
        for delivery in taken:
            self._check_delivery(delivery, queues, now)
        ids = {delivery.id for delivery in taken}
        left = [job for job in self.must_come(queues, now) if job.id not in ids and (exact or job.fresh)]
        try:
            if exact and len(taken) < limit:
                assert not left, f"{[job.id for job in left]} could be had, and did not come: lost?"
            self._check_order([self.jobs[delivery.id] for delivery in taken], left, by_priority=by_priority)
        finally:
            # They are out, in whatever order: what is looked at next is not to fail for that.
            for delivery in taken:
                self._lend(delivery, now)

    def _lend(self, delivery: Delivery, now: Now) -> None:
        job = self.jobs[delivery.id]
        job.place, job.fresh, job.delivery = Place.LEASED, False, delivery
        job.deliveries, job.unpaid = delivery.deliveries, 0
        job.lapses = (now.before + self.lease, now.after + self.lease)
        job.flagged = min(job.flagged, Sure.PERHAPS)

    def _check_delivery(self, delivery: Delivery, queues: Sequence[str], now: Now) -> None:
        job = self.jobs.get(delivery.id)
        assert job is not None, f"{delivery.id} was never stored, and came"
        assert self.can_come(job, now), f"{job} came, and must not: early, twice, or after its end"
        assert delivery.queue == job.envelope.queue, f"{job} came from {delivery.queue!r}"
        assert delivery.queue in queues, f"{job} came to a consumer of {queues}"
        assert delivery.body == job.body, f"{job} came with the body {delivery.body!r}"
        count = delivery.deliveries - job.deliveries - 1
        assert 0 <= count <= job.unpaid, f"{job} came with {delivery.deliveries} deliveries"

    def _check_order(self, taken: list[Job], left: list[Job], *, by_priority: bool) -> None:
        if self._pushes:
            return
        lines: dict[tuple[str, int], list[Job]] = defaultdict(list)
        for job in taken:
            lines[job.envelope.queue, job.envelope.priority if by_priority else 0].append(job)
        for (queue, priority), jobs in lines.items():
            places = [job.order for job in jobs if job.fresh]
            assert places == sorted(places), f"out of order in {queue!r}: {[job.id for job in jobs]}"
            for other in left:
                if other.envelope.queue != queue:
                    continue
                rank = other.envelope.priority if by_priority else 0
                assert rank <= priority, f"{other.id} is more urgent than {jobs[-1].id}, and was passed over"
                passed = rank == priority and other.fresh and any(place > other.order for place in places)
                assert not passed, f"{other.id} was published before {jobs[-1].id}, and was passed over"
        if by_priority:
            for queue in {job.envelope.queue for job in taken}:
                ranks = [-job.envelope.priority for job in taken if job.envelope.queue == queue]
                assert ranks == sorted(ranks), f"out of priority in {queue!r}: {ranks}"

    # Settling and extending

    def may_settle(self, delivery: Delivery, now: Now) -> Sure:
        """Whether this delivery still belongs to its worker."""
        job = self.jobs[delivery.id]
        if job.place is not Place.LEASED or job.delivery is not delivery:
            return Sure.NO
        return Sure.PERHAPS if now.reached(*job.lapses) else Sure.YES

    def settled(self, settlement: Settlement, *, applied: bool, now: Now) -> None:
        """`settle` answered so for this one of its batch."""
        delivery, job = settlement.delivery, self.jobs[settlement.delivery.id]
        may = self.may_settle(delivery, now)
        if may is Sure.NO:
            repeated = self._applied.get(id(delivery)) is settlement.action
            assert not applied or repeated, f"{settlement.action} by a stale holder of {job} was accepted"
            return
        assert applied or may is not Sure.YES, f"{settlement.action} by the holder of {job} was refused"
        job.delivery = None
        if not applied:
            return
        self._applied[id(delivery)] = settlement.action
        self._apply(job, settlement, now)
        for successor in settlement.successors:
            self.published(successor, successor.id, now)

    def _apply(self, job: Job, settlement: Settlement, now: Now) -> None:
        match settlement.action:
            case Action.ACK:
                self.ended(job, now)
            case Action.REJECT:
                self.ended(job, now, Place.DEAD)
            case Action.RETRY:
                assert settlement.envelope is not None
                job.place, job.deliveries, job.body = Place.WAITING, 0, settlement.envelope.body
                job.due = (settlement.envelope.due, settlement.envelope.due)
            case Action.RELEASE:
                job.place = Place.WAITING
                job.deliveries -= not settlement.charged
                job.unpaid = int(not (settlement.charged or self._refunds))
                delay = settlement.delay * 1000
                job.due = (now.before + delay, now.after + delay) if delay else (0.0, 0.0)

    def ended(self, job: Job, now: Now, place: Place = Place.OVER) -> None:
        """Its job is over, or dead."""
        job.place, job.delivery = place, None
        key = self._key_of(job.envelope)
        if key is not None and key.holder is job and key.ends is None:
            ttl = job.envelope.key_ttl * 1000
            if ttl or key.doubtful:
                key.ends = (now.before + ttl, now.after + ttl)
            else:
                del self._keys[self._key_name(key.holder.envelope)]

    def extended(self, delivery: Delivery, verdict: LeaseVerdict, now: Now) -> None:
        """`extend` answered so for this one of its batch."""
        job = self.jobs[delivery.id]
        may = self.may_settle(delivery, now)
        if verdict is LeaseVerdict.LOST:
            assert may is not Sure.YES, f"the lease of {job} was lost before its time"
            if may:
                job.delivery = None
            return
        assert may, f"a lost lease of {job} was extended"
        job.lapses = (now.before + self.lease, now.after + self.lease)

    # People

    def cancelled(self, job: Job, answer: CancelResult, now: Now) -> None:
        """`Queues.cancel` answered so."""
        over = job.place in (Place.DEAD, Place.OVER)
        if over:
            assert answer in (CancelResult.FINISHED, CancelResult.UNKNOWN), f"cancelling {job} answered {answer}"
            return
        leased = Sure.NO if job.place is Place.WAITING else Sure(2 - now.reached(*job.lapses))
        if answer is CancelResult.SIGNALLED:
            # A lapsed lease that nobody has looked at may still count as one; the flag is then for the next worker.
            assert job.place is Place.LEASED, f"cancelling {job} answered {answer}"
            job.flagged = Sure.YES
            return
        assert answer is CancelResult.REMOVED, f"cancelling {job} answered {answer}"
        assert leased is not Sure.YES, f"cancelling {job}, which runs, removed it"
        self.removed(job, now)

    def rescheduled(self, job: Job, due: int, *, answer: bool, now: Now) -> None:
        """`Queues.reschedule` answered so."""
        waits = Sure.YES if job.place is Place.WAITING else Sure.NO
        if waits and self._pushes and now.reached(*job.due):
            # Sent ahead to somebody who has not asked for it yet.
            waits = Sure.PERHAPS
        elif job.place is Place.LEASED and now.reached(*job.lapses):
            # A lapsed lease that nobody has looked at may still count as one.
            waits = Sure.PERHAPS
        if not answer:
            assert waits is not Sure.YES, f"{job} waits, and could not be rescheduled"
            return
        assert waits, f"{job} was rescheduled, and does not wait"
        # Among those that are due at one moment, its place is open.
        job.place, job.delivery, job.fresh, job.due = Place.WAITING, None, False, (due, due)

    def removed(self, job: Job, now: Now) -> None:
        """A person took it away."""
        job.forgotten = True
        self.ended(job, now)

    def requeued(self, job: Job, *, answer: bool) -> None:
        """`DeadLetters.requeue` answered so."""
        assert answer == (job.place is Place.DEAD), f"requeueing {job} answered {answer}"
        if not answer:
            return
        job.place, job.deliveries, job.due, job.flagged = Place.WAITING, 0, (0.0, 0.0), Sure.PERHAPS
        key = self._key_of(job.envelope)
        if job.envelope.key is not None:
            # Whether the key is its own again is left open, and so is everything about that key from here on.
            self._keys[self._key_name(job.envelope)] = _Key(key.holder if key else job, doubtful=True)

    # Looking

    def of(self, *places: Place) -> list[Job]:
        """Jobs in these places."""
        return [job for job in self.jobs.values() if job.place in places]

    def lapsed(self, queue: str, now: Now) -> list[Job]:
        """Those of this queue whose leases are over, or may be."""
        return [job for job in self.of(Place.LEASED) if job.envelope.queue == queue and now.reached(*job.lapses)]
