"""The tree that is drawn of a workflow: every job is in it once, whatever was composed, and however it stands."""

from __future__ import annotations

import io
from collections import Counter
from typing import Any

from camora import Camora
from camora_workflows.compiling import Compiler, Draft
from camora_workflows.picture import Branch, Picture
from camora_workflows.plan import Kind
from camora_workflows.shapes import Shape
from camora_workflows.showing import as_tree
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console

from tests.workflows.trees import Tree, built, trees

app = Camora("memory://", name="picture")


@app.task(name="leaf")
async def leaf(*given: Any) -> Any: ...


@app.task(name="each")
async def each(item: int) -> Any: ...


STATES = ["", "succeeded", "failed", "cancelled", "skipped"]


def shape(draft: Draft, status: str) -> Shape:
    return Shape(
        index=draft.index,
        kind=draft.kind,
        task="" if draft.signature is None else draft.signature.task.name,
        name=draft.name,
        feeds=tuple(draft.feeds),
        gate=draft.gate,
        waiting=0,
        run=0,
        handler=draft.handler,
        side=draft.side,
        mapping=bool(draft.names),
        status=status,
        cause="failed" if status == "skipped" else "",
        origin=-1,
        error="",
        attempts=0,
        started=0,
        finished=0,
        worker="",
    )


def shapes(tree: Tree, states: st.DataObject | None = None) -> dict[int, Shape]:
    drafts = list(Compiler(built(tree, leaf, each), app).drafts())
    drawn = st.sampled_from(STATES)
    return {draft.index: shape(draft, "" if states is None else states.draw(drawn)) for draft in drafts}


def printed(branches: list[Branch]) -> str:
    out = io.StringIO()
    Console(file=out, width=1000, emoji=False, highlight=False).print(as_tree("", [], branches, {}, [], 0))
    return out.getvalue()


NOTHING_IN_IT = Tree("graph", [Tree("chain", [Tree("map", size=0)], on_success=Tree("leaf"))], after=[[]])
"""A graph whose only node has a callback: where the graph is a callback itself, nothing else tells it from a step."""


@settings(max_examples=60)
@given(trees())
@example(Tree("chain", [Tree("leaf")], on_failure=NOTHING_IN_IT).numbered())
def test_every_job_is_drawn_once(tree: Tree) -> None:
    known = shapes(tree)
    branches = Picture(known).branches()
    drawn = Counter(job.index for branch in branches for job in branch.jobs())
    assert drawn == Counter(index for index, one in known.items() if one.kind is Kind.JOB)
    text = printed(branches)
    assert text.count("leaf #") + text.count("each #") == len(drawn)


@settings(max_examples=40)
@given(trees(), st.data(), st.integers(0, 2))
def test_members_that_are_not_drawn_are_counted(tree: Tree, states: st.DataObject, most: int) -> None:
    known = shapes(tree, states)
    whole, folded = Picture(known).branches(), Picture(known, most=most).branches()

    def sizes(branches: list[Branch]) -> list[tuple[int, int]]:
        return [(branch.end.index, branch.size) for branch in branches if branch.what in ("group", "graph")]

    assert sizes(folded) == sizes(whole)
    for branch in folded:
        if branch.what == "group":
            assert sum(branch.counts.values()) == branch.size
            assert len(branch.steps) <= max(most, 10)
    printed(folded)


def test_a_large_group() -> None:
    """Its members are looked at, and few of them drawn."""
    known = shapes(Tree("chord", [Tree("map", size=20_000, label=0), Tree("leaf", label=1)]))
    [outer, body] = Picture(known, most=20).branches()
    [members] = outer.steps
    assert (members.what, members.size, members.counts) == ("group", 20_000, {"begun": 20_000})
    assert len(members.steps) == 5
    assert body.end.task == "leaf"
