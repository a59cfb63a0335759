"""Mending workflows that an operator, or a crash, left half-way."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence

import attrs
from camora.interfaces.extension import Host
from camora.interfaces.workflows import NodeState, WorkflowRecord, WorkflowStore
from camora.outcome import ErrorInfo, Status

from camora_workflows.examining import Examination, Finding, examine, runs_once
from camora_workflows.following import Following
from camora_workflows.plan import Outcome, Spec, unpack
from camora_workflows.reopening import reopen
from camora_workflows.shapes import shapes_of
from camora_workflows.sweeping import resume
from camora_workflows.trail import step_of

__all__ = ["Recovered", "Recovery"]

_PAGE = 500
_LIST = 100


@attrs.frozen
class Recovered:
    """A workflow with something to mend: what was found, and what is left of that after mending (None: not tried)."""

    record: WorkflowRecord
    found: Sequence[Finding]
    left: Sequence[Finding] | None = None

    @property
    def mended(self) -> bool:
        """True when nothing is left."""
        return self.left is not None and not self.left


class Recovery:
    """Finds and mends. All of it may be repeated, and done by several at once. Raises `BrokerUnavailable`.

    Recordings that have not grown for `abandon` seconds are deleted; `quiet` as in `examine`.
    """

    def __init__(self, host: Host, following: Following, store: WorkflowStore, *, abandon: float, quiet: float) -> None:
        self._host = host
        self._following = following
        self._store = store
        self._abandon = abandon
        self._quiet = quiet

    async def all(self, *, dry_run: bool) -> AsyncIterator[Recovered]:
        """Every workflow that is not finished and has something to mend."""
        for state in ("recording", "running"):
            after = ""
            while page := await self._store.list(after=after, limit=_LIST, state=state):
                for listed in page:
                    record = await self._store.get(listed.id)
                    if record is not None and (one := await self.one(record, dry_run=dry_run)):
                        yield one
                after = page[-1].id

    async def one(self, record: WorkflowRecord, *, dry_run: bool) -> Recovered | None:
        """This one; None when there is nothing to mend."""
        found = await self._examined(record, self._quiet)
        if not found:
            return None
        if dry_run:
            return Recovered(record, found)
        await self._mend(record)
        after = await self._store.get(record.id)
        return Recovered(record, found, [] if after is None else await self._examined(after, math.inf))

    async def _examined(self, record: WorkflowRecord, quiet: float) -> list[Finding]:
        return await examine(self._host, self._store, record, abandon=self._abandon, quiet=quiet)

    async def _mend(self, record: WorkflowRecord) -> None:
        if record.state == "recording":
            await self._store.delete([record.id], state="recording")
            return
        still = (self._host.clock.now_ms() - record.changed) / 1000
        await resume(self._host, self._following, self._store, record)
        lost = await self._lost(record.id, doubt=still >= self._quiet)
        nodes = await self._nodes(record.id, lost)
        once = [node for node in nodes if runs_once(self._host, unpack(Spec, node.spec).task)]
        if once:
            text = "its message was acknowledged before it ran, and nothing has come of it; retry() runs it again"
            ended = self._failed(text)
            await self._following.carry_out(
                self._store, [step_of(record.id, node.index, node.run, ended) for node in once]
            )
        lost = [node.index for node in nodes if node not in once]
        if lost:
            # Under the same ids first: where the broker has forgotten them that is enough, and it doubles nothing.
            await self._following.begin(self._store, record.id, await self._nodes(record.id, lost))
            lost = await self._lost(record.id, doubt=False)
        if lost:
            await self._run_anew(record.id, lost)

    async def _lost(self, workflow: str, *, doubt: bool) -> list[int]:
        record = await self._store.get(workflow)
        if record is None or record.state != "running":
            return []
        looked = Examination(record, await shapes_of(self._store, workflow))
        return await looked.lost(self._host, self._store, doubt=doubt)

    async def _run_anew(self, workflow: str, lost: Sequence[int]) -> None:
        """The broker remembers the ids of jobs that it does not have: they run under new ones.

        Only what has ended can be run anew, so they end first. Who dies in between leaves jobs that have failed, which
        `camora workflow retry` runs again.
        """
        outcome = self._failed("its message was removed from the broker")
        nodes = await self._nodes(workflow, lost)
        steps = [step_of(workflow, node.index, node.run, outcome) for node in nodes]
        now = self._host.clock.now_ms()
        answers = await self._store.end([step.mark for step in steps], now)
        # What has ended by itself meanwhile was not lost.
        ended = [node for node, said in zip(nodes, answers, strict=True) if said.known and said.standing is None]
        runs = {node.index: node.run for node in ended}
        reopened = await reopen(self._host, self._following, self._store, workflow, runs)
        await self._following.begin(self._store, workflow, await self._nodes(workflow, sorted(reopened)))

    def _failed(self, text: str) -> Outcome:
        error = ErrorInfo(type="camora_workflows.LostJob", text=text)
        return Outcome(status=Status.FAILED.value, error=error, finished=self._host.clock.now_ms())

    async def _nodes(self, workflow: str, indexes: Sequence[int]) -> list[NodeState]:
        found: list[NodeState] = []
        for begin in range(0, len(indexes), _PAGE):
            page = await self._store.read(workflow, indexes[begin : begin + _PAGE])
            found += [node for node in page if node is not None and not node.status]
        return found
