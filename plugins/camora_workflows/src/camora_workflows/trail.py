"""What was found while the consequences of some ends were followed: who begins, what has ended, who is to carry it."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import msgspec
from camora.interfaces import Mark, Marked, NodeState
from camora.message import Envelope

from camora_workflows.consequences import verdict
from camora_workflows.plan import Outcome, Spec, outcome_from, pack, unpack

__all__ = ["Step", "Target", "Trail", "outcome_of", "step_of"]


class Step(msgspec.Struct, gc=False, frozen=True):
    """A mark to be made. `roots` are the places of those endings that it follows from, a bit for each."""

    mark: Mark
    outcome: Outcome
    roots: int = 0


def step_of(workflow: str, index: int, run: int, outcome: Outcome, roots: int = 0) -> Step:
    """The step that marks a node as ended in this way."""
    mark = Mark(workflow=workflow, index=index, run=run, status=outcome.status, outcome=pack(outcome))
    return Step(mark, outcome, roots)


def outcome_of(node: NodeState) -> Outcome:
    """How a node has ended."""
    return outcome_from(node.outcome) if node.outcome else Outcome(status=node.status)


@attrs.define
class Target:
    """A node that waits for some that have ended, and what their ends mean for it."""

    workflow: str
    node: NodeState
    spec: Spec = attrs.field(init=False)
    source: int = -1
    ends: Outcome | None = None
    """How it ends without running; the first reason counts."""
    roots: int = 0

    def __attrs_post_init__(self) -> None:
        self.spec = unpack(Spec, self.node.spec)

    def hear(self, source: int, outcome: Outcome, roots: int) -> None:
        """One of its sources has ended so."""
        self.source = source
        self.roots |= roots
        if self.ends is None:
            self.ends = verdict(self.spec, source, outcome)


@attrs.define
class Trail:
    """All that came of one look. `only`: of which node the end is of interest; None: of all of them."""

    only: int | None = None
    successors: dict[str, tuple[Envelope, int]] = attrs.field(factory=dict)
    """By the id of the job."""
    ended: dict[str, dict[int, Outcome]] = attrs.field(factory=dict)
    """For each workflow, the nodes that are known to have ended, and how."""
    first: set[tuple[str, int]] = attrs.field(factory=set)
    """Nodes whose first mark was made here."""
    resumed: set[str] = attrs.field(factory=set)
    """Workflows in which an end was known before: whoever marked it may have told nobody of what followed."""
    within: set[tuple[str, int]] = attrs.field(factory=set)
    """Nodes that others wait for which belong to what the workflow comes to: so it does not come to theirs."""
    open: dict[str, int] = attrs.field(factory=dict)
    """For each workflow, how many of its nodes have not ended."""
    repeated: set[tuple[str, int]] = attrs.field(factory=set)

    def note(self, step: Step, outcome: Outcome, answer: Marked) -> None:
        """A mark was answered."""
        workflow, index = step.mark.workflow, step.mark.index
        self.open[workflow] = answer.open
        ended = self.ended.get(workflow)
        if ended is None:
            ended = self.ended[workflow] = {}
        if self.only is None or index == self.only:
            ended[index] = outcome
            if answer.standing is None:
                self.first.add((workflow, index))
            else:
                self.resumed.add(workflow)

    def begins(self, envelope: Envelope, roots: int) -> None:
        """A job may begin."""
        known = self.successors.get(envelope.id)
        self.successors[envelope.id] = (envelope, roots if known is None else roots | known[1])

    def take_over(self, inner: Trail) -> None:
        """What was found by a look of its own, whose successors are published already."""
        for workflow, ended in inner.ended.items():
            self.ended.setdefault(workflow, {}).update(ended)
        self.open.update(inner.open)

    @property
    def envelopes(self) -> Sequence[Envelope]:
        """All jobs that may begin."""
        return [envelope for envelope, _ in self.successors.values()]
