"""What follows the ends of nodes: marks in the store, their consequences, and the jobs that may begin.

All of it may be repeated, by anybody, and comes to the same. Whoever dies between a mark and what follows is resumed by
whoever repeats the mark: the store answers with what still waits, and what had ended because of it is marked again,
too. What can be reached that way is left to the settlement of the job that ends (`FollowUp`); what stands behind a gate
cannot, so it is published, and its own consequences are seen to, before the gate is marked.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from camora.errors import BrokerUnavailable, DecodeError, DispatchUncertain, EncodeError, MessageTooLarge
from camora.failures import describe
from camora.interfaces import START, Host, NodeState, WorkflowStore
from camora.message import Envelope
from camora.outcome import JobRecord, Status

from camora_workflows.beginning import begin
from camora_workflows.consequences import SUCCEEDED, several, verdict
from camora_workflows.plan import SKIPPED, Kind, Outcome, Spec, unpack
from camora_workflows.stopping import stop_cancelled
from camora_workflows.trail import Step, Target, Trail, outcome_of, step_of
from camora_workflows.wholes import Wholes

__all__ = ["Following"]

_PAGE = 500
"""How many nodes behind a gate are handed on at a time."""
_PATIENCE = 2
"""After so many rounds of consequences the next ones are looked for many at a time."""
_DONE = Outcome(status=SUCCEEDED)


class Following:
    """Follows ends in workflows. `keep` is how many seconds a workflow is kept after its end.

    All methods raise `BrokerUnavailable` where the store or the broker is away, and may then be called again.
    """

    def __init__(self, host: Host, keep: float) -> None:
        self._host = host
        self._wholes = Wholes(host, keep)

    async def follow(self, store: WorkflowStore, steps: Sequence[Step]) -> tuple[Trail, dict[str, JobRecord]]:
        """Mark these ends and what follows from them, and finish the workflows that are over.

        Answers with what is left to be done by the caller: the jobs to publish, and the records of workflows that have
        come to something. Where that is not done, the same call has to be repeated.
        """
        trail = Trail()
        await self._walk(store, steps, trail)
        records = {}
        for workflow in trail.ended:
            record = await self._wholes.sum_up(store, workflow, trail)
            if record is not None:
                records[workflow] = record
        return trail, records

    async def carry_out(self, store: WorkflowStore, steps: Sequence[Step]) -> None:
        """As `follow`, and do the rest, too: for ends that belong to no job's settlement, as of what is cancelled."""
        trail = Trail()
        await self._walk(store, steps, trail)
        await self._publish(trail.envelopes)
        await self._wholes.conclude(store, trail)

    async def open_start(self, store: WorkflowStore, workflow: str, *, after: int) -> None:
        """Hand on, page by page, what stands behind `START` with an index above `after`; end what needs no job."""
        trail = Trail()
        await self._hand_on(store, workflow, START, 0, after, trail)
        await self._wholes.conclude(store, trail)

    async def begin(self, store: WorkflowStore, workflow: str, nodes: Iterable[NodeState]) -> None:
        """Let these nodes begin, whatever they are: jobs are published, joins and gates end."""
        trail, page = Trail(), list(nodes)
        await self._begin_all(store, workflow, -1, page, trail)
        if page:
            await stop_cancelled(self._host, store, workflow, [node.index for node in page])
        await self._wholes.conclude(store, trail)

    async def conclude(self, store: WorkflowStore, workflow: str, *, again: bool = False) -> None:
        """If nothing of it is open: store what it came to, and finish it; with `again`, though it is finished."""
        await self._wholes.look_again(store, workflow, again=again)

    async def _walk(self, store: WorkflowStore, steps: Sequence[Step], trail: Trail) -> None:
        """Mark, decide what waits, and so on until nothing is left to decide."""
        for rounds in itertools.count():
            if not steps:
                return
            steps = await self._round(store, steps, trail)
            if rounds >= _PATIENCE:
                steps += await self._further(store, steps, min(_PAGE, 20 * 2 ** min(rounds, 9)))

    async def _round(self, store: WorkflowStore, steps: Sequence[Step], trail: Trail) -> list[Step]:
        """Mark, and decide what waits; returns what is to be marked because of that."""
        answers = await store.end([step.mark for step in steps], self._host.clock.now_ms())
        targets: dict[tuple[str, int], Target] = {}
        again: dict[str, dict[int, int]] = {}
        for step, answer in zip(steps, answers, strict=True):
            if not answer.known:
                continue
            workflow, index = step.mark.workflow, step.mark.index
            standing = answer.standing
            outcome = step.outcome if standing is None else outcome_of(standing)
            trail.note(step, outcome, answer)
            for node in answer.targets:
                key = (workflow, node.index)
                target = targets.get(key)
                if target is None:
                    target = targets[key] = Target(workflow, node)
                target.hear(index, outcome, step.roots)
                if trail.only is None and not (target.spec.side or target.spec.handler):
                    trail.within.add((workflow, index))
            if standing is not None:
                for fed in standing.feeds:
                    found = again.setdefault(workflow, {})
                    found[fed] = found.get(fed, 0) | step.roots
        decided = [step for target in targets.values() for step in await self._decide(store, target, trail)]
        return decided + await self._again(store, again, trail)

    async def _further(self, store: WorkflowStore, steps: Sequence[Step], limit: int) -> list[Step]:
        """What is skipped because of these in turn, as far as it lies near: a long chain not link by link."""
        found = []
        known = {(step.mark.workflow, step.mark.index): step for step in steps if step.outcome.told != SUCCEEDED}
        for workflow in {workflow for workflow, _ in known}:
            first = min(index for its, index in known if its == workflow)
            page = {node.index: node for node in await store.nodes(workflow, after=first - 1, limit=limit)}
            waiting = [index for its, index in known if its == workflow and index in page]
            while waiting:
                index = waiting.pop(0)
                step = known[workflow, index]
                for fed in page[index].feeds:
                    node = page.get(fed)
                    if node is None or node.status or (workflow, fed) in known:
                        continue
                    spec: Spec = unpack(Spec, node.spec)
                    ends = None if spec.kind is Kind.GATE else verdict(spec, index, step.outcome)
                    if ends is not None:
                        further = known[workflow, fed] = step_of(workflow, fed, node.run, ends, step.roots)
                        found.append(further)
                        waiting.append(fed)
        return found

    async def _again(self, store: WorkflowStore, fed: dict[str, dict[int, int]], trail: Trail) -> list[Step]:
        """The ends that were consequences of marks that stood already: what follows them may not have been done."""
        steps = []
        for workflow, roots in fed.items():
            indexes = [index for index in roots if (workflow, index) not in trail.repeated]
            for node in await store.read(workflow, indexes) if indexes else ():
                if node is None or not node.status:
                    continue
                trail.repeated.add((workflow, node.index))
                steps += _repeated(Target(workflow, node, roots=roots[node.index]))
        return steps

    async def _decide(self, store: WorkflowStore, target: Target, trail: Trail) -> list[Step]:
        """What becomes of a node now, and how it has ended if it has."""
        workflow, node, spec = target.workflow, target.node, target.spec
        ends = target.ends
        if ends is None and node.waiting == 0 and several(spec):
            ends = await self._spoilt(store, workflow, node.index, spec)
        if ends is not None:
            if spec.kind is Kind.GATE:
                await self._skip_behind(store, workflow, node, ends, trail)
        elif node.waiting:
            return []
        elif spec.kind is Kind.JOB:
            begun = self._begun(workflow, node, spec, target.source)
            if isinstance(begun, Envelope):
                trail.begins(begun, target.roots)
                return []
            ends = begun
        elif spec.kind is Kind.GATE:
            await self._open(store, workflow, node.index, node.run, trail)
        return [step_of(workflow, node.index, node.run, ends or _DONE, target.roots)]

    async def _spoilt(self, store: WorkflowStore, workflow: str, index: int, spec: Spec) -> Outcome | None:
        """How a node ends of whose sources, which have all ended, one has not succeeded; None when all have.

        Whoever marked that one may have died before it could say so to this node.
        """
        for source in await store.nodes(workflow, limit=1, feeding=index, unsuccessful=True):
            return verdict(spec, source.index, outcome_of(source))
        return None

    def _begun(self, workflow: str, node: NodeState, spec: Spec, source: int) -> Envelope | Outcome:
        """The job of a node; or, for one that cannot be sent, how the node ends."""
        try:
            return begin(self._host, workflow, node, spec, source=source)
        except (DecodeError, EncodeError, MessageTooLarge) as error:
            return Outcome(status=Status.FAILED.value, error=describe(error), finished=self._host.clock.now_ms())

    async def _open(self, store: WorkflowStore, workflow: str, gate: int, run: int, trail: Trail) -> None:
        """What stands behind a gate begins, as far as it was not handed on before."""
        record = await store.get(workflow)
        after = -1 if record is None else record.passed.get(gate, -1)
        await self._hand_on(store, workflow, gate, run, after, trail)

    async def _hand_on(
        self, store: WorkflowStore, workflow: str, gate: int, run: int, after: int, trail: Trail
    ) -> None:
        while page := await store.nodes(workflow, after=after, limit=_PAGE, gate=gate):
            await self._begin_all(store, workflow, gate, page, trail)
            after = page[-1].index
            await store.passed(workflow, gate, after, self._host.clock.now_ms(), run)
            await stop_cancelled(self._host, store, workflow, [node.index for node in page])

    async def _begin_all(
        self, store: WorkflowStore, workflow: str, gate: int, nodes: Iterable[NodeState], trail: Trail
    ) -> None:
        """These nodes begin; returns when the broker has their jobs, and those of what follows at once."""
        inner = Trail(only=(await self._wholes.plan(store, workflow)).result)
        steps: list[Step] = []
        for node in nodes:
            target = Target(workflow, node, source=max(gate, -1))
            steps += _repeated(target) if node.status else await self._decide(store, target, inner)
        await self._walk(store, steps, inner)
        await self._publish(inner.envelopes)
        trail.take_over(inner)

    async def _skip_behind(
        self, store: WorkflowStore, workflow: str, gate: NodeState, ends: Outcome, trail: Trail
    ) -> None:
        inner = Trail(only=(await self._wholes.plan(store, workflow)).result)
        after = -1
        while page := await store.nodes(workflow, after=after, limit=_PAGE, gate=gate.index):
            steps: list[Step] = []
            for node in page:
                target = Target(workflow, node, source=gate.index)
                # Nothing behind a gate is a handler, though the gate may be one.
                target.ends = _skipped(target.spec, ends)
                steps += _repeated(target) if node.status else await self._decide(store, target, inner)
            await self._walk(store, steps, inner)
            await self._publish(inner.envelopes)
            inner.successors.clear()
            after = page[-1].index
        trail.take_over(inner)

    async def _publish(self, envelopes: Sequence[Envelope]) -> None:
        if not envelopes:
            return
        try:
            await self._host.publish(envelopes)
        except DispatchUncertain as error:  # the same ids are published again, so that nothing is doubled
            raise BrokerUnavailable(f"nobody knows whether jobs of workflows were published: {error}") from error


def _repeated(target: Target) -> list[Step]:
    """The end of a node that ended without a job, once more: what follows it may not have been done."""
    node = target.node
    if node.status != SKIPPED and target.spec.kind is Kind.JOB:
        return []
    return [step_of(target.workflow, node.index, node.run, outcome_of(node), target.roots)]


def _skipped(spec: Spec, ends: Outcome) -> Outcome:
    """How a node ends that stands behind a gate which was skipped."""
    told = ends.told
    status = (told or SKIPPED) if spec.kind is Kind.JOIN else SKIPPED
    return Outcome(status=status, cause=told, origin=ends.origin)
