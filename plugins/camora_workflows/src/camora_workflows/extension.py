"""The extension: what follows the end of jobs in workflows, what they get, and who looks after what was left undone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from camora.interfaces import Ending, Extension, FollowUp, Host, WorkflowStore
from camora.message import Envelope, Message
from camora.outcome import JobRecord, Status

from camora_workflows.carrying import carried_on
from camora_workflows.chunks import Chunks
from camora_workflows.composer import WorkflowComposer
from camora_workflows.following import Following
from camora_workflows.inputs import WorkflowInputs, no_store
from camora_workflows.journaling import KEEP, Journaling
from camora_workflows.plan import HEADER, SKIPPED, Carried, Outcome, header_of, place_of
from camora_workflows.reopening import reopen
from camora_workflows.settings import WorkflowSettings
from camora_workflows.sweeping import Sweeper
from camora_workflows.trail import Step, Trail, step_of

__all__ = ["Workflows"]

_NOTHING = FollowUp()
_DONE, _SUCCEEDED = Status.SUCCEEDED, Status.SUCCEEDED.value
_NONE: Mapping[int, Outcome] = {}


class Workflows(Extension):
    """Drives the workflows of one app."""

    header = HEADER

    def __init__(self, settings: WorkflowSettings | None = None) -> None:
        self.settings = settings or WorkflowSettings()
        # A job may wait for long, and what it has done is needed until it ends, however soon workflows are forgotten.
        self._journaling = Journaling(max(self.settings.keep, KEEP))
        self.middleware = (WorkflowInputs(lambda: self.host, self.store), Chunks(lambda: self.host), self._journaling)
        self.composer = WorkflowComposer(lambda: self.host, lambda: self.following, self.settings)
        self._host: Host | None = None
        self._following: Following | None = None

    @property
    def host(self) -> Host:
        """The app. It is there from the moment that this is attached to it."""
        assert self._host is not None
        return self._host

    @property
    def following(self) -> Following:
        """As `host`."""
        assert self._following is not None
        return self._following

    def attach(self, host: Host) -> None:
        """Remember the app."""
        self._host = self._journaling.host = host
        self._following = Following(host, self.settings.keep)

    async def store(self) -> WorkflowStore:
        """The store of workflows in this loop. Raises `ConfigurationError` where the app has none."""
        store = await (await self.host.stores()).workflows()
        if store is None:
            raise no_store()
        return store

    async def ended(self, endings: Sequence[Ending]) -> Sequence[FollowUp]:
        """Those of recorded workflows in a few steps for all of them, those that travel by themselves."""
        found = [_NOTHING] * len(endings)
        steps: dict[int, Step] = {}
        for at, ending in enumerate(endings):
            place = place_of(ending.message.headers[HEADER])
            if isinstance(place, Carried):
                found[at] = carried_on(self.host, place, ending)
            elif place is not None:
                steps[at] = step_of(place.workflow, place.index, place.run, _outcome(ending.record), 1 << at)
        if steps:
            trail, records = await self.following.follow(await self.store(), list(steps.values()))
            if not (trail.successors or records or trail.resumed):
                return found  # the common end: one of many members, for the others of which is waited
            successors = _handed_out(steps, trail)
            for at, step in steps.items():
                mark = step.mark
                stands = trail.ended.get(mark.workflow, _NONE).get(mark.index)
                instead = None if stands is None else _instead(endings[at].record, step.outcome, stands)
                if at in successors or mark.workflow in records or instead is not None:
                    whole = records.get(mark.workflow)
                    found[at] = FollowUp(
                        successors=tuple(successors.get(at, ())),
                        records=() if whole is None else (whole,),
                        instead=instead,
                    )
        return found

    async def requeued(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The nodes of dead letters are open again, and so is what was skipped because of them."""
        return [await self._reopened(message) for message in messages]

    async def _reopened(self, message: Message) -> Message:
        place = place_of(message.headers[HEADER])
        if place is None:
            return message
        if isinstance(place, Carried):
            await self._taken_back(place.workflow)
            return message
        store = await self.store()
        [node] = await store.read(place.workflow, [place.index])
        while node is not None and node.status:  # it will run again: so it has to count, whoever has reopened it
            await reopen(self.host, self.following, store, place.workflow, {node.index: node.run})
            [node] = await store.read(place.workflow, [place.index])
        if node is None:
            return message
        header = header_of(msgspec.structs.replace(place, run=node.run))
        return msgspec.structs.replace(message, headers={**message.headers, HEADER: header})

    async def _taken_back(self, workflow: str) -> None:
        """What the workflow had come to does not stand any more, and must not hide what it comes to now."""
        results = (await self.host.stores()).results
        if results is not None:
            await results.forget([workflow])

    async def beside(self) -> None:
        """Look after workflows, where there are any."""
        store = await (await self.host.stores()).workflows()
        if store is not None:
            await Sweeper(self.host, self.following, self.settings).run(store)


def _outcome(record: JobRecord) -> Outcome:
    return Outcome(
        status=_SUCCEEDED if record.status is _DONE else record.status.value,
        value=record.value,
        error=record.error,
        attempts=record.attempts,
        started=record.started,
        finished=record.finished,
        worker=record.worker,
    )


def _handed_out(steps: dict[int, Step], trail: Trail) -> dict[int, list[Envelope]]:
    """Which settlement carries which jobs; those that are not named carry none.

    One whose mark was the first is enough: whoever runs that job again marks it later, and finds the same. Where none
    was, each carries it.
    """
    successors: dict[int, list[Envelope]] = {}
    for envelope, roots in trail.successors.values():
        places = [at for at in steps if roots >> at & 1]
        firm = [at for at in places if (steps[at].mark.workflow, steps[at].mark.index) in trail.first]
        for at in firm[:1] or places:
            successors.setdefault(at, []).append(envelope)
    return successors


def _instead(record: JobRecord, own: Outcome, stands: Outcome) -> JobRecord | None:
    """The job's record, where another outcome of it stands than this one."""
    if stands is own or _same(own, stands):
        return None
    skipped = stands.status == SKIPPED
    return msgspec.structs.replace(
        record,
        status=Status.CANCELLED if skipped else Status(stands.status),
        value=stands.value if record.kept else None,
        error=stands.error,
        attempts=stands.attempts,
        started=stands.started,
        finished=stands.finished or record.finished,
        worker=stands.worker,
    )


def _same(one: Outcome, other: Outcome) -> bool:
    return (one.status, one.value, one.started, one.error) == (other.status, other.value, other.started, other.error)
