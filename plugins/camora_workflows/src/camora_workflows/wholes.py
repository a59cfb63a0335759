"""Workflows as wholes: their plans, what they have come to, and their end."""

from __future__ import annotations

from camora.interfaces import Host, WorkflowStore
from camora.outcome import JobRecord

from camora_workflows.plan import SKIPPED, Outcome, Plan, unpack
from camora_workflows.summing_up import summed_up
from camora_workflows.trail import Trail, outcome_of

__all__ = ["Wholes"]

_PLANS = 512
"""Of how many workflows the plan is remembered, which does not change once they run."""


class Wholes:
    """Sums workflows up, and finishes them. `keep` is how many seconds one is kept after its end."""

    def __init__(self, host: Host, keep: float) -> None:
        self._host = host
        self._keep = keep
        self._plans: dict[str, Plan] = {}

    async def plan(self, store: WorkflowStore, workflow: str) -> Plan:
        """The plan of a workflow; one that comes to nothing where there is none of this id."""
        plan = self._plans.get(workflow)
        if plan is None:
            record = await store.get(workflow)
            if record is None:
                return Plan(result=-1)
            plan = unpack(Plan, record.plan)
            if len(self._plans) >= _PLANS:
                del self._plans[next(iter(self._plans))]
            self._plans[workflow] = plan
        return plan

    async def sum_up(self, store: WorkflowStore, workflow: str, trail: Trail) -> JobRecord | None:
        """The record of a workflow that has come to something; it is finished if nothing of it is open."""
        record = await self._record(store, workflow, trail)
        await self._finish(store, workflow, trail)
        return record

    async def conclude(self, store: WorkflowStore, trail: Trail) -> None:
        """Store the records of those that have come to something, and finish those of which nothing is open."""
        results = (await self._host.stores()).results
        for workflow in trail.ended:
            record = await self._record(store, workflow, trail)
            if record is not None and results is not None and not results.private:
                await results.store([record])
            await self._finish(store, workflow, trail)

    async def look_again(self, store: WorkflowStore, workflow: str, *, again: bool = False) -> None:
        """As `conclude`, for a workflow of which nothing ended just now; with `again`, for a finished one, too."""
        record = await store.get(workflow)
        if record is None or not (record.state == "running" or (again and record.state == "finished")):
            return
        trail = Trail(ended={workflow: {}}, open={workflow: record.open})
        plan: Plan = unpack(Plan, record.plan)
        [node] = await store.read(workflow, [plan.result])
        if node is not None and node.status:
            trail.ended[workflow][plan.result] = outcome_of(node)
        await self.conclude(store, trail)

    async def _record(self, store: WorkflowStore, workflow: str, trail: Trail) -> JobRecord | None:
        """What the workflow came to, if it has ended now."""
        ended = trail.ended[workflow]
        # Whoever marked the last of its own nodes may have died before he told anybody, and others before the gate
        # that it stood behind was marked: who ends the last node of all makes sure of the record.
        resumed = workflow in trail.resumed or trail.open.get(workflow) == 0
        if not resumed and all((workflow, index) in trail.within for index in ended):
            return None
        remembered = workflow in self._plans
        result = (await self.plan(store, workflow)).result
        if remembered and (resumed or result in ended):
            # It may have been forgotten, and dispatched anew under the same id.
            self._plans.pop(workflow, None)
            result = (await self.plan(store, workflow)).result
        outcome = ended.get(result)
        if outcome is None and resumed:
            outcome = await self._ended_before(store, workflow, result)
        return None if outcome is None else await summed_up(self._host, store, workflow, result, outcome)

    async def _ended_before(self, store: WorkflowStore, workflow: str, index: int) -> Outcome | None:
        [node] = await store.read(workflow, [index])
        return None if node is None or not node.status else outcome_of(node)

    async def _finish(self, store: WorkflowStore, workflow: str, trail: Trail) -> None:
        if trail.open.get(workflow) != 0:
            return
        result = (await self.plan(store, workflow)).result
        outcome = trail.ended[workflow].get(result)
        if outcome is None:
            outcome = await self._ended_before(store, workflow, result)
        told = outcome.told if outcome is not None else ""
        await store.finish(workflow, told or SKIPPED, self._keep, self._host.clock.now_ms())
        self._plans.pop(workflow, None)
