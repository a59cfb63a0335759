"""What the commands work with: the open app, the store of its workflows, and what can be asked of both."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import attrs
from camora.errors import ConfigurationError
from camora.interfaces.workflows import WorkflowRecord, WorkflowStore
from camora.job import JobInfo
from camora.outcome import Status

from camora_workflows.composer import WorkflowComposer, composer_of
from camora_workflows.examining import Examination
from camora_workflows.picture import Branch, Picture
from camora_workflows.plan import Plan, unpack
from camora_workflows.recovering import Recovered, Recovery
from camora_workflows.shapes import Shape, shapes_of
from camora_workflows.telling import note

__all__ = ["Desk", "Seen", "with_desk"]

T = TypeVar("T")

_ASKED = 100
"""Of how many jobs the broker is asked how far they are."""
_FRESH = 5_000
"""Milliseconds after a change within which a job that is nowhere is rather on its way."""
_PAGE = 100


@attrs.frozen
class Seen:
    """A workflow as it was looked at."""

    record: WorkflowRecord
    plan: Plan
    shapes: Mapping[int, Shape]
    branches: Sequence[Branch]
    infos: Mapping[int, JobInfo]
    lost: Sequence[int]
    now: int


@attrs.frozen
class Desk:
    """What commands work with: the open app's composer, and the store of its workflows."""

    composer: WorkflowComposer
    store: WorkflowStore

    @property
    def now(self) -> int:
        """By the app's clock, in milliseconds since the epoch."""
        return self.composer.host.clock.now_ms()

    async def listed(self, state: str, status: str, limit: int) -> list[WorkflowRecord]:
        """Up to `limit` workflows that are in this state, and have come to this, in order of id."""
        found: list[WorkflowRecord] = []
        while len(found) < limit:
            after = found[-1].id if found else ""
            page = await self.store.list(after=after, limit=min(_PAGE, limit - len(found)), state=state, status=status)
            found += page
            if not page:
                break
        return found

    async def seen(self, workflow: str, *, most: int | None) -> Seen | None:
        """All about one, with `most` members of each group drawn; None when there is none of this id."""
        record = await self.store.get(workflow)
        if record is None:
            return None
        host = self.composer.host
        plan: Plan = unpack(Plan, record.plan) if record.plan else Plan()
        shapes = await shapes_of(self.store, workflow)
        branches = Picture(shapes, most=most).branches()
        looked = Examination(record, shapes)
        begun = {shape.index for shape in looked.begun()} if record.state == "running" else set()
        drawn = [shape for branch in branches for shape in branch.jobs() if shape.index in begun][:_ASKED]
        infos = {shape.index: await host.jobs.info(shape.job(workflow)) for shape in drawn}
        lost: Sequence[int] = ()
        if any(info.status is Status.UNKNOWN for info in infos.values()):
            fresh = host.clock.now_ms() - record.changed < _FRESH
            lost = () if fresh else await looked.lost(host, self.store, doubt=False)
            infos = {index: info for index, info in infos.items() if info.status is not Status.UNKNOWN}
        return Seen(record, plan, shapes, branches, infos, lost, host.clock.now_ms())

    async def recovered(self, workflow: str, *, dry_run: bool, quiet: float) -> list[Recovered] | None:
        """What was found to mend, of one or of all; None when there is none of this id."""
        recovery = Recovery(
            self.composer.host,
            self.composer.following,
            self.store,
            abandon=self.composer.settings.abandon,
            quiet=quiet,
        )
        if not workflow:
            return [one async for one in recovery.all(dry_run=dry_run)]
        record = await self.store.get(workflow)
        if record is None:
            return None
        one = await recovery.one(record, dry_run=dry_run)
        return [] if one is None else [one]

    async def purgeable(self, state: str, age: float) -> list[str]:
        """The ids of those that were last changed more than `age` seconds ago."""
        before = self.composer.host.clock.now_ms() - round(age * 1000) + (1 if age == 0 else 0)
        found: list[str] = []
        while page := await self.store.list(
            after=found[-1] if found else "", limit=_PAGE, state=state, changed_before=before
        ):
            found += [record.id for record in page]
        return found

    async def purged(self, state: str, age: float) -> int:
        """Delete them; returns how many there were."""
        found = await self.purgeable(state, age)
        deleted = 0
        for begin in range(0, len(found), _PAGE):
            deleted += await self.store.delete(found[begin : begin + _PAGE], state=state)
        return deleted


async def with_desk(app: Any, work: Callable[[Desk], Awaitable[T]]) -> T:
    """What `work` returns; the app is open around it. Raises `ConfigurationError` where no workflows are kept."""
    composer = composer_of(app)
    async with app:
        store = await (await composer.host.stores()).workflows()
        if store is None:
            raise ConfigurationError(
                f"neither the broker ({app.broker!r}) nor the result backend of the app {app.name!r} keeps workflows: "
                'there are none to look at. Say  url = "redis://…"  or a database in [results] of camora.toml'
            )
        if not app.broker.capabilities.shared:
            note("this app's broker lives in one process: nothing of other processes is seen here")
        return await work(Desk(composer, store))
