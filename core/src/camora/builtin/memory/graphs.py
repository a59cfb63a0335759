"""What a memory store knows of workflows: plain data and its rules, without locks."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence

import attrs
import msgspec

from camora.interfaces.workflows import START, Mark, Marked, Node, NodeState, WorkflowRecord

__all__ = ["Graphs"]

_SUCCEEDED = "succeeded"
_UNKNOWN = Marked(known=False)


class _Node(msgspec.Struct, gc=False, eq=False):
    """A node as it was recorded, and what changes of it."""

    told: Node
    run: int = 0
    status: str = ""
    outcome: bytes = b""


class _Indexes:
    """Indexes in order; they mostly come so."""

    __slots__ = ("_all",)

    def __init__(self) -> None:
        self._all: list[int] = []

    def add(self, index: int) -> None:
        if not self._all or index > self._all[-1]:
            self._all.append(index)
        else:
            self._all.insert(bisect_right(self._all, index), index)

    def above(self, after: int) -> Iterable[int]:
        return (self._all[place] for place in range(bisect_right(self._all, after), len(self._all)))


@attrs.define(eq=False)
class _Graph:
    record: WorkflowRecord
    nodes: dict[int, _Node] = attrs.field(factory=dict)
    indexes: _Indexes = attrs.field(factory=_Indexes)
    behind: dict[int, _Indexes] = attrs.field(factory=dict)
    """For each gate, the nodes behind it."""
    sources: dict[int, _Indexes] = attrs.field(factory=dict)
    """For each node, those that feed it."""
    outstanding: dict[int, set[int]] = attrs.field(factory=dict)
    """For each node, those that feed it and have not ended."""
    unfinished: int = 0
    passed: dict[int, int] = attrs.field(factory=dict)
    ends: float = 0.0
    """When it may be forgotten, in monotonic seconds; 0 while it may not."""

    def touch(self, now: int, **changes: object) -> None:
        changed = max(self.record.changed, now)
        self.record = msgspec.structs.replace(self.record, changed=changed, **changes)

    def shown(self, *, whole: bool = True) -> WorkflowRecord:
        return msgspec.structs.replace(
            self.record,
            plan=self.record.plan if whole else b"",
            nodes=len(self.nodes),
            open=self.unfinished,
            passed=dict(self.passed),
        )

    def add(self, told: Node) -> None:
        index = told.index
        if index in self.nodes:
            return
        self.nodes[index] = _Node(told)
        self.indexes.add(index)
        self.unfinished += 1
        if told.gate is not None:
            self.behind.setdefault(told.gate, _Indexes()).add(index)
        for target in set(told.feeds):
            self.sources.setdefault(target, _Indexes()).add(index)
            self.outstanding.setdefault(target, set()).add(index)

    def state(self, index: int) -> NodeState | None:
        node = self.nodes.get(index)
        if node is None:
            return None
        told = node.told
        waiting = self.outstanding.get(index)
        return NodeState(
            index=index,
            spec=told.spec,
            feeds=told.feeds,
            gate=told.gate,
            waiting=len(waiting) if waiting else 0,
            run=node.run,
            status=node.status,
            outcome=node.outcome,
        )

    def mark(self, mark: Mark) -> tuple[bool, NodeState | None]:
        """Whether there is such a run of such a node, and how it had ended before."""
        node = self.nodes.get(mark.index)
        if node is None or node.run != mark.run:
            return False, None
        if node.status:
            return True, self.state(mark.index)
        node.status, node.outcome = mark.status, mark.outcome
        self.unfinished -= 1
        for target in node.told.feeds:
            self.outstanding[target].discard(mark.index)
        return True, None

    def targets(self, index: int) -> Iterable[NodeState]:
        """What of those that the node feeds is to be decided now."""
        node = self.nodes[index]
        for target in dict.fromkeys(node.told.feeds):
            fed = self.nodes.get(target)
            if fed is None or fed.status or (node.status == _SUCCEEDED and self.outstanding[target]):
                continue
            state = self.state(target)
            assert state is not None
            yield state

    def has_ended(self, index: int, run: int) -> bool:
        node = self.nodes.get(index)
        return node is not None and node.run == run and bool(node.status)

    def reopen(self, index: int) -> None:
        node = self.nodes[index]
        node.run, node.status, node.outcome = node.run + 1, "", b""
        self.unfinished += 1
        for target in node.told.feeds:
            self.outstanding[target].add(index)
        self.passed.pop(index, None)

    def run_of(self, gate: int) -> int | None:
        if gate == START:
            return 0
        node = self.nodes.get(gate)
        return None if node is None else node.run


class Graphs:
    """Workflows by id. Every method takes the monotonic time (`at`), and forgets first whose time is over."""

    def __init__(self) -> None:
        self._graphs: dict[str, _Graph] = {}
        self._ends: list[tuple[float, str]] = []

    def _alive(self, at: float) -> dict[str, _Graph]:
        while self._ends and self._ends[0][0] <= at:
            ends, workflow_id = heapq.heappop(self._ends)
            graph = self._graphs.get(workflow_id)
            # It may have been reopened, and be kept for another time.
            if graph is not None and graph.ends == ends:
                del self._graphs[workflow_id]
        return self._graphs

    def create(self, record: WorkflowRecord, at: float) -> bool:
        """See `WorkflowStore.create`."""
        graphs = self._alive(at)
        if record.id in graphs:
            return False
        fresh = WorkflowRecord(
            id=record.id,
            name=record.name,
            plan=record.plan,
            created=record.created,
            changed=max(record.created, record.changed),
        )
        graphs[record.id] = _Graph(fresh)
        return True

    def add(self, workflow_id: str, nodes: Sequence[Node], now: int, at: float) -> bool:
        """See `WorkflowStore.add`."""
        graph = self._alive(at).get(workflow_id)
        if graph is None or graph.record.state != "recording":
            return False
        for node in nodes:
            graph.add(node)
        graph.touch(now)
        return True

    def start(self, workflow_id: str, plan: bytes, now: int, at: float) -> bool:
        """See `WorkflowStore.start`."""
        graph = self._alive(at).get(workflow_id)
        if graph is None:
            return False
        if graph.record.state == "recording":
            graph.touch(now, plan=plan, state="running")
        return True

    def end(self, marks: Sequence[Mark], now: int, at: float) -> list[Marked]:
        """See `WorkflowStore.end`."""
        graphs = self._alive(at)
        found: list[tuple[_Graph | None, NodeState | None]] = []
        for mark in marks:
            graph = graphs.get(mark.workflow)
            known, standing = (False, None) if graph is None else graph.mark(mark)
            if known and standing is None and graph is not None:
                graph.touch(now)
            found.append((graph if known else None, standing))
        return [
            _UNKNOWN
            if graph is None
            else Marked(standing=standing, targets=tuple(graph.targets(mark.index)), open=graph.unfinished)
            for mark, (graph, standing) in zip(marks, found, strict=True)
        ]

    def reopen(self, workflow_id: str, runs: Mapping[int, int], now: int, at: float) -> bool:
        """See `WorkflowStore.reopen`."""
        graph = self._alive(at).get(workflow_id)
        if graph is None or not runs or not all(graph.has_ended(index, run) for index, run in runs.items()):
            return False
        for index in runs:
            graph.reopen(index)
        if graph.record.state == "finished":
            graph.touch(now, state="running", status="", finished=0)
            graph.ends = 0.0
        else:
            graph.touch(now)
        return True

    def read(self, workflow_id: str, indexes: Sequence[int], at: float) -> list[NodeState | None]:
        """See `WorkflowStore.read`."""
        graph = self._alive(at).get(workflow_id)
        return [None if graph is None else graph.state(index) for index in indexes]

    def nodes(
        self,
        workflow_id: str,
        at: float,
        *,
        after: int,
        limit: int,
        feeding: int | None,
        gate: int | None,
        unfinished: bool,
        unsuccessful: bool,
    ) -> list[NodeState]:
        """See `WorkflowStore.nodes`."""
        graph = self._alive(at).get(workflow_id)
        if graph is None:
            return []
        if feeding is not None:
            indexes = graph.sources.get(feeding)
        elif gate is not None:
            indexes = graph.behind.get(gate)
        else:
            indexes = graph.indexes
        page: list[NodeState] = []
        for index in () if indexes is None else indexes.above(after):
            if len(page) >= limit:
                break
            status = graph.nodes[index].status
            if not (unfinished and status) and not (unsuccessful and status in ("", "succeeded")):
                state = graph.state(index)
                assert state is not None
                page.append(state)
        return page

    def passed(self, workflow_id: str, gate: int, index: int, now: int, run: int, at: float) -> None:
        """See `WorkflowStore.passed`."""
        graph = self._alive(at).get(workflow_id)
        if graph is None or graph.run_of(gate) != run or graph.passed.get(gate, -1) >= index:
            return
        graph.passed[gate] = index
        graph.touch(now)

    def finish(self, workflow_id: str, status: str, keep: float, now: int, at: float) -> bool:
        """See `WorkflowStore.finish`."""
        graph = self._alive(at).get(workflow_id)
        if graph is None or graph.record.state != "running" or graph.unfinished:
            return False
        graph.touch(now, state="finished", status=status, finished=now)
        graph.ends = at + keep
        heapq.heappush(self._ends, (graph.ends, workflow_id))
        return True

    def get(self, workflow_id: str, at: float) -> WorkflowRecord | None:
        """See `WorkflowStore.get`."""
        graph = self._alive(at).get(workflow_id)
        return None if graph is None else graph.shown()

    def list(
        self, at: float, *, after: str, limit: int, state: str, status: str, changed_before: int | None
    ) -> list[WorkflowRecord]:
        """See `WorkflowStore.list`."""
        wanted = [
            workflow_id
            for workflow_id, graph in self._alive(at).items()
            if workflow_id > after
            and (not state or graph.record.state == state)
            and (not status or graph.record.status == status)
            and (changed_before is None or graph.record.changed < changed_before)
        ]
        return [self._graphs[workflow_id].shown(whole=False) for workflow_id in heapq.nsmallest(limit, wanted)]

    def delete(self, workflow_ids: Sequence[str], state: str, at: float) -> int:
        """See `WorkflowStore.delete`."""
        graphs = self._alive(at)
        gone = {one for one in workflow_ids if one in graphs and state in ("", graphs[one].record.state)}
        for workflow_id in gone:
            del graphs[workflow_id]
        return len(gone)
