"""The hunt for a store of workflows: random calls on it, beside a model that looks at everything anew each time."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import attrs
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from msgspec.structs import replace

from camora.interfaces.workflows import START, Mark, Marked, Node, NodeState, WorkflowRecord, WorkflowStore

__all__ = ["hunt_workflows"]

R = TypeVar("R")

_NAMES = 2
_NODES = 6
_KEEP = 3600.0

_STATUSES = st.sampled_from(["succeeded", "succeeded", "failed", "skipped"])
_INDEXES = st.integers(0, _NODES)
_PICKS = st.integers(0, 19)
"""Mostly something that there is; 19 is something that there is not, perhaps."""
_OFF = st.dictionaries(_INDEXES, st.sampled_from([-1, 1]), max_size=2)
"""For some nodes, by how much another run is named than the one that they are in."""
_MARKS = st.lists(st.tuples(_PICKS, _PICKS, st.integers(-1, 3), _STATUSES), min_size=1, max_size=5)
_FEEDS = st.tuples(st.sets(_INDEXES, max_size=3), st.sampled_from([None, None, START, 0, 1]))
_WHOLE = st.lists(_FEEDS, min_size=1, max_size=_NODES)
_MORE = st.lists(st.tuples(st.integers(0, _NODES - 1), _FEEDS), max_size=3)

_Feeds = tuple[set[int], int | None]


@attrs.define
class _Graph:
    """What was recorded, and what has ended since; everything else follows from it."""

    record: WorkflowRecord
    nodes: dict[int, NodeState] = attrs.field(factory=dict)

    def states(self) -> list[NodeState]:
        return [self.state(index) for index in sorted(self.nodes)]

    def state(self, index: int) -> NodeState:
        waiting = sum(index in node.feeds and not node.status for node in self.nodes.values())
        return replace(self.nodes[index], waiting=waiting)

    def shown(self) -> WorkflowRecord:
        return replace(self.record, nodes=len(self.nodes), open=sum(not node.status for node in self.nodes.values()))

    def targets(self, index: int) -> list[NodeState]:
        node = self.nodes[index]
        fed = [self.state(target) for target in node.feeds if target in self.nodes]
        return [state for state in fed if not state.status and (node.status != "succeeded" or not state.waiting)]


class _Machine(RuleBasedStateMachine):
    """Two stores on the same data, and the model beside them. Each example has workflows of its own."""

    loop: asyncio.AbstractEventLoop
    stores: Sequence[WorkflowStore]
    numbers: itertools.count[int]

    def __init__(self) -> None:
        super().__init__()
        self.prefix = f"{next(self.numbers):09}"
        self.graphs: dict[int, _Graph] = {}
        self.now = 1_700_000_000_000
        self.calls = 0

    @property
    def store(self) -> WorkflowStore:
        """One and the other by turns."""
        self.calls += 1
        return self.stores[self.calls % len(self.stores)]

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        return self.loop.run_until_complete(work)

    def id_of(self, name: int) -> str:
        return f"{self.prefix}-{name}"

    def later(self) -> int:
        self.now += 1
        return self.now

    def running(self, name: int) -> _Graph | None:
        """What marks may be told to: before a workflow has started, nothing of it runs."""
        graph = self.graphs.get(name)
        return None if graph is None or graph.record.state == "recording" else graph

    def touch(self, graph: _Graph, **changes: Any) -> None:
        graph.record = replace(graph.record, changed=self.now, **changes)

    def pick(self, pick: int) -> int:
        """One that has started, mostly."""
        started = [name for name in self.graphs if self.running(name) is not None]
        return started[pick % len(started)] if started and pick < 19 else pick % _NAMES

    # Recording

    @rule(name=st.integers(0, _NAMES - 1), nodes=_WHOLE, seldom=st.integers(0, 3))
    def create(self, name: int, nodes: list[_Feeds], seldom: int) -> None:
        """A new one, mostly; and what is usually done next, at once."""
        record = WorkflowRecord(id=self.id_of(name), name=f"name {name}", plan=b"first", created=self.later())
        made = self.run(self.store.create(record))
        assert made == (name not in self.graphs)
        if made:
            self.graphs[name] = _Graph(replace(record, changed=self.now))
            self.add(name, list(enumerate(nodes)))
            if seldom:
                self.start(name)

    @precondition(lambda self: any(graph.record.state == "recording" for graph in self.graphs.values()))
    @rule(name=st.integers(0, _NAMES - 1), nodes=_MORE)
    def add_more(self, name: int, nodes: list[tuple[int, _Feeds]]) -> None:
        """To whichever, and then it starts."""
        self.add(name, nodes)
        self.start(name)

    def add(self, name: int, nodes: list[tuple[int, _Feeds]]) -> None:
        graph = self.graphs.get(name)
        made = [
            Node(
                index=index,
                spec=b"%d" % self.later(),
                feeds=tuple(sorted(feeds - {index})),
                gate=None if gate == index else gate,
            )
            for index, (feeds, gate) in nodes
        ]
        answer = self.run(self.store.add(self.id_of(name), made, self.later()))
        assert answer == (graph is not None and graph.record.state == "recording")
        if graph is not None and answer:
            for node in made:
                state = NodeState(index=node.index, spec=node.spec, feeds=node.feeds, gate=node.gate)
                graph.nodes.setdefault(node.index, state)
            self.touch(graph)

    def start(self, name: int) -> None:
        graph = self.graphs.get(name)
        plan = b"plan %d" % self.later()
        assert self.run(self.store.start(self.id_of(name), plan, self.now)) == (graph is not None)
        if graph is not None and graph.record.state == "recording":
            self.touch(graph, plan=plan, state="running")

    # Running

    @precondition(lambda self: any(self.running(name) is not None for name in self.graphs))
    @rule(wishes=_MARKS, twice=st.booleans())
    def end(self, wishes: list[tuple[int, int, int, str]], *, twice: bool) -> None:
        """Ends, of the run that a node is in, mostly; at times all of them once more."""
        marks = []
        for which, pick, run, status in wishes:
            name = self.pick(which)
            graph = self.running(name)
            if name in self.graphs and graph is None:
                continue
            index = sorted(graph.nodes)[pick % len(graph.nodes)] if graph is not None and pick < 19 else _NODES
            current = graph.nodes[index].run if graph is not None and index in graph.nodes else 0
            outcome = b"%d" % self.later()
            run = run if 0 <= run < current else current + (run == 3)
            marks.append(Mark(workflow=self.id_of(name), index=index, run=run, status=status, outcome=outcome))
        for _ in range(1 + twice):
            self.tell(marks)

    def tell(self, marks: list[Mark]) -> None:
        expected = self._expected(marks)
        found = self.run(self.store.end(marks, self.later()))
        assert [_in_order(answer) for answer in found] == [_in_order(answer) for answer in expected]
        # Whether what changed nothing counts as a change is left open.
        self._read_changed()

    def _expected(self, marks: list[Mark]) -> list[Marked]:
        found: list[tuple[_Graph | None, NodeState | None]] = []
        for mark in marks:
            graph = self.graphs.get(int(mark.workflow[-1]))
            node = None if graph is None else graph.nodes.get(mark.index)
            if graph is None or node is None or node.run != mark.run:
                found.append((None, None))
            elif node.status:
                found.append((graph, graph.state(mark.index)))
            else:
                graph.nodes[mark.index] = replace(node, status=mark.status, outcome=mark.outcome)
                found.append((graph, None))
        return [
            Marked(known=False)
            if graph is None
            else Marked(
                standing=standing,
                targets=tuple(graph.targets(mark.index)),
                open=graph.shown().open,
            )
            for mark, (graph, standing) in zip(marks, found, strict=True)
        ]

    def _read_changed(self) -> None:
        for name, graph in self.graphs.items():
            found = self.run(self.store.get(self.id_of(name)))
            assert found is not None
            assert graph.record.changed <= found.changed <= self.now
            graph.record = replace(graph.record, changed=found.changed)

    @precondition(lambda self: any(self.running(name) is not None for name in self.graphs))
    @rule(which=_PICKS, indexes=st.sets(_INDEXES, min_size=1, max_size=4), stray=st.integers(0, 3), off=_OFF)
    def reopen(self, which: int, indexes: set[int], stray: int, off: dict[int, int]) -> None:
        """Some that have ended, mostly as they were seen to; at times others among them."""
        name = self.pick(which)
        graph = self.running(name)
        nodes = {} if graph is None else graph.nodes
        wanted = [index for index in sorted(indexes) if not stray or (index in nodes and nodes[index].status)]
        runs = {index: (nodes[index].run if index in nodes else 0) + off.get(index, 0) for index in wanted}
        able = bool(runs) and all(
            index in nodes and nodes[index].status and nodes[index].run == run for index, run in runs.items()
        )
        assert self.run(self.store.reopen(self.id_of(name), runs, self.later())) == able
        if graph is None or not able:
            self._read_changed()
            return
        for index in runs:
            node = graph.nodes[index]
            graph.nodes[index] = replace(node, run=node.run + 1, status="", outcome=b"")
        passed = {gate: last for gate, last in graph.record.passed.items() if gate not in runs}
        self.touch(graph, passed=passed, state="running", status="", finished=0)

    @precondition(lambda self: any(self.running(name) is not None for name in self.graphs))
    @rule(which=_PICKS, gate=st.sampled_from([START, 0, 1]), index=_INDEXES, stale=st.booleans())
    def passed(self, which: int, gate: int, index: int, *, stale: bool) -> None:
        """Any gate, at times by one who opened it in another run."""
        name = self.pick(which)
        graph = self.running(name)
        if graph is None or (gate != START and gate not in graph.nodes):
            return
        run = 0 if gate == START else graph.nodes[gate].run
        self.run(self.store.passed(self.id_of(name), gate, index, self.later(), run + stale))
        if not stale and graph.record.passed.get(gate, -1) < index:
            self.touch(graph, passed={**graph.record.passed, gate: index})
        self._read_changed()

    @precondition(lambda self: any(graph.record.state == "running" for graph in self.graphs.values()))
    @rule(which=_PICKS)
    def finish_one(self, which: int) -> None:
        """Whether something is open or not."""
        self.finish(self.pick(which))

    def finish(self, name: int) -> None:
        graph = self.graphs.get(name)
        able = graph is not None and graph.record.state == "running" and not graph.shown().open
        assert self.run(self.store.finish(self.id_of(name), f"after {self.later()}", _KEEP, self.now)) == able
        if graph is not None and able:
            self.touch(graph, state="finished", status=f"after {self.now}", finished=self.now)

    @precondition(lambda self: any(graph.record.state == "running" for graph in self.graphs.values()))
    @rule(status=_STATUSES)
    def end_all(self, status: str) -> None:
        """All that is open, and the whole."""
        name = next(name for name, graph in self.graphs.items() if graph.record.state == "running")
        left = [node for node in self.graphs[name].nodes.values() if not node.status]
        self.tell(
            [
                Mark(workflow=self.id_of(name), index=node.index, run=node.run, status=status, outcome=b"all")
                for node in left
            ]
        )
        self.finish(name)

    @rule(
        name=st.integers(0, _NAMES - 1),
        seldom=st.integers(0, 3),
        state=st.sampled_from(["", "recording", "running", "finished"]),
    )
    def delete(self, name: int, seldom: int, state: str) -> None:
        """Whatever its state, or only in one."""
        if not seldom:
            graph = self.graphs.get(name)
            there = graph is not None and state in ("", graph.record.state)
            assert self.run(self.store.delete([self.id_of(name)], state=state)) == there
            if there:
                del self.graphs[name]

    # Looking

    @rule(
        which=_PICKS,
        after=st.integers(-1, _NODES),
        limit=st.integers(1, 4),
        only=st.sampled_from([None, "unfinished", "unsuccessful"]),
        by=st.sampled_from([None, "feeding", "gate"]),
        node=st.sampled_from([START, 0, 1, 2, _NODES]),
        bare=st.booleans(),
    )
    def page(
        self, which: int, after: int, limit: int, by: str | None, node: int, only: str | None, *, bare: bool
    ) -> None:
        """Any page of any nodes."""
        name = self.pick(which)
        graph = self.graphs.get(name)
        wanted = [
            state
            for state in (() if graph is None else graph.states())
            if state.index > after
            and (only != "unfinished" or not state.status)
            and (only != "unsuccessful" or state.status not in ("", "succeeded"))
            and (by != "feeding" or node in state.feeds)
            and (by != "gate" or node == state.gate)
        ]
        more: dict[str, Any] = {**({} if by is None else {by: node}), **({} if only is None else {only: True})}
        found = list(self.run(self.store.nodes(self.id_of(name), after=after, limit=limit, bare=bare, **more)))
        if bare:
            wanted = [replace(state, spec=b"", feeds=(), gate=None, waiting=0) for state in wanted]
            found = [replace(state, spec=b"", feeds=(), gate=None, waiting=0) for state in found]
        assert found == wanted[:limit]

    @rule(
        state=st.sampled_from(["", "recording", "running", "finished"]),
        which=st.sampled_from([None, None, *range(_NAMES)]),
        before=st.booleans(),
    )
    def listed(self, state: str, which: int | None, *, before: bool) -> None:
        """Those of this example: what comes later is greater, and what was before is gone."""
        changed = [graph.record.changed for graph in self.graphs.values()]
        moment = max(changed) if changed and before else None
        status = "" if which is None else self.graphs[which].record.status if which in self.graphs else "never"
        found = self.run(self.store.list(after=self.prefix, state=state, status=status, changed_before=moment))
        assert list(found) == [
            replace(graph.shown(), plan=b"")
            for _, graph in sorted(self.graphs.items())
            if (not state or graph.record.state == state)
            and (not status or graph.record.status == status)
            and (moment is None or graph.record.changed < moment)
        ]

    @invariant()
    def all_is_as_it_was_told(self) -> None:
        """Each workflow, and each node."""
        for name in range(_NAMES):
            graph = self.graphs.get(name)
            assert self.run(self.store.get(self.id_of(name))) == (None if graph is None else graph.shown())
            indexes = range(_NODES + 1)
            expected = [graph.state(index) if graph and index in graph.nodes else None for index in indexes]
            assert list(self.run(self.store.read(self.id_of(name), indexes))) == expected

    def teardown(self) -> None:
        """Leave nothing behind for the next example."""
        self.run(self.store.delete([self.id_of(name) for name in range(_NAMES)]))


def _in_order(answer: Marked) -> Marked:
    # Whether what has ended is shown as it was before the batch or after it is left open.
    standing = None if answer.standing is None else replace(answer.standing, waiting=0)
    return replace(answer, standing=standing, targets=tuple(sorted(answer.targets, key=lambda state: state.index)))


def hunt_workflows(
    make_store: Callable[[], WorkflowStore], *, examples: int = 100, steps: int = 25, **more: Any
) -> None:
    """Run the machine; raises `AssertionError` with the shortest story found. Not inside an event loop.

    `make_store` is called once. Keywords else are those of `hypothesis.settings`.
    """
    loop = asyncio.new_event_loop()
    try:
        store = make_store()
        twin = store.twin()
        for one in (store, twin):
            loop.run_until_complete(one.open())
        kind = type(
            "WorkflowStoreMachine",
            (_Machine,),
            {"loop": loop, "stores": (store, twin), "numbers": itertools.count(1)},
        )
        try:
            run_state_machine_as_test(
                kind,
                settings=settings(
                    max_examples=examples,
                    stateful_step_count=steps,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                    **more,
                ),
            )
        finally:
            for one in (twin, store):
                loop.run_until_complete(one.close())
    finally:
        loop.close()
