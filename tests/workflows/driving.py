"""Driving a workflow by hand, with deaths at chosen points: the real store and the real extension, no worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from camora import Camora
from camora.dispatchable import Dispatchable
from camora.interfaces import Ending, FollowUp, Host, NodeState, WorkflowRecord, WorkflowStore
from camora.message import Envelope, Message
from camora.outcome import ErrorInfo, JobRecord, Status
from camora_workflows.extension import Workflows
from camora_workflows.plan import Plan, Spec, unpack
from camora_workflows.recording import Recorder
from camora_workflows.sweeping import resume
from camora_workflows.trail import outcome_of


class Died(Exception):
    """Whoever did this is dead."""


class Fate:
    """Kills at the `at`-th step that is taken, before or after it has its effect; None: never."""

    def __init__(self, at: int | None = None, *, after: bool = False) -> None:
        self.steps = 0
        self._at = at
        self._after = after

    async def step(self, what: Callable[[], Any]) -> Any:
        mine, self.steps = self.steps, self.steps + 1
        if mine == self._at and not self._after:
            raise Died
        answer = await what()
        if mine == self._at and self._after:
            raise Died
        return answer


class MortalStore:
    """A store whose caller dies."""

    def __init__(self, store: WorkflowStore, fate: Fate) -> None:
        self._store = store
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._fate.step(lambda: method(*args, **kwargs))

        return call


class _Broker:
    """The app's own, but for which jobs it has."""

    def __init__(self, broker: Any, drive: Drive) -> None:
        self._broker = broker
        self._drive = drive
        self.queues = self

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    async def find(self, job_id: str) -> Any:
        message = self._drive.waiting.get(job_id)
        return None if message is None else SimpleNamespace(id=job_id, body=self._drive.app.codec.encode(message))


class _Stores:
    def __init__(self, broker: Any, store: Any, results: Any) -> None:
        self.broker = broker
        self.results = results
        self._store = store

    async def workflows(self) -> Any:
        return self._store


class _Results:
    """Keeps the first record of each workflow."""

    private = False

    def __init__(self, drive: Drive, fate: Fate) -> None:
        self._drive = drive
        self._fate = fate

    async def store(self, records: Sequence[JobRecord]) -> None:
        await self._fate.step(lambda: self._drive.keep(records))

    async def forget(self, job_ids: Sequence[str]) -> int:
        return int(await self._fate.step(lambda: self._drive.forget(job_ids)))


class DrivenHost:
    """The app's own host, but for where it publishes, and who dies doing so: as all do, or by a fate of its own."""

    def __init__(self, host: Host, drive: Drive, fate: Fate | None = None) -> None:
        self._host = host
        self._drive = drive
        self._own = fate

    @property
    def _fate(self) -> Fate:
        return self._own or self._drive.fate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    async def publish(self, envelopes: Sequence[Envelope]) -> list[str]:
        await self._fate.step(lambda: self._drive.take(envelopes))
        return [envelope.id for envelope in envelopes]

    async def stores(self) -> Any:
        store = MortalStore(self._drive.store, self._fate)
        broker = _Broker((await self._host.stores()).broker, self._drive)
        return _Stores(broker, store, _Results(self._drive, self._fate))


def end_of(message: Message, status: Status, value: Any, host: Host) -> JobRecord:
    error = ErrorInfo(type="ValueError", text="no") if status is Status.FAILED else None
    encoded = host.result_codec.encode_value(value) if status is Status.SUCCEEDED else None
    return JobRecord(
        id=message.id, status=status, task=message.task, value=encoded, error=error, finished=1, attempts=1
    )


class Drive:
    """One workflow in a memory store: what was published, what ran, and what it came to.

    `comes_to(task)` says how a job of this task ends.
    """

    def __init__(self, app: Camora, store: WorkflowStore, host: Host, comes_to: Callable[[str], Status]) -> None:
        self.app = app
        self.store = store
        self.fate = Fate()
        self.records: dict[str, JobRecord] = {}
        self.waiting: dict[str, Message] = {}
        self.known: list[str] = []
        """The ids of all jobs that were published, each once: as a broker that knows repeated ids."""
        self.tasks: list[str] = []
        self.letters: list[Message] = []
        """The messages of jobs that failed for good."""
        self.workflow = ""
        self._host = host
        self._comes_to = comes_to

    async def keep(self, records: Sequence[JobRecord]) -> None:
        for record in records:
            self.records.setdefault(record.id, record)

    async def forget(self, job_ids: Sequence[str]) -> int:
        return sum(self.records.pop(its_id, None) is not None for its_id in job_ids)

    async def take(self, envelopes: Sequence[Envelope]) -> None:
        for envelope in envelopes:
            if envelope.id not in self.known:
                self.known.append(envelope.id)
                self.tasks.append(envelope.task)
                self.waiting[envelope.id] = self.app.codec.decode(envelope.body)

    def fresh(self, fate: Fate | None = None) -> Workflows:
        """An extension that has seen nothing yet, as that of another worker."""
        extension = Workflows()
        extension.attach(DrivenHost(self._host, self, fate))  # type: ignore[arg-type]
        return extension

    async def dispatch(
        self, what: Dispatchable[Any], comes_to: Callable[[str], Status] | None = None, *, workflow: str = ""
    ) -> None:
        self._comes_to = comes_to or self._comes_to
        extension = self.fresh()
        recorder = Recorder(extension.host, extension.following)
        self.workflow = workflow or extension.host.new_id()
        await recorder.dispatch(MortalStore(self.store, self.fate), what, self.workflow)  # type: ignore[arg-type]

    async def run(
        self,
        *,
        together: int = 1,
        again: Callable[[str], bool] = lambda _: False,
        extension: Workflows | None = None,
    ) -> None:
        """Until no job is left: whoever dies leaves his jobs to the next one. `again`: settled by nobody, once."""
        extension = extension or self.fresh()
        for _ in range(10_000):
            if not self.waiting:
                return
            batch = [self.waiting.pop(its_id) for its_id in list(self.waiting)[:together]]
            try:
                answers = await self._ended(extension, batch)
            except Died:
                self._back(batch)
                extension = self.fresh()
                continue
            for message, answer in zip(batch, answers, strict=True):
                if again(message.id):
                    self._back([message])
                    continue
                await self.keep(answer.records)
                await self.take(answer.successors)
                if self._comes_to(message.task) is Status.FAILED:
                    self.letters.append(message)
        raise AssertionError("it goes on for ever")

    async def requeue(self, comes_to: Callable[[str], Status]) -> None:
        """Put all dead letters back; from now on, jobs end in this way. Who dies is followed by another."""
        self._comes_to = comes_to
        letters, self.letters = self.letters, []
        for letter in letters:
            try:
                [message] = await self.fresh().requeued([letter])
            except Died:
                [message] = await self.fresh().requeued([letter])
            self.waiting[message.id] = message

    def succeeds(self) -> None:
        """From now on, every job does."""
        self._comes_to = lambda task: Status.SUCCEEDED

    async def resume(self) -> None:
        """Do what was left undone, as a worker does that sweeps."""
        extension = self.fresh()
        for record in await self.store.list(state="running"):
            if record.id == self.workflow:
                await resume(extension.host, extension.following, self.store, record)

    async def _ended(self, extension: Workflows, batch: Sequence[Message]) -> Sequence[FollowUp]:
        endings = [
            Ending(message=one, record=end_of(one, self._comes_to(one.task), one.id, self._host)) for one in batch
        ]
        return await extension.ended(endings)

    def _back(self, batch: Sequence[Message]) -> None:
        for message in batch:
            self.waiting[message.id] = message

    async def whole(self) -> WorkflowRecord:
        record = await self.store.get(self.workflow)
        assert record is not None
        return record

    async def nodes(self) -> Sequence[NodeState]:
        return await self.store.nodes(self.workflow, limit=10_000)

    async def summary(self) -> dict[str, Any]:
        """All that must be the same, whoever dies."""
        whole = await self.whole()
        plan: Plan = unpack(Plan, whole.plan)
        ends = {}
        for node in await self.nodes():
            outcome = outcome_of(node)
            spec: Spec = unpack(Spec, node.spec)
            ends[node.index] = (spec.kind.value, spec.task, outcome.status, outcome.cause, outcome.origin)
        record = self.records.get(self.workflow)
        return {
            "state": whole.state,
            "status": whole.status,
            "record": None if record is None else record.status.value,
            "result": plan.result,
            "ends": ends,
            "published": sorted(self.known),
        }

    def ran(self) -> list[str]:
        """The tasks of all jobs that were published, in the order of their names."""
        return sorted(self.tasks)
