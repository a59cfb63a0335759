"""The hunt: random calls on a broker, beside a model of what it must do. It finds lost, doubled and misordered jobs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, precondition, rule, run_state_machine_as_test

from camora.outcome import Action
from camora.testing.conformance.hunter import QUEUES, Hunter, Subject
from camora.testing.conformance.model import Place, Sure

__all__ = ["BrokerMachine", "broker_state_machine", "hunt"]


class BrokerMachine(Hunter):
    """Everything that can be done with a broker, in any order."""

    # Publishing

    wishes = st.tuples(
        st.integers(0, 1), st.sampled_from([0, 0, 0, 5]), st.sampled_from([0, 0, 0, 1, 3]),
        st.sampled_from([0, 0, 0, 1, 2]), st.sampled_from([0, 2]),
    )  # fmt: skip

    @rule(wishes=st.lists(wishes, min_size=1, max_size=4), repeat=st.integers(0, 50), on_twin=st.booleans())
    def publish(self, wishes: list[tuple[int, int, int, int, int]], repeat: int, *, on_twin: bool) -> None:
        """A batch, at times with a message that was published before."""
        batch = [self._envelope(wish) for wish in wishes]
        known = [job.envelope for job in self.model.jobs.values() if not job.forgotten]
        if known and self.can.dedup and repeat % 3 == 0:
            batch.insert(repeat % (len(batch) + 1), known[repeat % len(known)])
        broker = self.twin if on_twin else self.broker
        answers, now = self.timed(lambda: self.run(broker.publish(batch)))
        assert len(answers) == len(batch)
        for message, answer in zip(batch, answers, strict=True):
            self.model.published(message, answer, now)

    # Working

    @rule(who=st.integers(0, 2), limit=st.integers(1, 6))
    def receive(self, who: int, limit: int) -> None:
        """One consumer takes what there is, without waiting."""
        self._receive(who, limit)

    @rule(who=st.integers(0, 2), limit=st.integers(1, 6), action=st.sampled_from(Action), detail=st.integers(0, 5))
    def work(self, who: int, limit: int, action: Action, detail: int) -> None:
        """One consumer takes what there is, and settles it in one way."""
        before = len(self.held)
        self._receive(who, limit)
        for delivery in self.held[before:]:
            self._settle(self._settlement(delivery, action, detail))

    @precondition(lambda self: self.held)
    @rule(
        wishes=st.lists(
            st.tuples(st.integers(0, 1000), st.sampled_from(Action), st.integers(0, 5)), min_size=1, max_size=4
        ),
        twice=st.booleans(),
    )
    def settle(self, wishes: list[tuple[int, Action, int]], *, twice: bool) -> None:
        """Any deliveries in any way, stale ones too; at times the whole batch once more."""
        batch = [self._settlement(self._picked(pick), action, detail) for pick, action, detail in wishes]
        for _ in range(1 + twice):
            for settlement in batch:
                self._settle(settlement)

    @precondition(lambda self: self.held)
    @rule(pick=st.integers(0, 1000))
    def extend(self, pick: int) -> None:
        """One lease, perhaps a stale one."""
        self._extend(self._picked(pick))

    @rule(parts=st.sampled_from([0.3, 0.6, 1.3]))
    def time_passes(self, parts: float) -> None:
        """Leases lapse, delayed messages come due."""
        self.subject.pass_time(parts * self.subject.lease)

    @precondition(lambda self: self.model.of(Place.LEASED))
    @rule(who=st.integers(0, 2))
    def all_fall_silent(self, who: int) -> None:
        """Every lease lapses, and somebody takes what comes back."""
        self.subject.pass_time(1.3 * self.subject.lease)
        self._receive(who, 6)

    @precondition(lambda self: self.model.of(Place.LEASED))
    @rule(who=st.integers(0, 2))
    def all_are_kept(self, who: int) -> None:
        """Every delivery is kept for longer than a lease, and somebody looks whether one comes back."""
        for _ in range(2):
            for delivery in [job.delivery for job in self.model.of(Place.LEASED) if job.delivery is not None]:
                self._extend(delivery)
            self.subject.pass_time(0.6 * self.subject.lease)
        self._receive(who, 6)

    # People

    @precondition(lambda self: self.can.cancel and self.model.jobs)
    @rule(pick=st.integers(0, 1000))
    def cancel(self, pick: int) -> None:
        """Any job, wherever it is."""
        job = self._known(pick)
        answer, now = self.timed(lambda: self.run(self.twin.queues.cancel(job.id)))
        self.model.cancelled(job, answer, now)

    @precondition(lambda self: self.can.reschedule and self.can.delay and self.model.jobs)
    @rule(pick=st.integers(0, 1000), parts=st.sampled_from([-1.0, 0.0, 0.4, 1.2]))
    def reschedule(self, pick: int, parts: float) -> None:
        """Any job, wherever it is, to be due so many leases from now."""
        job = self._known(pick)
        due = self.subject.clock.now_ms() + round(parts * self.subject.lease * 1000)
        answer, now = self.timed(lambda: self.run(self.twin.queues.reschedule(job.id, due)))
        self.model.rescheduled(job, due, answer=answer, now=now)

    @precondition(lambda self: any(job.flagged for job in self.model.of(Place.LEASED)))
    @rule(who=st.integers(0, 2))
    def ask_cancelled(self, who: int) -> None:
        """What a keeper is told of its deliveries."""
        mine = [
            delivery
            for delivery in self.held
            if self.owners[id(delivery)] == who and self.model.jobs[delivery.id].delivery is delivery
        ]
        told = {delivery.id for delivery in self.leases[who].cancelled(mine)}
        for delivery in mine:
            flagged = self.model.jobs[delivery.id].flagged
            if self.model.may_settle(delivery, self.moment()) is Sure.YES and flagged is not Sure.PERHAPS:
                assert (delivery.id in told) == (flagged is Sure.YES), f"{delivery.id}: cancelled or not?"

    @precondition(lambda self: self.can.pause)
    @rule(queue=st.sampled_from(QUEUES))
    def pause_or_resume(self, queue: str) -> None:
        """One queue."""
        paused = queue not in self.model.paused
        self.run(self.broker.queues.pause(queue, paused=paused))
        (self.model.paused.add if paused else self.model.paused.discard)(queue)

    @precondition(lambda self: self.model.of(Place.DEAD))
    @rule(pick=st.integers(0, 1000), any_job=st.integers(0, 4))
    def requeue(self, pick: int, any_job: int) -> None:
        """A dead letter, mostly."""
        dead = self.model.of(Place.DEAD)
        job = dead[pick % len(dead)] if any_job else self._known(pick)
        answer = self.run(self.broker.dead_letters.requeue(job.id))
        self.model.requeued(job, answer=answer)

    @precondition(lambda self: self.model.of(Place.DEAD))
    @rule(queue=st.sampled_from(QUEUES))
    def purge_letters(self, queue: str) -> None:
        """Of one queue."""
        dead = [job for job in self.model.of(Place.DEAD) if job.envelope.queue == queue]
        purged, now = self.timed(lambda: self.run(self.broker.dead_letters.purge(queue=queue)))
        assert purged == len(dead), f"{purged} letters were purged, and there were {len(dead)}"
        for job in dead:
            self.model.removed(job, now)

    # Who cannot look may keep what is not due, or what was sent ahead, and nobody could tell which.
    @precondition(lambda self: self.can.inspect and self.model.of(Place.WAITING) and self.model.of(Place.LEASED))
    @rule(queue=st.sampled_from(QUEUES))
    def purge_queue(self, queue: str) -> None:
        """What waits in one queue."""
        if self.model.lapsed(queue, self.moment()):
            return
        gone = [job for job in self.model.of(Place.WAITING) if job.envelope.queue == queue]
        purged, now = self.timed(lambda: self.run(self.broker.queues.purge(queue)))
        # Leases that ended meanwhile: what was lent may have been among what waited.
        more, lapsed = purged - len(gone), self.model.lapsed(queue, now)
        assert 0 <= more <= len(lapsed), f"{purged} messages were purged, and there were {len(gone)}"
        if more:
            gone += [job for job in lapsed if more == len(lapsed) or self.run(self.broker.queues.find(job.id)) is None]
        for job in gone:
            self.model.removed(job, now)

    # Always

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        """The broker holds as many messages as the model, in each queue; and of each dead one a letter."""
        if self.can.inspect:
            counts = self.run(self.broker.queues.counts())
            for queue in QUEUES:
                states = {str(state): number for state, number in counts.get(queue, {}).items() if number}
                jobs = [
                    job for job in self.model.of(Place.WAITING, Place.LEASED, Place.DEAD) if job.envelope.queue == queue
                ]
                assert sum(states.values()) == len(jobs), f"{queue!r} holds {states}, and should hold {len(jobs)}"
                dead = sum(job.place is Place.DEAD for job in jobs)
                assert states.get("dead", 0) == dead, f"{queue!r} has {states}, and should have {dead} dead"


def broker_state_machine(make_subject: Callable[[], Subject]) -> type[BrokerMachine]:
    """A machine for this broker; `make_subject` is called for each example, and gives it an empty store."""
    return type("BrokerStateMachine", (BrokerMachine,), {"make_subject": staticmethod(make_subject)})


def hunt(make_subject: Callable[[], Subject], *, examples: int = 100, steps: int = 30, **more: Any) -> None:
    """Run the machine; raises `AssertionError` with the shortest story found. Not inside an event loop."""
    run_state_machine_as_test(
        broker_state_machine(make_subject),
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            **more,
        ),
    )
