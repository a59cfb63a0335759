"""A broker that can do little, says so, and refuses the rest, passes the exam; one that only says so does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import pytest
from camora import Camora
from camora.builtin.memory import MemoryBroker, MemoryStore
from camora.builtin.memory.inspection import MemoryQueues
from camora.errors import MessageTooLarge, UnsupportedCapability
from camora.interfaces.broker import Broker
from camora.interfaces.capabilities import Capabilities, Support
from camora.interfaces.queues import CancelResult, QueuedJob, Queues
from camora.message import Envelope
from camora.testing.clock import VirtualClock
from camora.testing.conformance import Subject, hunt
from camora.testing.conformance.broker.dedup import DedupSuite
from camora.testing.conformance.broker.inspecting import InspectingSuite
from camora.testing.conformance.broker.living import HonestySuite
from camora.testing.conformance.broker.publishing import PublishingSuite
from camora.testing.conformance.broker.rig import Rig
from camora.testing.conformance.broker.timing import TimingSuite

LARGEST = 10_000


def _refuse(capability: str) -> UnsupportedCapability:
    return UnsupportedCapability(
        f"the poor broker has no {capability}; use the memory broker, memory://, which has", capability=capability
    )


class PoorQueues(MemoryQueues):
    async def counts(self) -> Mapping[str, Mapping[str, int]]:
        raise _refuse("inspect")

    async def find(self, job_id: str) -> QueuedJob | None:
        raise _refuse("inspect")

    async def list(self, queue: str, *, limit: int = 100, after: str = "") -> Sequence[QueuedJob]:
        raise _refuse("inspect")

    async def cancel(self, job_id: str) -> CancelResult:
        raise _refuse("cancel")

    async def reschedule(self, job_id: str, due: int) -> bool:
        return await Queues.reschedule(self, job_id, due)

    async def pause(self, queue: str, *, paused: bool = True) -> None:
        raise _refuse("pause")

    async def paused(self) -> Sequence[str]:
        raise _refuse("pause")


class PoorStore(MemoryStore):
    """Forgets ids at once, as a store without deduplication does."""

    def locked_publish(self, envelopes: Iterable[Envelope], touched: set[str]) -> list[str]:
        self.finished.new.clear()
        return super().locked_publish(envelopes, touched)


class PoorBroker(MemoryBroker):
    capabilities = Capabilities(atomic_settle=Support.NATIVE, leases=Support.NATIVE, largest=LARGEST)

    def __init__(self, store: MemoryStore | None = None, *, name: str = "") -> None:
        super().__init__(store or PoorStore(), name=name)
        self._queues = PoorQueues(self.store)

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        for envelope in envelopes:
            if envelope.due > self.store.clock.now_ms():
                raise _refuse("delay")
            if envelope.priority:
                raise _refuse("priority")
            if envelope.key is not None:
                raise _refuse("dedup")
            if len(envelope.body) > LARGEST:
                raise MessageTooLarge("too large", size=len(envelope.body), limit=LARGEST)
        return await super().publish(envelopes)


class TestPoorBroker(PublishingSuite, TimingSuite, DedupSuite, InspectingSuite, HonestySuite):
    """The parts of the exam that ask for what it cannot do; in the others it is the memory broker."""

    lease = 0.2

    @pytest.fixture
    def broker_factory(self) -> Callable[[], Broker]:
        return PoorBroker


class PatientQueues(PoorQueues):
    async def cancel(self, job_id: str) -> CancelResult:
        found = await MemoryQueues.find(self, job_id)
        if found is None or found.state != "scheduled":
            raise _refuse("cancel")
        return await MemoryQueues.cancel(self, job_id)


class PatientBroker(MemoryBroker):
    """Cancels what is not due yet, and nothing else."""

    capabilities = Capabilities(
        atomic_settle=Support.NATIVE, leases=Support.NATIVE, delay=Support.NATIVE, cancel_scheduled=Support.NATIVE
    )

    def __init__(self, store: MemoryStore | None = None, *, name: str = "") -> None:
        super().__init__(store or PoorStore(), name=name)
        self._queues = PatientQueues(self.store)

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        for envelope in envelopes:
            if envelope.priority:
                raise _refuse("priority")
            if envelope.key is not None:
                raise _refuse("dedup")
        return await super().publish(envelopes)


class TestPatientBroker(InspectingSuite, HonestySuite):
    """The same for who can cancel, but not everything."""

    lease = 0.2

    @pytest.fixture
    def broker_factory(self) -> Callable[[], Broker]:
        return PatientBroker


async def test_who_cancels_only_what_waits_says_of_the_rest_what_its_results_know() -> None:
    app = Camora(PatientBroker(), results="memory://")

    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    async with app:
        later = await add.options(delay=3600).dispatch(1, 2)
        now = await add.dispatch(1, 2)
        with pytest.raises(UnsupportedCapability):
            await now.cancel()
        assert await later.cancel() is CancelResult.REMOVED
        assert await later.status() == "cancelled"
        assert await later.cancel() is CancelResult.FINISHED
        async with app.worker():
            assert await now.result(60) == 3
        assert await now.cancel() is CancelResult.FINISHED


def test_the_hunt_asks_for_nothing_that_is_not_declared() -> None:
    def subject() -> Subject:
        clock = VirtualClock()
        return Subject(broker=PoorBroker(PoorStore(clock)), clock=clock, pass_time=clock.advance, lease=10.0)

    hunt(subject, examples=60)


class Boaster(MemoryBroker):
    """Declares nothing, and silently takes everything."""

    capabilities = Capabilities()


@pytest.mark.parametrize("capability", ["delay", "priority", "dedup", "pause", "inspect", "cancel", "reschedule"])
async def test_who_takes_what_it_does_not_declare_fails(capability: str) -> None:
    rig = Rig(Boaster(), None, lease=0.3, patience=1.0)
    await rig.broker.open()
    wish = capability in ("delay", "priority", "dedup")
    suite = HonestySuite()
    ask, use = (
        suite.test_an_unsupported_wish_of_a_message_is_refused,
        suite.test_an_unsupported_look_or_control_is_refused,
    )
    exam = ask if wish else use
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        await exam(rig, capability)
    await rig.close()
    await rig.broker.close()
