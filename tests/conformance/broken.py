"""Brokers that are wrong on purpose, one fault each: the hunt must find every one of them."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from camora.builtin.memory import MemoryBroker, MemoryStore
from camora.builtin.memory.consumer import MemoryConsumer, MemoryLeases
from camora.builtin.memory.entries import Entry, Stake
from camora.builtin.memory.inspection import MemoryQueues
from camora.builtin.memory.letters import MemoryDeadLetters
from camora.builtin.memory.settling import settle
from camora.clock import Clock
from camora.interfaces.broker import Consumer, ConsumerSettings, Leases, LeaseVerdict
from camora.message import Delivery, Envelope
from camora.outcome import Action, CancelResult, Settlement
from camora.testing.conformance.making import ack


class Broken(MemoryBroker):
    """A memory broker whose parts can be exchanged for worse ones."""

    store_class: type[MemoryStore] = MemoryStore
    consumer_class: type[MemoryConsumer] = MemoryConsumer

    def __init__(self, store: MemoryStore | None = None, *, name: str = "", clock: Clock | None = None) -> None:
        if store is None:
            assert clock is not None
            store = self.store_class(clock)
        super().__init__(store, name=name)

    async def consumer(self, settings: ConsumerSettings) -> Consumer:
        return self.consumer_class(self.store, settings)


def settling(change: Any) -> type[Broken]:
    """A broker that settles something else than it is told."""

    class Settling(MemoryConsumer):
        async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool]:
            return settle(self._store, [change(self._store, settlement) for settlement in settlements])

    class SettlesWrongly(Broken):
        consumer_class = Settling

    return SettlesWrongly


def stored_by(kind: type[MemoryStore]) -> type[Broken]:
    """A broker with another store."""
    return type(kind.__name__, (Broken,), {"store_class": kind})


def _replaced(settlement: Settlement, **changes: Any) -> Settlement:
    return msgspec.structs.replace(settlement, **changes)


# Allowed


class _Lazy(MemoryStore):
    """Hands out two at most, and looks for what has lapsed, or come due, only when there is nothing else."""

    late = False

    def take(self, stake: Stake, queues: Sequence[str], limit: int) -> tuple[list[Delivery], float]:
        self.late = True
        taken, pause = super().take(stake, queues, min(limit, 2))
        self.late = False
        return (taken, pause) if taken else super().take(stake, queues, min(limit, 2))

    def locked_pass_time(self, now: float, touched: set[str]) -> None:
        if not self.late:
            super().locked_pass_time(now, touched)


class Lazy(Broken):
    """As servers are, which no clock of ours moves: sound, though it is not exact."""

    store_class = _Lazy


# Losing


@settling
def _release_loses(_: MemoryStore, settlement: Settlement) -> Settlement:
    return ack(settlement.delivery) if settlement.action is Action.RELEASE else settlement


@settling
def _retry_loses(_: MemoryStore, settlement: Settlement) -> Settlement:
    return ack(settlement.delivery) if settlement.action is Action.RETRY else settlement


@settling
def _rejection_loses(_: MemoryStore, settlement: Settlement) -> Settlement:
    return ack(settlement.delivery) if settlement.action is Action.REJECT else settlement


@settling
def _successors_are_lost(_: MemoryStore, settlement: Settlement) -> Settlement:
    return _replaced(settlement, successors=())


class _LapsedAreLost(MemoryStore):
    def locked_pass_time(self, now: float, touched: set[str]) -> None:
        lapsed = [entry for stake in self.stakes.values() for entry in stake.held.values() if entry.lapses <= now]
        super().locked_pass_time(now, touched)
        for entry in lapsed:
            self.ready.lane(entry.envelope.queue, entry.envelope.priority).remove(entry)
            self.locked_finish(entry)


class _LongBatchesLoseTheirLast(MemoryStore):
    def publish(self, envelopes: Iterable[Envelope]) -> list[str]:
        batch = list(envelopes)
        super().publish(batch[:3])
        return [envelope.id for envelope in batch]


class _DeadLettersAreForgotten(Broken):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

        class Letters(MemoryDeadLetters):
            async def requeue(self, job_id: str, *, body: bytes | None = None) -> bool:
                entry = self._store.entries.get(job_id)
                if self._store.letters.pop(job_id, None) is None or entry is None:
                    return False
                self._store.locked_finish(entry)
                return True

        self._dead_letters = Letters(self.store)


# Doubling


class _HandsOutTwice(MemoryConsumer):
    last: tuple[Delivery, ...] = ()

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        taken = tuple(await super().receive(limit, wait))
        again = self.last if not taken else ()
        self.last = taken[:1]
        return taken or again


class _DeliversTwice(Broken):
    consumer_class = _HandsOutTwice


class _ForgetsFinishedIds(MemoryStore):
    def locked_finish(self, entry: Entry) -> None:
        super().locked_finish(entry)
        self.finished.discard(entry.envelope.id)


class _IgnoresKeys(MemoryStore):
    def publish(self, envelopes: Iterable[Envelope]) -> list[str]:
        return super().publish([msgspec.structs.replace(envelope, key=None) for envelope in envelopes])


class _ForgetsKeyTtl(MemoryStore):
    def publish(self, envelopes: Iterable[Envelope]) -> list[str]:
        return super().publish([msgspec.structs.replace(envelope, key_ttl=0.0) for envelope in envelopes])


class _NeverFreesKeys(MemoryStore):
    def locked_free_key(self, entry: Entry) -> None:
        pass


@settling
def _unfenced(store: MemoryStore, settlement: Settlement) -> Settlement:
    entry = store.entries.get(settlement.delivery.id)
    if entry is None or not entry.receipt:
        return settlement
    return _replaced(settlement, delivery=msgspec.structs.replace(settlement.delivery, receipt=entry.receipt))


class _RevivingLeases(MemoryLeases):
    def extend(self, deliveries: Sequence[Delivery]) -> Sequence[LeaseVerdict]:
        super().extend(deliveries)
        return [LeaseVerdict.HELD for _ in deliveries]


class _RevivingConsumer(MemoryConsumer):
    def leases(self) -> Leases:
        return _RevivingLeases(self._store)


class _Revives(Broken):
    consumer_class = _RevivingConsumer


class _LazyLeases(MemoryLeases):
    def extend(self, deliveries: Sequence[Delivery]) -> Sequence[LeaseVerdict]:
        entries = [self._store.entries.get(delivery.id) for delivery in deliveries]
        held = [
            entry is not None and entry.receipt == one.receipt for entry, one in zip(entries, deliveries, strict=True)
        ]
        return [LeaseVerdict.HELD if one else LeaseVerdict.LOST for one in held]


class _LazyConsumer(MemoryConsumer):
    def leases(self) -> Leases:
        return _LazyLeases(self._store)


class _DoesNotExtend(Broken):
    consumer_class = _LazyConsumer


# Misordering and bad timing


class _LastInFirstOut(MemoryStore):
    def locked_publish(self, envelopes: Iterable[Envelope], touched: set[str]) -> list[str]:
        answers = super().locked_publish(envelopes, touched)
        for queue in self.ready._queues.values():
            for lane in queue.lanes.values():
                if len(lane) > 2:
                    lane.appendleft(lane.pop())
        return answers


class _IgnoresPriority(MemoryStore):
    def publish(self, envelopes: Iterable[Envelope]) -> list[str]:
        return super().publish([msgspec.structs.replace(envelope, priority=0) for envelope in envelopes])


class _StartsEarly(MemoryStore):
    def publish(self, envelopes: Iterable[Envelope]) -> list[str]:
        return super().publish(
            [msgspec.structs.replace(one, due=one.due - 10_000) if one.due else one for one in envelopes]
        )


@settling
def _retries_at_once(_: MemoryStore, settlement: Settlement) -> Settlement:
    if settlement.envelope is None:
        return settlement
    return _replaced(settlement, envelope=msgspec.structs.replace(settlement.envelope, due=0))


@settling
def _charges_every_release(_: MemoryStore, settlement: Settlement) -> Settlement:
    return _replaced(settlement, charged=True)


@settling
def _retry_keeps_the_old_body(_: MemoryStore, settlement: Settlement) -> Settlement:
    if settlement.envelope is None:
        return settlement
    old = msgspec.structs.replace(settlement.envelope, body=settlement.delivery.body)
    return _replaced(settlement, envelope=old)


class _PassesOverEverySeventh(MemoryStore):
    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._count = itertools.count(1)
        self._later: deque[Envelope] = deque()

    def publish(self, envelopes: Iterable[Envelope]) -> list[str]:
        batch = list(envelopes)
        late = [one for one in batch if next(self._count) % 7 == 0]
        super().publish([one for one in batch if one not in late])
        super().publish(late)
        return [one.id for one in batch]


# People


class _PauseIsIgnored(Broken):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

        class Queues(MemoryQueues):
            async def pause(self, queue: str, *, paused: bool = True) -> None:
                pass

        self._queues = Queues(self.store)


class _CancelledOnesRun(Broken):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

        class Queues(MemoryQueues):
            async def cancel(self, job_id: str) -> CancelResult:
                found = await self.find(job_id)
                if found is not None and found.state in ("ready", "scheduled"):
                    return CancelResult.REMOVED
                return await super().cancel(job_id)

        self._queues = Queues(self.store)


class _PurgeTakesAll(Broken):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

        class Queues(MemoryQueues):
            async def purge(self, queue: str) -> int:
                purged = await super().purge(queue)
                for entry in list(self._store.entries.values()):
                    if entry.envelope.queue == queue and entry.state == "leased":
                        self._store.locked_unlend(entry)
                        self._store.locked_finish(entry)
                return purged

        self._queues = Queues(self.store)


class _RescheduledOnesStay(Broken):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

        class Queues(MemoryQueues):
            async def reschedule(self, job_id: str, due: int) -> bool:
                found = await self.find(job_id)
                return found is not None and found.state in ("ready", "scheduled")

        self._queues = Queues(self.store)


class _ReschedulingTakesWhatRuns(Broken):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)

        class Queues(MemoryQueues):
            async def reschedule(self, job_id: str, due: int) -> bool:
                entry = self._store.entries.get(job_id)
                if entry is not None and entry.stake:
                    self._store.locked_unlend(entry)
                    self._store.ready.put_back([entry])
                return await super().reschedule(job_id, due)

        self._queues = Queues(self.store)


BROKEN: dict[str, type[Broken]] = {
    "a release loses the message": _release_loses,
    "a retry loses the message": _retry_loses,
    "a rejection leaves no letter": _rejection_loses,
    "successors are lost": _successors_are_lost,
    "what lapses is lost": stored_by(_LapsedAreLost),
    "long batches lose their last message": stored_by(_LongBatchesLoseTheirLast),
    "requeueing loses the letter": _DeadLettersAreForgotten,
    "a delivery is handed out twice": _DeliversTwice,
    "finished ids are forgotten at once": stored_by(_ForgetsFinishedIds),
    "keys are ignored": stored_by(_IgnoresKeys),
    "key_ttl is ignored": stored_by(_ForgetsKeyTtl),
    "keys are never freed": stored_by(_NeverFreesKeys),
    "settlements are not fenced": _unfenced,
    "lost leases are revived": _Revives,
    "extending does nothing": _DoesNotExtend,
    "the last comes first": stored_by(_LastInFirstOut),
    "priorities are ignored": stored_by(_IgnoresPriority),
    "delayed messages come early": stored_by(_StartsEarly),
    "retries come early": _retries_at_once,
    "every release is charged": _charges_every_release,
    "a retry keeps the old body": _retry_keeps_the_old_body,
    "one message in seven is passed over": stored_by(_PassesOverEverySeventh),
    "pausing is ignored": _PauseIsIgnored,
    "cancelled jobs run": _CancelledOnesRun,
    "purging takes what runs": _PurgeTakesAll,
    "rescheduled jobs stay where they are": _RescheduledOnesStay,
    "rescheduling takes what runs": _ReschedulingTakesWhatRuns,
}
