"""Looking after workflows whose driver died: each worker does, now and then, and two at once do no harm.

A workflow that stands still mostly waits for a job, which its broker looks after. Only what is no job's business can
be left undone: jobs that were never published, consequences that nobody carried out, the end of the whole.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Sequence

from camora.errors import BrokerUnavailable
from camora.interfaces import START, Host, NodeState, WorkflowRecord, WorkflowStore

from camora_workflows.consequences import SUCCEEDED
from camora_workflows.following import Following
from camora_workflows.plan import SKIPPED, Kind, Spec, unpack
from camora_workflows.settings import WorkflowSettings
from camora_workflows.trail import Step, outcome_of, step_of
from camora_workflows.whereabouts import is_nowhere

__all__ = ["Sweeper", "resume"]

_PAGE = 500
_LIST = 100
_OPEN = 5000
"""How many open nodes of a workflow are looked at in one go."""
_REMEMBERED = 10_000


class Sweeper:
    """Looks for what was left undone. Belongs to one worker."""

    def __init__(self, host: Host, following: Following, settings: WorkflowSettings) -> None:
        self._host = host
        self._following = following
        self._settings = settings
        self._seen: dict[str, int] = {}
        """When workflows were last changed that were looked at since: they wait for jobs, and are looked at no more."""
        self._told: dict[str, int] = {}
        """The same, for those of which it was said that they cannot be gone on with."""

    async def run(self, store: WorkflowStore) -> None:
        """Sweep for ever, with pauses of about `sweep` seconds."""
        while True:
            await asyncio.sleep(self._settings.sweep * random.uniform(0.7, 1.3))  # noqa: S311 -- jitter
            try:
                await self.sweep(store)
            except (BrokerUnavailable, OSError) as error:
                self._host.logger.warning("cannot look after workflows, trying again: %s", error)

    async def sweep(self, store: WorkflowStore) -> int:
        """Look once; returns how many workflows there were to look at. Raises `BrokerUnavailable`."""
        settings, now = self._settings, self._host.clock.now_ms()
        looked = 0
        async for record in _all(store, "recording", now - round(settings.abandon * 1000)):
            # Whoever records it may be slow, and start it in this moment.
            if await store.delete([record.id], state="recording"):
                self._host.logger.warning("workflow %s was never recorded to its end; it is deleted", record.id)
            looked += 1
        async for record in _all(store, "running", now - round(settings.quiet * 1000)):
            if self._seen.get(record.id) == record.changed:
                continue
            if await self._resumed(store, record):
                _remember(self._seen, record)
            looked += 1
        return looked

    async def _resumed(self, store: WorkflowStore, record: WorkflowRecord) -> bool:
        """One that cannot be gone on with, such as one of a version to come, must not keep the others waiting."""
        try:
            await resume(self._host, self._following, store, record)
        except (BrokerUnavailable, OSError):
            raise
        except Exception as error:
            told = self._told.get(record.id) == record.changed
            level = logging.DEBUG if told else logging.ERROR
            text = "workflow %s stands still, and cannot be gone on with here: %r; it is tried again and again"
            self._host.logger.log(level, text, record.id, error, exc_info=True)
            _remember(self._told, record)
            return False
        return True


def _remember(where: dict[str, int], record: WorkflowRecord) -> None:
    where.pop(record.id, None)
    where[record.id] = record.changed
    if len(where) > _REMEMBERED:
        del where[next(iter(where))]


async def resume(host: Host, following: Following, store: WorkflowStore, record: WorkflowRecord) -> None:
    """Do what is left undone of a running workflow. Jobs that are there already are not published again.

    Raises `BrokerUnavailable`; then it may be called again.
    """
    workflow = record.id
    await following.open_start(store, workflow, after=record.passed.get(START, -1))
    waiting = await _open(store, workflow)
    await following.carry_out(store, [step async for step in _undone(host, store, workflow, waiting)])
    again = [node for node in waiting.values() if node.run and await _may_begin(store, workflow, node)]
    if lost := [node for node in again if await is_nowhere(host, workflow, node)]:
        await following.begin(store, workflow, lost)
    await following.conclude(store, workflow)


async def _open(store: WorkflowStore, workflow: str) -> dict[int, NodeState]:
    found: dict[int, NodeState] = {}
    after = -1
    while len(found) < _OPEN and (page := await store.nodes(workflow, after=after, limit=_PAGE, unfinished=True)):
        found.update((node.index, node) for node in page)
        after = page[-1].index
    return found


async def _undone(
    host: Host, store: WorkflowStore, workflow: str, waiting: dict[int, NodeState]
) -> AsyncIterator[Step]:
    """Ends to be marked once more: those that feed an open node which is to be decided, or whose job is nowhere."""
    ready = {index for index, node in waiting.items() if node.gate is None and not node.waiting}
    told: set[int] = set()
    jobs = {index for index in ready if unpack(Spec, waiting[index].spec).kind is Kind.JOB}
    there = {index for index in jobs if not await is_nowhere(host, workflow, waiting[index])}
    after = -1
    while page := await store.nodes(workflow, after=after, limit=_PAGE):
        after = page[-1].index
        for node in page:
            if not node.status:
                continue
            fed = [index for index in node.feeds if index in waiting and index not in there]
            if node.status == SUCCEEDED:
                fed = [index for index in fed if index in ready and index not in told]
            if fed:
                told.update(fed)
                yield step_of(workflow, node.index, node.run, outcome_of(node))


async def _may_begin(store: WorkflowStore, workflow: str, node: NodeState) -> bool:
    """Whether a node that was reopened is not waited for by another's end: it stands behind a gate that is open."""
    if node.gate is None:
        return False
    if node.gate == START:
        return True
    [gate] = await store.read(workflow, [node.gate])
    return gate is not None and bool(gate.status) and gate.status != SKIPPED


async def _all(store: WorkflowStore, state: str, changed_before: int) -> AsyncIterator[WorkflowRecord]:
    after = ""
    while True:
        page: Sequence[WorkflowRecord] = await store.list(
            after=after, limit=_LIST, state=state, changed_before=changed_before
        )
        for record in page:
            yield record
        if len(page) < _LIST:
            return
        after = page[-1].id
