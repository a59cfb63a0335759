"""The exam of a store of workflows."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import pytest
import pytest_asyncio

from camora.interfaces.workflows import START, Mark, Marked, Node, NodeState, WorkflowRecord, WorkflowStore
from camora.testing.conformance.elsewhere import all_at_once, elsewhere
from camora.testing.conformance.workflow_machine import hunt_workflows

__all__ = ["WorkflowStoreConformance"]

NOW = 1_700_000_000_000
LONG = 3600.0

ODD = [
    "a",
    "A",
    "a ",
    "ä",
    "a:b",
    "a{b}",
    "{a}",
    "a/b",
    "a b",
    "a'b",
    'a"b',
    "a%",
    "a_",
    "a\\b",
    "a*",
    "日本",
    "x" * 120,
]
"""Ids and names that a store might take for one another, or for something else."""

OK = "succeeded"


def record(workflow_id: str, **changes: Any) -> WorkflowRecord:
    """A workflow that begins to be recorded."""
    changes.setdefault("created", NOW)
    return WorkflowRecord(id=workflow_id, **changes)


def mark(workflow_id: str, index: int, status: str = OK, outcome: bytes = b"", *, run: int = 0) -> Mark:
    """A node has ended."""
    return Mark(workflow=workflow_id, index=index, run=run, status=status, outcome=outcome)


def indexes(states: Sequence[NodeState | None]) -> list[int]:
    """Of nodes that there are."""
    return [state.index for state in states if state is not None]


def targets(answer: Marked) -> list[int]:
    """Whose turn it may be."""
    return sorted(state.index for state in answer.targets)


async def recorded(store: WorkflowStore, workflow_id: str, *nodes: Node, plan: bytes = b"plan") -> None:
    """A workflow that runs."""
    assert await store.create(record(workflow_id))
    assert await store.add(workflow_id, nodes, NOW)
    assert await store.start(workflow_id, plan, NOW)


async def one(store: WorkflowStore, workflow_id: str) -> WorkflowRecord:
    """The workflow of this id, which there is."""
    found = await store.get(workflow_id)
    assert found is not None
    return found


async def node(store: WorkflowStore, workflow_id: str, index: int) -> NodeState:
    """A node, which there is."""
    [found] = await store.read(workflow_id, [index])
    assert found is not None
    return found


def chain() -> list[Node]:
    """0, then 1, then 2."""
    return [Node(index=0, gate=START, feeds=(1,)), Node(index=1, feeds=(2,)), Node(index=2)]


def fan(width: int, *, gate: int = START, first: int = 0) -> list[Node]:
    """Nodes behind one gate, and a join that waits for all of them."""
    join = first + width
    return [*(Node(index=first + place, gate=gate, feeds=(join,)) for place in range(width)), Node(index=join)]


@pytest.mark.asyncio
class WorkflowStoreConformance:
    """Override `workflows_factory`."""

    keep: float = 1.0
    """Seconds for which finished workflows are kept whose deletion tests wait for."""
    patience: float = 30.0
    """Seconds after which what has not been deleted is taken for kept for ever."""
    races: int = 50
    """How often two tell an end at once."""
    examples: int = 10
    """How many random stories are compared with the model."""

    @pytest.fixture
    def workflows_factory(self) -> Callable[[], WorkflowStore]:
        """Makes an unopened store without workflows, on data of its own, each time it is called."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture workflows_factory")

    @pytest_asyncio.fixture
    async def store(self, workflows_factory: Callable[[], WorkflowStore]) -> AsyncIterator[WorkflowStore]:
        """The store under test, open."""
        store = workflows_factory()
        await store.open()
        try:
            yield store
        finally:
            await store.close()

    # What there is not

    async def test_an_empty_store_answers(self, store: WorkflowStore) -> None:
        assert await store.get("never") is None
        assert list(await store.list()) == []
        assert list(await store.read("never", [])) == []
        assert list(await store.read("never", [0, 1])) == [None, None]
        assert list(await store.nodes("never")) == []
        assert list(await store.nodes("never", gate=START)) == []
        assert list(await store.nodes("never", feeding=3, unfinished=True)) == []
        assert await store.delete([]) == 0
        assert await store.delete(["never", "nor this"]) == 0

    async def test_of_an_unknown_workflow_nothing_is_written(self, store: WorkflowStore) -> None:
        assert not await store.add("never", chain(), NOW)
        assert not await store.start("never", b"", NOW)
        assert not await store.finish("never", OK, LONG, NOW)
        assert not await store.reopen("never", {0: 0}, NOW)
        await store.passed("never", START, 3, NOW)
        assert list(await store.end([], NOW)) == []
        assert list(await store.end([mark("never", 0)], NOW)) == [Marked(known=False)]
        assert await store.get("never") is None
        assert list(await store.list()) == []
        await recorded(store, "never", *chain())
        assert [state.status for state in await store.nodes("never")] == ["", "", ""]
        assert (await one(store, "never")).passed == {}

    async def test_an_unknown_node_or_run_is_no_end(self, store: WorkflowStore) -> None:
        await recorded(store, "w", *chain())
        answers = await store.end([mark("w", 7), mark("w", 0, run=1), mark("w", -1), mark("other", 0)], NOW)
        assert list(answers) == [Marked(known=False)] * 4
        assert list(await store.read("w", [7, 0, -1])) == [None, await node(store, "w", 0), None]
        assert (await one(store, "w")).open == 3

    # Recording

    async def test_a_workflow_is_recorded_whole_before_it_starts(self, store: WorkflowStore) -> None:
        given = record("w", name="näme", plan=bytes(range(256)))
        assert await store.create(given)
        assert await store.add("w", chain()[:2], NOW + 1)
        assert await store.add("w", chain()[2:], NOW + 2)
        assert await store.get("w") == record(
            "w", name="näme", plan=bytes(range(256)), changed=NOW + 2, nodes=3, open=3
        )
        assert await store.start("w", b"other", NOW + 3)
        found = await one(store, "w")
        assert (found.state, found.plan, found.created, found.changed) == ("running", b"other", NOW, NOW + 3)
        assert (found.nodes, found.open, found.status, found.finished) == (3, 3, "", 0)

    async def test_of_one_id_there_is_one(self, store: WorkflowStore) -> None:
        assert await store.create(record("w", name="first"))
        assert not await store.create(record("w", name="second"))
        await store.add("w", chain())
        await store.start("w", b"p", NOW)
        assert not await store.create(record("w", name="third"))
        found = await one(store, "w")
        assert (found.name, found.nodes, found.state) == ("first", 3, "running")

    async def test_what_whoever_creates_it_says_of_its_state_is_not_believed(self, store: WorkflowStore) -> None:
        await store.create(record("w", state="finished", status="failed", nodes=7, open=7, finished=NOW, passed={0: 1}))
        found = await one(store, "w")
        assert (found.state, found.status, found.nodes, found.open) == ("recording", "", 0, 0)
        assert (found.finished, found.passed) == (0, {})

    async def test_nodes_are_kept_whole_and_once(self, store: WorkflowStore) -> None:
        given = [
            Node(index=0, spec=bytes(range(256)), feeds=(4, 2), gate=START),
            Node(index=2, gate=0),
            Node(index=4, spec="spéc".encode()),
            Node(index=16_777_000),
        ]
        await store.create(record("w"))
        assert await store.add("w", given[:3])
        assert await store.add("w", [Node(index=2, spec=b"other", feeds=(4,)), given[3]])
        assert await store.add("w", [])
        assert list(await store.nodes("w")) == [
            NodeState(index=0, spec=bytes(range(256)), feeds=(4, 2), gate=START),
            NodeState(index=2, gate=0, waiting=1),
            NodeState(index=4, spec="spéc".encode(), waiting=1),
            NodeState(index=16_777_000),
        ]
        assert (await one(store, "w")).nodes == 4

    async def test_sources_may_be_recorded_before_or_after_what_they_feed(self, store: WorkflowStore) -> None:
        await store.create(record("w"))
        await store.add("w", [Node(index=5, feeds=(3,))])
        await store.add("w", [Node(index=1, feeds=(3,)), Node(index=3)])
        await store.add("w", [Node(index=2, feeds=(3, 9))])
        assert (await node(store, "w", 3)).waiting == 3
        assert indexes(await store.nodes("w", feeding=3)) == [1, 2, 5]

    async def test_what_has_started_grows_no_more(self, store: WorkflowStore) -> None:
        await recorded(store, "w", *chain())
        assert not await store.add("w", [Node(index=9)], NOW)
        assert not await store.add("w", [], NOW)
        assert indexes(await store.nodes("w")) == [0, 1, 2]

    async def test_starting_again_changes_nothing(self, store: WorkflowStore) -> None:
        await recorded(store, "w", Node(index=0), plan=b"first")
        assert await store.start("w", b"second", NOW + 1)
        assert (await one(store, "w")).plan == b"first"
        await store.end([mark("w", 0)], NOW)
        assert await store.finish("w", OK, LONG, NOW)
        assert await store.start("w", b"third", NOW + 2)
        found = await one(store, "w")
        assert (found.plan, found.state) == (b"first", "finished")

    # Ending

    async def test_an_end_lets_the_next_begin(self, store: WorkflowStore) -> None:
        await recorded(store, "w", *chain())
        [answer] = await store.end([mark("w", 0, outcome=bytes(range(256)))], NOW + 1)
        assert answer.known
        assert answer.standing is None
        assert list(answer.targets) == [NodeState(index=1, feeds=(2,))]
        assert answer.open == 2
        assert await node(store, "w", 0) == NodeState(
            index=0, gate=START, feeds=(1,), status=OK, outcome=bytes(range(256))
        )
        found = await one(store, "w")
        assert (found.open, found.nodes, found.changed) == (2, 3, NOW + 1)

    async def test_a_node_waits_for_all_that_feed_it(self, store: WorkflowStore) -> None:
        await recorded(store, "w", *fan(3))
        for index, left in ((1, 2), (2, 1)):
            [answer] = await store.end([mark("w", index)], NOW)
            assert targets(answer) == []
            assert (await node(store, "w", 3)).waiting == left
        [answer] = await store.end([mark("w", 0)], NOW)
        assert [(state.index, state.waiting) for state in answer.targets] == [(3, 0)]

    async def test_what_did_not_succeed_is_told_to_all_it_feeds_at_once(self, store: WorkflowStore) -> None:
        await recorded(store, "w", Node(index=0, feeds=(2, 3)), Node(index=1, feeds=(2,)), Node(index=2), Node(index=3))
        [answer] = await store.end([mark("w", 0, "failed")], NOW)
        assert {state.index: state.waiting for state in answer.targets} == {2: 1, 3: 0}
        # Already decided: it is not handed out again.
        await store.end([mark("w", 2, "skipped")], NOW)
        [answer] = await store.end([mark("w", 1)], NOW)
        assert targets(answer) == []

    async def test_marks_of_one_batch_complete_a_join_together(self, store: WorkflowStore) -> None:
        await recorded(store, "w", *fan(3))
        answers = await store.end([mark("w", index) for index in range(3)], NOW)
        assert [(targets(answer), answer.open, answer.standing) for answer in answers] == [([3], 1, None)] * 3

    async def test_answers_show_all_as_it_is_after_the_batch(self, store: WorkflowStore) -> None:
        await recorded(store, "w", *chain())
        first, second = await store.end([mark("w", 0), mark("w", 1, "failed")], NOW)
        # 1 has ended meanwhile.
        assert targets(first) == []
        assert targets(second) == [2]
        assert first.open == second.open == 1

    async def test_the_first_end_stands(self, store: WorkflowStore) -> None:
        await recorded(store, "w", *chain())
        await store.end([mark("w", 0, "failed", b"first")], NOW)
        answers = await store.end([mark("w", 0, OK, b"second"), mark("w", 0, "failed", b"first")], NOW)
        standing = NodeState(index=0, gate=START, feeds=(1,), status="failed", outcome=b"first")
        for answer in answers:
            assert answer.known
            assert answer.standing == standing
            # By the status that stands: whoever repeats it takes up what followed.
            assert targets(answer) == [1]
            assert answer.open == 2

    async def test_of_two_ends_in_one_batch_the_first_stands(self, store: WorkflowStore) -> None:
        await recorded(store, "w", *chain())
        first, second = await store.end([mark("w", 0, OK, b"1"), mark("w", 0, "failed", b"2")], NOW)
        assert first.standing is None
        assert second.standing is not None
        assert (second.standing.status, second.standing.outcome) == (OK, b"1")
        assert targets(first) == targets(second) == [1]

    async def test_a_repeated_mark_is_answered_as_the_first_was(self, store: WorkflowStore) -> None:
        await recorded(store, "w", *fan(2))
        batch = [mark("w", 0, outcome=b"0"), mark("w", 1, outcome=b"1")]
        first = await store.end(batch, NOW)
        for _ in range(2):
            again = await store.end(batch, NOW)
            assert [(one.targets, one.open) for one in again] == [(one.targets, one.open) for one in first]
            assert [one.standing and one.standing.outcome for one in again] == [b"0", b"1"]
        await store.end([mark("w", 2)], NOW)
        assert [targets(answer) for answer in await store.end(batch, NOW)] == [[], []]

    async def test_one_batch_may_be_of_many_workflows(self, store: WorkflowStore) -> None:
        for name in ("a", "b", "c"):
            await recorded(store, name, *fan(2))
        batch = [mark("a", 0), mark("b", 0, "failed"), mark("never", 0), mark("a", 1), mark("c", 1)]
        answers = await store.end(batch, NOW)
        assert [answer.known for answer in answers] == [True, True, False, True, True]
        assert [targets(answer) for answer in answers] == [[2], [2], [], [2], []]
        assert [answer.open for answer in answers] == [1, 2, 0, 1, 2]

    async def test_a_node_may_end_that_still_waits(self, store: WorkflowStore) -> None:
        await recorded(store, "w", *chain())
        [answer] = await store.end([mark("w", 1, "cancelled")], NOW)
        assert targets(answer) == [2]
        assert (await node(store, "w", 1)).waiting == 1
        [answer] = await store.end([mark("w", 0)], NOW)
        assert targets(answer) == []

    async def test_what_a_node_feeds_need_not_be_there(self, store: WorkflowStore) -> None:
        await recorded(store, "w", Node(index=0, feeds=(7, 8)))
        [answer] = await store.end([mark("w", 0, "failed")], NOW)
        assert (answer.known, targets(answer), answer.open) == (True, [], 0)

    async def test_status_words_are_kept_as_they_are(self, store: WorkflowStore) -> None:
        words = ["succeeded", "failed", "discarded", "expired", "cancelled", "dead", "skipped", "Ünüsual word"]
        await recorded(store, "w", *[Node(index=index, feeds=(99,)) for index in range(len(words))], Node(index=99))
        answers = await store.end([mark("w", index, word) for index, word in enumerate(words)], NOW)
        assert [targets(answer) for answer in answers] == [[99]] * len(words)
        assert [state.status for state in await store.nodes("w")][:-1] == words

    # Two at once

    async def _both(self, store: WorkflowStore, batches: Sequence[Sequence[Mark]], rounds: int) -> list[list[Any]]:
        """Tell these ends from as many twins, one by one in each round; for each round, the answers of all."""
        barrier = threading.Barrier(len(batches))

        def telling(marks: Sequence[Mark]) -> Callable[[], Coroutine[Any, Any, list[Marked]]]:
            async def tell() -> list[Marked]:
                twin = store.twin()
                await twin.open()
                answers: list[Marked] = []
                try:
                    for told in marks:
                        await asyncio.to_thread(barrier.wait, 60)
                        answers += await twin.end([told], NOW)
                finally:
                    await twin.close()
                return answers

            return tell

        told = await all_at_once(*[telling(marks) for marks in batches])
        return [[answers[place] for answers in told] for place in range(rounds)]

    async def test_of_the_last_two_who_end_at_once_one_sees_that_nothing_is_left(self, store: WorkflowStore) -> None:
        names = [f"w{number}" for number in range(self.races)]
        for name in names:
            await recorded(store, name, *fan(2))
        rounds = await self._both(store, [[mark(name, who) for name in names] for who in range(2)], self.races)
        for answers in rounds:
            assert [answer.standing for answer in answers] == [None, None]
            # One atomic step each: there is a last one, and it alone sees the join free.
            assert sorted(targets(answer) for answer in answers) == [[], [2]]
            assert sorted(answer.open for answer in answers) == [1, 2]

    async def test_of_two_who_tell_another_end_at_once_one_stands(self, store: WorkflowStore) -> None:
        names = [f"w{number}" for number in range(self.races)]
        for name in names:
            await recorded(store, name, *chain())
        batches = [[mark(name, 0, OK, b"one") for name in names], [mark(name, 0, "failed", b"two") for name in names]]
        for name, answers in zip(names, await self._both(store, batches, self.races), strict=True):
            [loser] = [answer for answer in answers if answer.standing is not None]
            assert loser.standing == await node(store, name, 0)
            assert [targets(answer) for answer in answers] == [[1], [1]]

    async def test_batches_that_meet_in_many_workflows_do_not_block_each_other(self, store: WorkflowStore) -> None:
        names = [f"w{number}" for number in range(8)]
        for name in names:
            await recorded(store, name, *fan(40))

        def telling(order: Sequence[str], who: int) -> Callable[[], Coroutine[Any, Any, list[Marked]]]:
            async def tell() -> list[Marked]:
                twin = store.twin()
                await twin.open()
                answers: list[Marked] = []
                try:
                    for index in range(who, 40, 4):
                        answers += await twin.end([mark(name, index) for name in order], NOW)
                finally:
                    await twin.close()
                return answers

            return tell

        told = await all_at_once(*[telling(names[:: 1 if who % 2 else -1], who) for who in range(4)])
        free = [state for answers in told for answer in answers for state in answer.targets]
        assert len(free) == len(names), "each join is free once, for whoever came last"
        for name in names:
            assert await store.read(name, [40]) == [NodeState(index=40)]

    # Pages

    async def test_nodes_come_in_pages_in_order_of_index(self, store: WorkflowStore) -> None:
        nodes = [Node(index=index, gate=START if index % 2 else None, feeds=(99,)) for index in range(25)]
        await store.create(record("w"))
        for begin in (10, 0, 20):
            await store.add("w", nodes[begin : begin + 10])
        await store.add("w", [Node(index=99)])
        await store.start("w", b"", NOW)
        found: list[int] = []
        while page := await store.nodes("w", after=found[-1] if found else -1, limit=7):
            assert len(page) <= 7
            found += indexes(page)
        assert found == [*range(25), 99]
        assert indexes(await store.nodes("w", gate=START, limit=5)) == [1, 3, 5, 7, 9]
        assert indexes(await store.nodes("w", gate=START, after=9, limit=3)) == [11, 13, 15]
        assert indexes(await store.nodes("w", feeding=99, after=21)) == [22, 23, 24]
        assert indexes(await store.nodes("w", feeding=98)) == []
        assert indexes(await store.nodes("w", gate=5)) == []
        await store.end([mark("w", index) for index in range(0, 25, 3)], NOW)
        assert indexes(await store.nodes("w", unfinished=True, limit=4)) == [1, 2, 4, 5]
        assert indexes(await store.nodes("w", unfinished=True, gate=START, after=5, limit=3)) == [7, 11, 13]
        assert indexes(await store.nodes("w", unfinished=True, feeding=99, after=20)) == [22, 23]
        assert indexes(await store.nodes("w", unfinished=True, after=23)) == [99]
        assert indexes(await store.nodes("w", unsuccessful=True, feeding=99)) == []
        await store.end([mark("w", index, status="failed") for index in (4, 13)], NOW)
        await store.end([mark("w", index, status="skipped") for index in (5, 22)], NOW)
        assert indexes(await store.nodes("w", unsuccessful=True, limit=3)) == [4, 5, 13]
        assert indexes(await store.nodes("w", unsuccessful=True, gate=START, after=4)) == [5, 13]
        assert indexes(await store.nodes("w", unsuccessful=True, feeding=99, after=13)) == [22]
        bare = await store.nodes("w", feeding=99, after=2, limit=3, bare=True)
        assert [(state.index, state.status) for state in bare] == [(3, "succeeded"), (4, "failed"), (5, "skipped")]
        assert [state.outcome for state in bare] == [
            state.outcome for state in await store.nodes("w", after=2, limit=3)
        ]

    async def test_reading_keeps_the_order_asked_for(self, store: WorkflowStore) -> None:
        await recorded(store, "w", *chain())
        found = await store.read("w", [2, 0, 9, 2, 1])
        assert [state and state.index for state in found] == [2, 0, None, 2, 1]

    async def test_how_far_a_gate_was_passed_only_grows(self, store: WorkflowStore) -> None:
        await recorded(store, "w", Node(index=0, feeds=(1,)), Node(index=1), *fan(3, gate=1, first=2))
        await store.passed("w", START, 4, NOW + 1)
        await store.passed("w", START, 2, NOW + 2)
        await store.passed("w", 1, 3, NOW + 3)
        await store.passed("w", START, 4, NOW + 3)
        assert (await one(store, "w")).passed == {START: 4, 1: 3}
        await store.passed("w", 1, 4, NOW + 4)
        found = await one(store, "w")
        assert (found.passed, found.changed) == ({START: 4, 1: 4}, NOW + 4)

    # Again

    async def test_what_is_reopened_runs_anew_and_is_waited_for_again(self, store: WorkflowStore) -> None:
        await recorded(store, "w", *chain())
        await store.end([mark("w", 0, outcome=b"0"), mark("w", 1, "failed"), mark("w", 2, "skipped")], NOW)
        assert await store.reopen("w", {1: 0, 2: 0}, NOW + 1)
        assert list(await store.read("w", [0, 1, 2])) == [
            NodeState(index=0, gate=START, feeds=(1,), status=OK, outcome=b"0"),
            NodeState(index=1, feeds=(2,), run=1),
            NodeState(index=2, run=1, waiting=1),
        ]
        found = await one(store, "w")
        assert (found.open, found.changed) == (2, NOW + 1)
        [late] = await store.end([mark("w", 1)], NOW)
        assert late == Marked(known=False)
        [answer] = await store.end([mark("w", 1, run=1)], NOW)
        assert answer.standing is None
        assert answer.targets == (NodeState(index=2, run=1),)
        assert answer.open == 1

    async def test_what_has_not_ended_cannot_be_reopened(self, store: WorkflowStore) -> None:
        await recorded(store, "w", *chain())
        assert not await store.reopen("w", {0: 0}, NOW)
        assert not await store.reopen("w", {}, NOW)
        await store.end([mark("w", 0)], NOW)
        before = await store.nodes("w")
        for others in ({1: 0}, {7: 0}, {-1: 0}, {1: 1}):
            assert not await store.reopen("w", {0: 0, **others}, NOW + 1), "all of them or none"
        assert list(await store.nodes("w")) == list(before)
        assert await store.reopen("w", {0: 0}, NOW)
        assert [state.run for state in await store.nodes("w")] == [1, 0, 0]
        assert (await node(store, "w", 1)).waiting == 1

    async def test_only_what_stands_as_it_was_seen_is_reopened(self, store: WorkflowStore) -> None:
        await recorded(store, "w", *fan(2))
        await store.end([mark("w", index, "failed") for index in range(3)], NOW)
        assert not await store.reopen("w", {0: 1}, NOW), "a run that is still to come"
        assert await store.reopen("w", {0: 0, 2: 0}, NOW)
        assert not await store.reopen("w", {0: 0, 2: 0}, NOW), "another one was faster, or its answer was lost"
        await store.end([mark("w", 0, "failed", run=1), mark("w", 2, "failed", run=1)], NOW)
        before = await store.nodes("w")
        for late in ({0: 0}, {1: 0, 2: 0}, {0: 0, 1: 0, 2: 1}):
            assert not await store.reopen("w", late, NOW), "it has run again since, and failed again"
        assert list(await store.nodes("w")) == list(before)
        assert await store.reopen("w", {0: 1, 1: 0, 2: 1}, NOW)
        assert [(state.run, state.waiting) for state in await store.nodes("w")] == [(2, 0), (1, 0), (2, 2)]

    async def test_of_those_who_reopen_the_same_at_once_one_does(self, store: WorkflowStore) -> None:
        names = [f"w{number}" for number in range(self.races)]
        for name in names:
            await recorded(store, name, *fan(2))
            await store.end([mark(name, index, "failed") for index in range(3)], NOW)

        def reopening(seen: Sequence[int]) -> Callable[[], Coroutine[Any, Any, Sequence[bool]]]:
            async def reopen() -> Sequence[bool]:
                other = store.twin()
                await other.open()
                try:
                    return [await other.reopen(name, dict.fromkeys(seen, 0), NOW) for name in names]
                finally:
                    await other.close()

            return reopen

        told = await all_at_once(*map(reopening, ([0, 2], [2, 1], [0, 1, 2])))
        for place, name in enumerate(names):
            said = [answers[place] for answers in told]
            assert sum(said) == 1, "each two of them have a node in common"
            runs = [state.run for state in await store.nodes(name)]
            assert runs == [[1, 0, 1], [0, 1, 1], [1, 1, 1]][said.index(True)]

    async def test_a_target_that_has_ended_and_is_reopened_later_waits_for_what_was_reopened(
        self, store: WorkflowStore
    ) -> None:
        await recorded(store, "w", *fan(2))
        await store.end([mark("w", index) for index in range(3)], NOW)
        assert await store.reopen("w", {0: 0}, NOW)
        assert (await node(store, "w", 2)).status == OK
        assert await store.reopen("w", {2: 0}, NOW)
        assert (await node(store, "w", 2)).waiting == 1
        [again] = await store.end([mark("w", 1)], NOW)
        assert targets(again) == []
        [answer] = await store.end([mark("w", 0, run=1)], NOW)
        assert targets(answer) == [2]

    async def test_a_join_counts_the_runs_that_stand_and_no_others(self, store: WorkflowStore) -> None:
        await recorded(store, "w", *fan(2))
        for run in range(5):
            await store.end([mark("w", 0, "failed", run=run)], NOW)
            assert await store.reopen("w", {0: run}, NOW)
        [answer] = await store.end([mark("w", 1)], NOW)
        assert targets(answer) == []
        assert (await node(store, "w", 2)).waiting == 1
        [answer] = await store.end([mark("w", 0, run=5)], NOW)
        assert targets(answer) == [2]

    async def test_a_finished_workflow_that_is_reopened_runs_again(self, store: WorkflowStore) -> None:
        await recorded(store, "w", *chain())
        await store.end([mark("w", 0), mark("w", 1, "failed"), mark("w", 2, "skipped")], NOW)
        assert await store.finish("w", "failed", LONG, NOW + 1)
        assert not await store.reopen("w", {}, NOW)
        assert (await one(store, "w")).state == "finished"
        assert await store.reopen("w", {1: 0, 2: 0}, NOW + 2)
        found = await one(store, "w")
        assert (found.state, found.status, found.finished, found.open) == ("running", "", 0, 2)
        assert not await store.finish("w", OK, LONG, NOW)
        await store.end([mark("w", 1, run=1), mark("w", 2, run=1)], NOW)
        assert await store.finish("w", OK, LONG, NOW + 3)
        found = await one(store, "w")
        assert (found.state, found.status, found.finished) == ("finished", OK, NOW + 3)

    async def test_a_gate_that_is_reopened_is_passed_anew(self, store: WorkflowStore) -> None:
        await recorded(store, "w", Node(index=0, feeds=(1,)), Node(index=1), *fan(3, gate=1, first=2))
        await store.end([mark("w", 0), mark("w", 1)], NOW)
        await store.passed("w", START, 0, NOW)
        await store.passed("w", 1, 4, NOW)
        assert await store.reopen("w", {1: 0}, NOW)
        assert (await one(store, "w")).passed == {START: 0}
        # One who opened it before, and was slow.
        await store.passed("w", 1, 4, NOW)
        assert (await one(store, "w")).passed == {START: 0}
        await store.passed("w", 1, 2, NOW, 1)
        assert (await one(store, "w")).passed == {START: 0, 1: 2}

    # The end of all

    async def test_only_what_runs_and_has_nothing_open_is_finished(self, store: WorkflowStore) -> None:
        await store.create(record("w"))
        assert not await store.finish("w", OK, LONG, NOW)
        await store.add("w", chain())
        await store.start("w", b"plan", NOW)
        assert not await store.finish("w", OK, LONG, NOW)
        await store.end([mark("w", 0), mark("w", 1)], NOW)
        assert not await store.finish("w", OK, LONG, NOW)
        assert (await one(store, "w")).state == "running"
        await store.end([mark("w", 2)], NOW)
        assert await store.finish("w", OK, LONG, NOW + 5)
        assert await store.get("w") == WorkflowRecord(
            id="w", plan=b"plan", state="finished", status=OK, created=NOW, changed=NOW + 5, finished=NOW + 5, nodes=3
        )

    async def test_finishing_again_changes_nothing(self, store: WorkflowStore) -> None:
        await recorded(store, "w", Node(index=0))
        await store.end([mark("w", 0)], NOW)
        assert await store.finish("w", OK, LONG, NOW)
        assert not await store.finish("w", "failed", 0.0, NOW + 1)
        found = await one(store, "w")
        assert (found.status, found.finished) == (OK, NOW)

    async def test_what_is_finished_still_answers(self, store: WorkflowStore) -> None:
        await recorded(store, "w", *chain())
        await store.end([mark("w", index, outcome=b"%d" % index) for index in range(3)], NOW)
        await store.finish("w", OK, LONG, NOW)
        [answer] = await store.end([mark("w", 1, "failed")], NOW)
        assert answer.standing == await node(store, "w", 1)
        assert (targets(answer), answer.open) == ([], 0)
        assert [state.outcome for state in await store.nodes("w")] == [b"0", b"1", b"2"]

    async def test_a_workflow_without_nodes_can_be_finished(self, store: WorkflowStore) -> None:
        await store.create(record("w"))
        assert await store.start("w", b"", NOW)
        assert await store.finish("w", OK, LONG, NOW)

    async def test_what_is_finished_is_kept_for_its_time_and_then_deleted(self, store: WorkflowStore) -> None:
        for name, keep in (("long", LONG), ("short", self.keep)):
            await recorded(store, name, Node(index=0))
            await store.end([mark(name, 0)], NOW)
            begin = time.monotonic()
            assert await store.finish(name, OK, keep, NOW)
        while await store.get("short") is not None:
            assert time.monotonic() < begin + self.keep + self.patience, "it was never deleted"
            await asyncio.sleep(0.05)
        # Clocks are cut to milliseconds, and a server's may go another way a little.
        assert time.monotonic() - begin >= self.keep * 0.95, "it was deleted before its time"
        assert [found.id for found in await store.list()] == ["long"]
        assert list(await store.nodes("short")) == []
        assert list(await store.read("short", [0])) == [None]
        assert list(await store.end([mark("short", 0)], NOW)) == [Marked(known=False)]
        assert not await store.reopen("short", {0: 0}, NOW)
        assert await store.delete(["short"]) == 0
        assert await store.create(record("short"))
        assert (await one(store, "short")).nodes == 0

    async def test_what_was_reopened_in_time_is_not_deleted(self, store: WorkflowStore) -> None:
        keep = self.keep
        await recorded(store, "witness", Node(index=0))
        await store.end([mark("witness", 0)], NOW)
        while True:
            name = f"w{keep}"
            await recorded(store, name, Node(index=0, spec=b"spec"))
            await store.end([mark(name, 0)], NOW)
            assert await store.finish(name, OK, keep, NOW)
            if await store.reopen(name, {0: 0}, NOW):
                break
            keep *= 2
            assert keep < 100, "it cannot be reopened in time"
        # The witness is kept as long, from a later moment on.
        assert await store.finish("witness", OK, keep, NOW)
        deadline = time.monotonic() + keep + self.patience
        while await store.get("witness") is not None:
            assert time.monotonic() < deadline, "it was never deleted"
            await asyncio.sleep(0.05)
        assert (await one(store, name)).state == "running"
        assert await node(store, name, 0) == NodeState(index=0, spec=b"spec", run=1)

    async def test_what_is_deleted_is_gone_whatever_its_state(self, store: WorkflowStore) -> None:
        await store.create(record("recording"))
        await store.add("recording", chain())
        await recorded(store, "running", *chain())
        await store.passed("running", START, 0, NOW)
        await recorded(store, "finished", Node(index=0))
        await store.end([mark("finished", 0)], NOW)
        await store.finish("finished", OK, LONG, NOW)
        await recorded(store, "other", *chain())
        names = ["recording", "running", "finished"]
        assert await store.delete([*names, "never"]) == 3
        assert await store.delete(names) == 0
        for name in names:
            assert await store.get(name) is None
            assert list(await store.nodes(name)) == []
            assert list(await store.end([mark(name, 0)], NOW)) == [Marked(known=False)]
        assert [found.id for found in await store.list()] == ["other"]

    async def test_what_is_in_another_state_meanwhile_is_not_deleted(self, store: WorkflowStore) -> None:
        await store.create(record("recording"))
        await recorded(store, "running", *chain())
        await recorded(store, "finished", Node(index=0))
        await store.end([mark("finished", 0)], NOW)
        await store.finish("finished", OK, LONG, NOW)
        names = ["recording", "running", "finished", "never"]
        for state in names[:3]:
            assert await store.delete(names, state=state) == 1
            assert await store.get(state) is None
            assert await store.delete(names, state=state) == 0
        # Nothing of what was before comes back with its id.
        await recorded(store, "running", Node(index=1, feeds=(2,)), Node(index=2))
        assert list(await store.nodes("running")) == [NodeState(index=1, feeds=(2,)), NodeState(index=2, waiting=1)]
        assert (await one(store, "running")).passed == {}

    # Finding

    async def test_workflows_are_listed_in_order_of_id_and_in_pages(self, store: WorkflowStore) -> None:
        for number in (3, 1, 4, 0, 2):
            await store.create(record(f"w{number}", plan=b"plan", name=f"name {number}", created=NOW + number))
        found = await store.list()
        assert [(one.id, one.plan, one.name, one.created) for one in found] == [
            (f"w{number}", b"", f"name {number}", NOW + number) for number in range(5)
        ]
        assert [one.id for one in await store.list(limit=2)] == ["w0", "w1"]
        assert [one.id for one in await store.list(after="w1", limit=2)] == ["w2", "w3"]
        assert [one.id for one in await store.list(after="w4")] == []

    async def test_workflows_are_listed_by_state_and_by_when_they_changed(self, store: WorkflowStore) -> None:
        await store.create(record("a"))
        await store.add("a", chain(), NOW + 10)
        await recorded(store, "b", *chain())
        await store.end([mark("b", 0)], NOW + 20)
        await store.passed("b", START, 0, NOW + 20)
        await recorded(store, "c", Node(index=0))
        await store.end([mark("c", 0)], NOW + 30)
        await store.finish("c", OK, LONG, NOW + 40)
        for state, expected in (("recording", ["a"]), ("running", ["b"]), ("finished", ["c"]), ("", ["a", "b", "c"])):
            found = await store.list(state=state)
            assert [one.id for one in found] == expected
            assert found[0] == await self._without_plan(store, expected[0])
        for before, expected in ((0, []), (10, []), (11, ["a"]), (40, ["a", "b"]), (41, ["a", "b", "c"])):
            assert [one.id for one in await store.list(changed_before=NOW + before)] == expected
        assert [one.id for one in await store.list(state="running", changed_before=NOW + 21, after="a")] == ["b"]
        assert list(await store.list(state="finished", changed_before=NOW)) == []

    async def test_workflows_are_listed_by_what_they_came_to(self, store: WorkflowStore) -> None:
        ends = {"a": OK, "b": "failed", "c": OK, "d": "failed", "e": "", "f": "failed"}
        for name, status in ends.items():
            await recorded(store, name, Node(index=0))
            if status:
                await store.end([mark(name, 0, status)], NOW)
                assert await store.finish(name, status, LONG, NOW + 10)
        for status, expected in ((OK, ["a", "c"]), ("failed", ["b", "d", "f"]), ("fail", []), ("", list(ends))):
            assert [one.id for one in await store.list(status=status)] == expected
        assert [one.id for one in await store.list(status="failed", after="b", limit=1)] == ["d"]
        assert [one.id for one in await store.list(status="failed", state="finished", after="d")] == ["f"]
        assert list(await store.list(status="failed", state="running")) == []
        assert list(await store.list(status="failed", changed_before=NOW + 10)) == []
        assert await store.reopen("d", {0: 0}, NOW + 20)
        assert [one.id for one in await store.list(status="failed")] == ["b", "f"]

    async def _without_plan(self, store: WorkflowStore, workflow_id: str) -> WorkflowRecord:
        found = await one(store, workflow_id)
        return WorkflowRecord(**{name: getattr(found, name) for name in found.__struct_fields__ if name != "plan"})

    # Sizes and names

    async def test_thousands_behind_one_gate_feed_one_join(self, store: WorkflowStore) -> None:
        width, batch = 5000, 500
        await store.create(record("w"))
        nodes = fan(width)
        for begin in range(0, width + 1, batch):
            assert await store.add("w", nodes[begin : begin + batch], NOW)
        assert await store.start("w", b"", NOW)
        assert (await node(store, "w", width)).waiting == width
        after, seen = -1, 0
        while page := await store.nodes("w", gate=START, after=after, limit=batch):
            after, seen = page[-1].index, seen + len(page)
            await store.passed("w", START, after, NOW)
        assert seen == width
        assert (await one(store, "w")).passed == {START: width - 1}
        for begin in range(0, width, batch):
            answers = await store.end(
                [mark("w", index, outcome=b"%d" % index) for index in range(begin, begin + batch)], NOW
            )
            last = begin + batch == width
            assert {(tuple(targets(answer)), answer.open) for answer in answers} == {
                ((width,) if last else (), width + 1 - begin - batch)
            }
        values: list[bytes] = []
        while page := await store.nodes("w", feeding=width, after=len(values) - 1, limit=batch):
            values += [state.outcome for state in page]
        assert values == [b"%d" % index for index in range(width)]
        await store.end([mark("w", width)], NOW)
        assert await store.finish("w", OK, LONG, NOW)
        assert await store.reopen("w", dict.fromkeys(range(width + 1), 0), NOW)
        assert (await node(store, "w", width)).waiting == width
        assert await store.delete(["w"]) == 1

    async def test_large_values_come_back_whole(self, store: WorkflowStore) -> None:
        big = bytes(range(256)) * 4096
        await store.create(record("w"))
        await store.add("w", [Node(index=0, spec=big, feeds=(1,)), Node(index=1)])
        await store.start("w", big, NOW)
        await store.end([mark("w", 0, outcome=big)], NOW)
        state = await node(store, "w", 0)
        assert state.spec == big
        assert state.outcome == big
        assert (await one(store, "w")).plan == big

    async def test_ids_are_told_apart_exactly(self, store: WorkflowStore) -> None:
        for name in ODD:
            assert await store.create(record(name, name=name, plan=name.encode())), name
            assert await store.add(name, [Node(index=0, spec=name.encode(), feeds=(1,)), Node(index=1)])
            assert await store.start(name, name.encode(), NOW)
        answers = await store.end([mark(name, 0, outcome=name.encode()) for name in ODD], NOW)
        assert [(answer.known, answer.standing, targets(answer)) for answer in answers] == [(True, None, [1])] * len(
            ODD
        )
        for name in ODD:
            found, state = await one(store, name), await node(store, name, 0)
            assert (found.id, found.name, found.plan, found.open) == (name, name, name.encode(), 1)
            assert (state.spec, state.outcome) == (name.encode(), name.encode())
        listed: list[str] = []
        while page := await store.list(after=listed[-1] if listed else "", limit=4):
            listed += [found.id for found in page]
        assert sorted(listed) == sorted(ODD)
        assert await store.delete(ODD[:1]) == 1
        assert await store.delete(ODD) == len(ODD) - 1

    async def test_moments_beyond_32_bits_are_kept(self, store: WorkflowStore) -> None:
        far = 253_402_300_799_999
        await store.create(record("w", created=far))
        await store.start("w", b"", far + 1)
        found = await one(store, "w")
        assert (found.created, found.changed) == (far, far + 1)

    # Several

    async def test_a_twin_sees_the_same_and_outlives_its_original(
        self, workflows_factory: Callable[[], WorkflowStore]
    ) -> None:
        store = workflows_factory()
        await store.open()
        await recorded(store, "w", *chain())
        twin = store.twin()
        await twin.open()
        await store.close()
        await store.close()
        try:
            [answer] = await twin.end([mark("w", 0)], NOW)
            assert targets(answer) == [1]

            async def look() -> WorkflowRecord | None:
                other = twin.twin()
                await other.open()
                try:
                    return await other.get("w")
                finally:
                    await other.close()

            assert await elsewhere(look) == await twin.get("w")
        finally:
            await twin.close()

    async def test_many_calls_of_one_loop_at_once(self, store: WorkflowStore) -> None:
        await recorded(store, "w", *fan(30))
        answers = await asyncio.gather(*[store.end([mark("w", index)], NOW) for index in range(30)])
        free = [state.index for [answer] in answers for state in answer.targets]
        assert free == [30]
        assert sorted(answer.open for [answer] in answers) == list(range(1, 31))

    async def test_random_stories_end_as_the_model_says(self, workflows_factory: Callable[[], WorkflowStore]) -> None:
        # In a thread of its own: hypothesis drives it, with an event loop of the machine's.
        await asyncio.to_thread(hunt_workflows, workflows_factory, examples=self.examples)
