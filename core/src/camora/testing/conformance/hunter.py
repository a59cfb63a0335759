"""What is hunted, and what a hunter does with it: every call on the broker, told to the model."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

import attrs
from hypothesis.stateful import RuleBasedStateMachine

from camora.clock import SYSTEM_CLOCK, Clock
from camora.interfaces.broker import Broker, ConsumerSettings
from camora.message import Delivery, Envelope
from camora.outcome import Action, Settlement
from camora.testing.conformance.making import ack, envelope, reject, release, retry
from camora.testing.conformance.model import Job, Model, Now, Place

__all__ = ["QUEUES", "Hunter", "Subject"]

R = TypeVar("R")

QUEUES = ("a", "b")
_WATCHES = (("a",), ("a", "b"), ("b", "a"))


def _sleep(seconds: float) -> None:
    time.sleep(seconds)


@attrs.frozen(kw_only=True)
class Subject:
    """What is hunted: an unopened broker on an empty store, and how time passes for it.

    A broker that reads a clock of ours gets one that `pass_time` moves. For a real server the default sleeps: then
    `lease` is to be short, and `blur` (milliseconds) as much as its clock and this machine's may be apart.
    `patience` is how many seconds a message that must come may take. `keys_by_queue`: in another queue, the same
    idempotency key is another one. `pushes`: messages are sent ahead, or taken from several servers at once, so that
    one may have them for a moment who does not ask for them, and others pass them. `refunds`: as in
    `BrokerConformance`.
    """

    broker: Broker
    clock: Clock = SYSTEM_CLOCK
    pass_time: Callable[[float], None] = _sleep
    lease: float = 0.5
    blur: float = 2.0
    patience: float = 0.0
    keys_by_queue: bool = False
    pushes: bool = False
    refunds: bool = True


class Hunter(RuleBasedStateMachine):
    """Two brokers on one store, three consumers, and the model beside them. What is done when, others decide."""

    @staticmethod
    def make_subject() -> Subject:
        """A broker on an empty store; called for each example. `broker_state_machine` overrides it."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.subject = self.make_subject()
        self.broker = self.subject.broker
        self.can = self.broker.capabilities
        # Without leases nothing ever comes back by itself.
        lease = self.subject.lease if self.can.leases else math.inf
        subject = self.subject
        self.model = Model(lease, keys_by_queue=subject.keys_by_queue, pushes=subject.pushes, refunds=subject.refunds)
        self.held: list[Delivery] = []
        """Every delivery ever made, stale ones too: kept, so that their identities stay theirs."""
        self.owners: dict[int, int] = {}
        """Which consumer got a delivery, by the identity of the delivery."""
        self.names = 0
        self.run(self._open())

    async def _open(self) -> None:
        await self.broker.open()
        self.twin = self.broker.twin()
        await self.twin.open()
        self.consumers = [
            await broker.consumer(
                ConsumerSettings(queues=queues, worker=f"worker-{number}", lease=self.subject.lease, prefetch=1)
            )
            for number, (broker, queues) in enumerate(zip((self.broker, self.twin, self.broker), _WATCHES, strict=True))
        ]
        self.leases = [consumer.leases() for consumer in self.consumers]

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Do it in the machine's own loop."""
        return self.loop.run_until_complete(work)

    def timed(self, work: Callable[[], R]) -> tuple[R, Now]:
        """Do it, and say when."""
        before = self.subject.clock.now_ms()
        answer = work()
        return answer, Now(before, self.subject.clock.now_ms(), self.subject.blur)

    def moment(self) -> Now:
        """This one."""
        now = self.subject.clock.now_ms()
        return Now(now, now, self.subject.blur)

    def _envelope(self, wish: tuple[int, int, int, int, int]) -> Envelope:
        queue, priority, delay, key, ttl = wish
        self.names += 1
        due = self.subject.clock.now_ms() + round(delay * self.subject.lease * 400) if delay and self.can.delay else 0
        return envelope(
            QUEUES[queue],
            f"body-{self.names}".encode(),
            id=f"job-{self.names:04}",
            priority=priority if self.can.priority else 0,
            due=due,
            key=f"key-{key}" if key and self.can.dedup else None,
            key_ttl=ttl * self.subject.lease if key else 0.0,
        )

    def _receive(self, who: int, limit: int) -> None:
        consumer, queues, patience = self.consumers[who], _WATCHES[who], self.subject.patience
        owed = {job.id for job in self.model.must_come(queues, self.moment())}
        while True:
            taken, now = self.timed(partial(self.run, consumer.receive(limit, patience if owed else 0)))
            by_priority = bool(self.can.priority)
            self.model.received(queues, limit, taken, now, by_priority=by_priority, exact=not patience)
            self.held += taken
            self.owners.update({id(delivery): who for delivery in taken})
            limit -= len(taken)
            owed -= {delivery.id for delivery in taken}
            if not (patience and owed and limit):
                return
            # Allowed: a server may hand out less than there is.
            assert taken, f"{sorted(owed)} had to come within {patience} s, and did not: lost?"

    def _picked(self, pick: int) -> Delivery:
        # Mostly the latest deliveries, at times long gone ones.
        return self.held[-1 - pick % min(len(self.held), 6 if pick % 4 else len(self.held))]

    def _settle(self, settlement: Settlement) -> None:
        # By the consumer that got the delivery: a receipt need not mean anything to another one.
        consumer = self.consumers[self.owners[id(settlement.delivery)]]
        [applied], now = self.timed(lambda: self.run(consumer.settle([settlement])))
        self.model.settled(settlement, applied=applied is True, now=now)

    def _settlement(self, delivery: Delivery, action: Action, detail: int) -> Settlement:
        delay = detail % 3 * self.subject.lease * 0.4 if self.can.delay else 0.0
        self.names += 1
        match action:
            case Action.ACK if detail % 3 == 0:
                return ack(delivery, successors=(self._envelope((detail % 2, 0, 0, 0, 0)),))
            case Action.ACK:
                return ack(delivery)
            case Action.RETRY:
                due = self.subject.clock.now_ms() + round(delay * 1000) if delay else 0
                first = self.model.jobs[delivery.id].envelope
                changes = {"key": first.key, "key_ttl": first.key_ttl, "priority": first.priority}
                return retry(delivery, f"body-{self.names}".encode(), due=due, changes=changes)
            case Action.REJECT:
                return reject(delivery)
            case Action.RELEASE:
                return release(delivery, delay=delay, charged=detail % 2 == 0)

    def _extend(self, delivery: Delivery) -> None:
        leases = self.leases[self.owners[id(delivery)]]
        [verdict], now = self.timed(lambda: leases.extend([delivery]))
        self.model.extended(delivery, verdict, now)

    def _known(self, pick: int) -> Job:
        jobs = list(self.model.jobs.values())
        return jobs[-1 - pick % len(jobs)]

    def teardown(self) -> None:
        """Let everything come, and see that it does: once each."""
        try:
            self._drain()
        finally:
            for leases in self.leases:
                leases.close()  # not inside the loop: it may block, and have a loop of its own
            self.run(self._close())
            self.loop.close()

    def _drain(self) -> None:
        for queue in list(self.model.paused):
            self.run(self.broker.queues.pause(queue, paused=False))
        self.model.paused.clear()
        self.subject.pass_time(self.subject.lease * 2)
        if not self.can.leases:
            for job in self.model.of(Place.LEASED):
                if job.delivery is not None:
                    self._settle(ack(job.delivery))
        for _ in range(3):
            if not self.model.of(Place.WAITING, Place.LEASED):
                break
            before = len(self.held)
            self._receive(1, len(self.model.jobs) + 1)
            for delivery in self.held[before:]:
                self._settle(ack(delivery))
        left = self.model.of(Place.WAITING, Place.LEASED)
        assert not left, f"{[job.id for job in left]} never came again: lost"
        letters = {letter.id for letter in self.run(self.broker.dead_letters.list(limit=10_000))}
        assert letters == {job.id for job in self.model.of(Place.DEAD)}, "the dead letters are not those that died"

    async def _close(self) -> None:
        for consumer in self.consumers:
            await consumer.close()
        await self.twin.close()
        await self.broker.close()
