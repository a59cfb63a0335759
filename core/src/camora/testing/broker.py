"""The memory broker of a `TestWorker`: it notes what passes, and lets go wrong what a test asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Self

import attrs

from camora.builtin.memory import MemoryBroker
from camora.errors import BrokerUnavailable, DispatchUncertain
from camora.interfaces.broker import Consumer, ConsumerSettings, Leases
from camora.interfaces.capabilities import Support
from camora.interfaces.results import ResultBackend
from camora.message import Delivery, Envelope
from camora.outcome import Action, JobRecord, Settlement
from camora.queue import Queue
from camora.testing.dispatched import Dispatched
from camora.testing.faults import Faults
from camora.testing.finished import Finished
from camora.testing.results import StagedResults
from camora.testing.stage import Stage

__all__ = ["StagedBroker", "Theatre"]

_RELEASE = Action.RELEASE


@attrs.define(kw_only=True)
class Theatre:
    """What the broker, its twins and their consumers share."""

    stage: Stage
    faults: Faults
    dispatched: Dispatched
    finished: Finished
    keeps_records: bool
    task_options: frozenset[str]
    """The options of plugins that the app's tasks may have."""
    down_until: float = 0.0
    """Milliseconds since the epoch until which the broker cannot be reached."""

    @property
    def is_down(self) -> bool:
        """True while the broker cannot be reached."""
        return self.stage.clock.now_ms() < self.down_until

    def refuse_if_down(self) -> None:
        """Raises `BrokerUnavailable` while it is."""
        if self.is_down:
            raise BrokerUnavailable("the test has taken the broker down")

    def task_of(self, job_id: str) -> str:
        """The task of a message in the store."""
        entry = self.stage.store.entries.get(job_id)
        return "" if entry is None else entry.envelope.task


class StagedBroker(MemoryBroker):
    """A `MemoryBroker` that a test looks into, and breaks."""

    # It fails as one behind a network does, so the dispatcher is to treat it as such.
    capabilities = attrs.evolve(MemoryBroker.capabilities, shared=Support.NATIVE, transactions=Support.EMULATED)

    def __init__(self, theatre: Theatre) -> None:
        super().__init__(theatre.stage.store, name="test")
        self._theatre = theatre
        self.task_options = theatre.task_options

    def declare(self, queues: Sequence[Queue]) -> None:
        """Any kind: it stands for whatever broker the app has. Here all are plain queues."""

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """Store a batch as one step, unless it is to go wrong."""
        theatre = self._theatre
        theatre.refuse_if_down()
        if any(theatre.faults.strikes("refuse", envelope.task) for envelope in envelopes):
            raise BrokerUnavailable("the test lets this publication fail")
        known = [envelope.id in theatre.stage.store.entries for envelope in envelopes]
        answers = await super().publish(envelopes)
        for envelope, answer, old in zip(envelopes, answers, known, strict=True):
            if not old and answer == envelope.id:
                theatre.dispatched.add(envelope)
                theatre.stage.log.note("dispatched", envelope.task, envelope.id)
        if any(theatre.faults.strikes("doubt", envelope.task) for envelope in envelopes):
            raise DispatchUncertain(
                "the test has lost the broker's answer; the jobs are enqueued", job_id=envelopes[0].id
            )
        return answers

    async def publish_within(self, connection: Any, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """At once: what the test's transaction rolls back has been dispatched all the same."""
        del connection
        await self.open()
        return await self.publish(envelopes)

    async def consumer(self, settings: ConsumerSettings) -> Consumer:
        """A consumer of these queues."""
        return StagedConsumer(await super().consumer(settings), settings.worker, self._theatre)

    def own_results(self) -> ResultBackend:
        """A memory result backend on the same store."""
        theatre = self._theatre

        def ended(record: JobRecord) -> None:
            theatre.stage.log.note(theatre.finished.add_record(record), record.task, record.id)
            theatre.stage.end_early(record.id)

        return StagedResults(theatre.stage.store, ended)

    def twin(self) -> Self:
        """Another broker on the same store, with the same faults."""
        return type(self)(self._theatre)


class StagedConsumer(Consumer):
    """Hands out as many jobs at once as the stage has room for, and breaks as planned."""

    def __init__(self, inner: Consumer, worker: str, theatre: Theatre) -> None:
        self._inner = inner
        self._worker = worker
        self._theatre = theatre
        self._stage = theatre.stage
        self._seat = theatre.stage.sit(worker)
        self._told_down = {"receive": False, "settle": False}
        self._stopped = asyncio.Event()

    async def receive(self, limit: int, wait: float) -> Sequence[Delivery]:
        """As the memory broker's, within the room on the stage."""
        stage, seat = self._stage, self._seat
        while not self._over:
            self._fail_if_down("receive")
            if self._theatre.is_down:
                with stage.looking(seat):
                    await self._or_stopped(self._until_up())
                continue
            seen, room = stage.changes, stage.room()
            if room <= 0:
                with stage.looking(seat):
                    await self._or_stopped(stage.change(seen, seat))
                continue
            found = await self._inner.receive(min(limit, room), 0)
            if not found:
                with stage.looking(seat):
                    found = await self._inner.receive(min(limit, room), wait)
            taken = await self._admit(found)
            if taken or not found:
                return taken
        if self._dead:
            await self._stopped.wait()  # the dead do nothing; their worker is about to be closed
        return ()

    async def _admit(self, found: Sequence[Delivery]) -> Sequence[Delivery]:
        """Those that there is room for; the others go back to the front of their queue."""
        room = 0 if self._over or self._theatre.is_down else self._stage.room()
        taken, back = found[:room], found[room:]
        for delivery in taken:
            self._stage.take(delivery, self._seat)
            task = self._theatre.task_of(delivery.id)
            self._stage.log.note("received", task, delivery.id)
            if self._theatre.faults.strikes("received", task):
                self._stage.log.note("crashed", task, delivery.id, "received")
                self._stage.kill(self._worker)
                return ()
        if back and self._worker not in self._stage.dead:
            await self._inner.settle([Settlement(delivery=one, action=_RELEASE, charged=False) for one in back])
        return taken

    async def settle(self, settlements: Sequence[Settlement]) -> Sequence[bool | None]:
        """As the memory broker's; nothing of a worker that is dead."""
        self._fail_if_down("settle")
        with self._stage.asleep([settlement.delivery.id for settlement in settlements]):
            while self._theatre.is_down and not self._over:
                await self._or_stopped(self._until_up())
        if self._dead:
            return [False] * len(settlements)
        return [await self._settle_one(settlement) for settlement in settlements]

    async def _settle_one(self, settlement: Settlement) -> bool | None:
        if self._dead:
            return False
        delivery, stage, faults = settlement.delivery, self._stage, self._theatre.faults
        task = self._theatre.task_of(delivery.id)
        released = settlement.action is _RELEASE
        if not released and faults.strikes("lose_ack", task):
            stage.log.note("lost", task, delivery.id, "acknowledgement")
            stage.let_go(delivery)
            return True
        if not released and faults.strikes("twice", task):
            stage.log.note("doubled", task, delivery.id)
            settlement = Settlement(delivery=delivery, action=_RELEASE)
            released = True
        [applied] = await self._inner.settle([settlement])
        if not applied:
            stage.log.note("refused", task, delivery.id)
        elif settlement.action is Action.ACK and settlement.record is None and self._theatre.keeps_records:
            stage.log.note("acknowledged", task, delivery.id)  # before the function is called
        elif not released:
            ended = self._theatre.finished.add(settlement, task)
            stage.log.note(ended, task, delivery.id)
        if not released and faults.strikes("settled", task):
            stage.log.note("crashed", task, delivery.id, "settled")
            stage.kill(self._worker)
            return False
        stage.let_go(delivery)
        return applied

    @property
    def _dead(self) -> bool:
        return self._worker in self._stage.dead

    @property
    def _over(self) -> bool:
        return self._dead or self._stopped.is_set()

    def _fail_if_down(self, what: str) -> None:
        """Fail once, as a connection that breaks does; whoever tries again then hangs until the broker is back."""
        down = self._theatre.is_down
        told, self._told_down[what] = self._told_down[what], down
        if down and not told:
            self._theatre.refuse_if_down()

    async def _until_up(self) -> None:
        await self._stage.sleep((self._theatre.down_until - self._stage.clock.now_ms()) / 1000)

    async def _or_stopped(self, waiting: Coroutine[Any, Any, None]) -> None:
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(waiting), loop.create_task(_set(self._stopped))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    def leases(self) -> Leases:
        """The memory broker's."""
        return self._inner.leases()

    async def stop(self) -> None:
        """Take nothing more."""
        self._stopped.set()
        self._stage.leave(self._seat)
        await self._inner.stop()

    async def close(self) -> None:
        """Stop."""
        await self.stop()
        await self._inner.close()


async def _set(event: asyncio.Event) -> None:
    await event.wait()
