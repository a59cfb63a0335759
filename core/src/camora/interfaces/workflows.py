"""The store of workflows: graphs of jobs, which of them have ended, and what waits for what.

A workflow is recorded whole before it starts. Its nodes are jobs, and *joins*, which are no jobs: they gather. What a
node is, and what to do when it may begin, is the business of whoever drives workflows; the store keeps sets. Which node
is still waited for is a set of nodes, from which each is removed once, however often its end is told: nothing is
counted, so nothing can be counted twice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Self

import msgspec

__all__ = ["START", "Mark", "Marked", "Node", "NodeState", "WorkflowRecord", "WorkflowStore"]

START = -1
"""The gate that opens when the workflow starts."""


class Node(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """One node as it is recorded. `spec` is opaque to the store.

    It may begin when all nodes that feed it have ended; or, if it has a `gate`, when that node has ended (or the
    workflow has started, `START`): any number of nodes may stand behind one gate, and they are handed out in pages.
    """

    index: int
    """From 0, in the order of recording. Sources of a join are in the order of their indexes. A store may refuse one
    above 16,777,214 with an `EncodeError`: so many nodes are several workflows."""
    spec: bytes = b""
    feeds: tuple[int, ...] = ()
    """The nodes that wait for this one. They may be recorded later."""
    gate: int | None = None


class NodeState(msgspec.Struct, gc=False, frozen=True, kw_only=True, omit_defaults=True):
    """A node, and how far it is. `outcome` is opaque to the store."""

    index: int
    spec: bytes = b""
    feeds: tuple[int, ...] = ()
    gate: int | None = None
    waiting: int = 0
    """How many of the nodes that feed it have not ended."""
    run: int = 0
    """How often it was reopened."""
    status: str = ""
    """How it ended; empty while it has not."""
    outcome: bytes = b""


class Mark(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """A node has ended. `status` is not empty. Of another `run` than the node is in, it says nothing."""

    workflow: str
    index: int
    run: int = 0
    status: str
    outcome: bytes = b""


class Marked(msgspec.Struct, gc=False, frozen=True, kw_only=True):
    """What became of a mark."""

    known: bool = True
    """False when there is no such workflow, node or run (any more); then all else is empty."""
    standing: NodeState | None = None
    """The node as it had ended before; None when this mark is what stands now."""
    targets: tuple[NodeState, ...] = ()
    """Of the nodes that it feeds and that have not ended: those that wait for nothing any more, and, where the status
    that stands is not `succeeded`, all of them. Each as it is after the whole batch. A repeated mark is answered so,
    too: whoever died between a mark and what follows it is resumed by whoever repeats it."""
    open: int = 0
    """How many nodes of the workflow have not ended, after the whole batch."""


class WorkflowRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A workflow as a whole. Moments are milliseconds since the epoch, by the clock of who wrote them."""

    id: str
    name: str = ""
    plan: bytes = b""
    """Opaque to the store."""
    state: str = "recording"
    """`recording`, `running` or `finished`."""
    status: str = ""
    """How it ended, once it is finished."""
    created: int = 0
    changed: int = 0
    """When it was last written to."""
    finished: int = 0
    nodes: int = 0
    open: int = 0
    passed: Mapping[int, int] = msgspec.field(default_factory=dict)
    """For each gate whose nodes were handed on: the last index that was."""


class WorkflowStore(ABC):
    """Belongs to the event loop in which it was opened. Each method is one atomic step for each workflow it touches.

    All methods may be repeated, and may raise `BrokerUnavailable`; after a lost answer, repeating one changes nothing.
    """

    @abstractmethod
    async def open(self) -> None:
        """Connect, and create what is missing."""

    @abstractmethod
    async def create(self, record: WorkflowRecord) -> bool:
        """Begin to record a workflow; False when there is one of this id. It has no nodes and no end yet."""

    @abstractmethod
    async def add(self, workflow_id: str, nodes: Sequence[Node], now: int = 0) -> bool:
        """Record nodes of a workflow that has not started; False when there is none such. Known indexes stay.

        `changed` becomes `now`, if that is later: a long recording is told from one that was given up by it.
        """

    @abstractmethod
    async def start(self, workflow_id: str, plan: bytes, now: int) -> bool:
        """From now on it is to run; True when it runs, or has run, already. False when there is none of this id."""

    @abstractmethod
    async def end(self, marks: Sequence[Mark], now: int) -> Sequence[Marked]:
        """Nodes have ended: the first mark of a node's run stands. One answer each, in order; of any workflows."""

    @abstractmethod
    async def reopen(self, workflow_id: str, runs: Mapping[int, int], now: int) -> bool:
        """Nodes that have ended are to be run again: their `run` grows, and what they feed waits for them again.

        `runs` has for each of them the run that the caller has seen end. All in one step: targets among them count from
        then on. What was `passed` of gates among them is forgotten. A finished workflow is running again.

        False, and nothing, unless each of them is there and has ended in that run, and where none is given. So of
        several who reopen the same one does; and who repeats a call whose answer was lost is told False, and reads what
        has become of it.
        """

    @abstractmethod
    async def read(self, workflow_id: str, indexes: Sequence[int]) -> Sequence[NodeState | None]:
        """These nodes, in order; None for one that there is not."""

    @abstractmethod
    async def nodes(
        self,
        workflow_id: str,
        *,
        after: int = -1,
        limit: int = 500,
        feeding: int | None = None,
        gate: int | None = None,
        unfinished: bool = False,
        unsuccessful: bool = False,
        bare: bool = False,
    ) -> Sequence[NodeState]:
        """Up to `limit` nodes with an index above `after`, in order of index.

        With `feeding`, those that feed this node; with `gate`, those behind it; with `unfinished`, those that have not
        ended; with `unsuccessful`, those that have, and whose status is not `succeeded`. At most one of the first two
        is given, and of `unfinished` and `unsuccessful`. With `bare`, a store may leave out what they are (`spec`,
        `feeds`, `gate` and `waiting`), and tell only how they ended.
        """

    @abstractmethod
    async def passed(self, workflow_id: str, gate: int, index: int, now: int, run: int = 0) -> None:
        """The nodes behind a gate were handed on, up to this index; a lower one than before changes nothing.

        So does one of another `run` than the gate is in: whoever opened it before it was reopened has no say any more.
        The run of `START` is 0.
        """

    @abstractmethod
    async def finish(self, workflow_id: str, status: str, keep: float, now: int) -> bool:
        """All is over: it may be deleted `keep` seconds from now. False, and nothing, unless it runs with none open."""

    @abstractmethod
    async def get(self, workflow_id: str) -> WorkflowRecord | None:
        """The workflow as a whole."""

    @abstractmethod
    async def list(
        self,
        *,
        after: str = "",
        limit: int = 100,
        state: str = "",
        status: str = "",
        changed_before: int | None = None,
    ) -> Sequence[WorkflowRecord]:
        """Workflows with an id greater than `after`, in order of id, without their plans.

        With `state`, those that are in it; with `status`, those that have finished so.
        """

    @abstractmethod
    async def delete(self, workflow_ids: Sequence[str], *, state: str = "") -> int:
        """Forget workflows, or those of them that are in this state; returns how many there were."""

    @abstractmethod
    def twin(self) -> Self:
        """An unopened one on the same data, for another event loop or thread."""

    def abandon(self) -> None:  # noqa: B027 -- most have nothing to do
        """As `Broker.abandon`."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of connections. May be repeated."""
