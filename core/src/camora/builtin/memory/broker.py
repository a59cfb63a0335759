"""The memory broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from camora.builtin.memory.consumer import MemoryConsumer
from camora.builtin.memory.inspection import MemoryQueues
from camora.builtin.memory.journal import MemoryJournal
from camora.builtin.memory.letters import MemoryDeadLetters
from camora.builtin.memory.limits import MemoryLimits
from camora.builtin.memory.results import MemoryResultBackend
from camora.builtin.memory.schedules import MemoryScheduleStore
from camora.builtin.memory.store import MemoryStore
from camora.builtin.memory.workers import MemoryWorkers
from camora.builtin.memory.workflows import MemoryWorkflowStore
from camora.errors import BrokerUnavailable
from camora.interfaces.broker import Broker, BrokerState, Consumer, ConsumerSettings
from camora.interfaces.capabilities import Capabilities, Support
from camora.interfaces.dead_letters import DeadLetters
from camora.interfaces.journal import Journal
from camora.interfaces.limits import Limits
from camora.interfaces.queues import Queues
from camora.interfaces.results import ResultBackend
from camora.interfaces.schedule import ScheduleStore
from camora.interfaces.workers import WorkerDirectory
from camora.interfaces.workflows import WorkflowStore
from camora.message import Envelope
from camora.settings import mask_url

__all__ = ["MemoryBroker"]


class MemoryBroker(Broker):
    """A broker in this process: everything a broker does, except to survive the process or be seen from another one.

    Brokers on one `store` see the same messages; without one it has a store of its own.
    """

    capabilities = Capabilities(
        delay=Support.NATIVE,
        priority=Support.NATIVE,
        dedup=Support.NATIVE,
        pause=Support.NATIVE,
        inspect=Support.NATIVE,
        cancel=Support.NATIVE,
        reschedule=Support.NATIVE,
        atomic_settle=Support.NATIVE,
        leases=Support.NATIVE,
    )

    def __init__(self, store: MemoryStore | None = None, *, name: str = "") -> None:
        self.store = store if store is not None else MemoryStore()
        self._name = name
        self._state = BrokerState.NEW
        self._queues = MemoryQueues(self.store)
        self._dead_letters = MemoryDeadLetters(self.store)

    def __repr__(self) -> str:
        return f"MemoryBroker({mask_url(f'memory://{self._name}')!r}, {self._state.value})"

    async def open(self) -> None:
        """Nothing to connect to. Raises `BrokerUnavailable` once it has been closed."""
        if self._state is BrokerState.CLOSED:
            raise BrokerUnavailable(f"{self!r} cannot be opened again; use its twin()")
        self._state = BrokerState.OPEN

    async def publish(self, envelopes: Sequence[Envelope]) -> Sequence[str]:
        """Store a batch as one step."""
        if self._state is not BrokerState.OPEN:
            self._refuse()
        return self.store.publish(envelopes)

    def _refuse(self) -> None:
        raise BrokerUnavailable(f"{self!r} is not open; call open() first, or use twin() for one that is")

    async def consumer(self, settings: ConsumerSettings) -> Consumer:
        """A consumer of these queues."""
        if self._state is not BrokerState.OPEN:
            self._refuse()
        return MemoryConsumer(self.store, settings)

    def twin(self) -> Self:
        """Another broker on the same store."""
        return type(self)(self.store, name=self._name)

    def own_results(self) -> ResultBackend:
        """A memory result backend on the same store."""
        return MemoryResultBackend(self.store)

    def own_limits(self) -> Limits:
        """Limits on the same store."""
        return MemoryLimits(self.store)

    def own_workers(self) -> WorkerDirectory:
        """A directory on the same store."""
        return MemoryWorkers(self.store)

    def own_schedules(self) -> ScheduleStore:
        """Schedules on the same store."""
        return MemoryScheduleStore(self.store)

    def own_workflows(self) -> WorkflowStore:
        """Workflows on the same store."""
        return MemoryWorkflowStore(self.store)

    def own_journal(self) -> Journal:
        """A journal on the same store."""
        return MemoryJournal(self.store)

    def settles_into(self, results: ResultBackend) -> bool:
        """True for a memory result backend on the same store."""
        return isinstance(results, MemoryResultBackend) and results.shares(self.store)

    @property
    def queues(self) -> Queues:
        """Inspection, cancelling, pausing."""
        return self._queues

    @property
    def dead_letters(self) -> DeadLetters:
        """The dead letters."""
        return self._dead_letters

    async def close(self) -> None:
        """The store stays for its twins, and goes with the last of them."""
        self._state = BrokerState.CLOSED
