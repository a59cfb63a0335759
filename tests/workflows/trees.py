"""Descriptions of compositions: drawn at random, built for an app, and understood by a plain interpreter.

The interpreter knows nothing of nodes, stores or messages: it is what a composition means.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from camora_workflows import Graph, chain, chord, group
from hypothesis import strategies as st

__all__ = ["Meaning", "Tree", "built", "trees"]

FAILURES = ("failed", "expired")
OK = "succeeded"

ENDS = {"fail": "failed", "failure": "failed", "discard": "discarded", "expire": "expired"}
"""How members end that do not succeed, and what that is called."""


@attrs.define
class Tree:
    """`kind`: leaf, chain, group, chord (the last part is its body), graph, map or chunks. A leaf has a label, which
    is its own in the whole; `after` is of a graph's parts."""

    kind: str
    parts: list[Tree] = attrs.field(factory=list)
    label: int = -1
    end: str = "ok"
    immutable: bool = False
    size: int = 0
    after: list[list[int]] = attrs.field(factory=list)
    on_success: Tree | None = None
    on_failure: Tree | None = None

    def numbered(self) -> Tree:
        """With labels, in the order of reading."""
        for number, leaf in enumerate(self.leaves()):
            leaf.label = number
        return self

    def healed(self) -> Tree:
        """The same, with members that succeed where they failed."""

        def of(tree: Tree | None) -> Tree | None:
            return None if tree is None else tree.healed()

        return attrs.evolve(
            self,
            end="ok" if self.end in ("fail", "failure") else self.end,
            parts=[part.healed() for part in self.parts],
            on_success=of(self.on_success),
            on_failure=of(self.on_failure),
        )

    def leaves(self) -> list[Tree]:
        parts = [*self.parts, self.on_success, self.on_failure]
        own = [self] if self.kind in ("leaf", "map", "chunks") else []
        return own + [leaf for part in parts if part is not None for leaf in part.leaves()]


# Drawing


def _leaves(end: str) -> st.SearchStrategy[Tree]:
    return st.builds(
        Tree,
        st.just("leaf"),
        end=st.sampled_from(["ok", "ok", "ok", "ok", "retry", end]),
        immutable=st.sampled_from([False, False, True]),
    )


def _many(kind: str) -> st.SearchStrategy[Tree]:
    return st.builds(Tree, st.just(kind), size=st.integers(0, 5))


def _bigger(smaller: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    perhaps = st.one_of(st.none(), st.none(), st.none(), smaller)

    def of(kind: str, parts: st.SearchStrategy[list[Tree]], **more: Any) -> st.SearchStrategy[Tree]:
        return st.builds(Tree, st.just(kind), parts, on_success=perhaps, on_failure=perhaps, **more)

    @st.composite
    def graphs(draw: Any) -> Tree:
        parts = draw(st.lists(smaller, min_size=1, max_size=4))
        after = [
            draw(st.lists(st.integers(0, place - 1), unique=True, max_size=2)) if place else []
            for place in range(len(parts))
        ]
        return Tree("graph", parts, after=after, on_success=draw(perhaps), on_failure=draw(perhaps))

    return st.one_of(
        of("chain", st.lists(smaller, min_size=1, max_size=4)),
        of("group", st.lists(smaller, min_size=0, max_size=4)),
        of("chord", st.lists(smaller, min_size=1, max_size=4)),
        graphs(),
    )


def _whole(end: str, most: int) -> st.SearchStrategy[Tree]:
    leaf = _leaves(end)
    return _bigger(st.recursive(leaf | leaf | _many("map") | _many("chunks"), _bigger, max_leaves=most))


def trees(*, end: str | None = None, most: int = 12) -> st.SearchStrategy[Tree]:
    """Compositions whose members come to one bad end, if to any: else which one is the reason were left to chance."""
    ends = sorted(ENDS) if end is None else [end]
    return st.one_of([_whole(one, most) for one in ends]).map(Tree.numbered)


# Building


def built(tree: Tree, leaf: Any, each: Any) -> Any:
    """The composition, of an app's tasks: `leaf(*given, label, end)` and `each(item)`."""
    made = _plain(tree, leaf, each)
    if tree.on_success is not None:
        made.on_success = built(tree.on_success, leaf, each)
    if tree.on_failure is not None:
        made.on_failure = built(tree.on_failure, leaf, each)
    return made


def _plain(tree: Tree, leaf: Any, each: Any) -> Any:
    match tree.kind:
        case "leaf":
            made = (leaf.si if tree.immutable else leaf.s)(tree.label, tree.end)
            return made.options(delay=5, expires=2) if tree.end == "expire" else made
        case "map":
            return each.map(_items(tree))
        case "chunks":
            return each.chunks(_items(tree), 2)
        case "graph":
            graph = Graph()
            for place, (part, after) in enumerate(zip(tree.parts, tree.after, strict=True)):
                graph.add(f"n{place}", built(part, leaf, each), after=[f"n{other}" for other in after])
            return graph
    parts = [built(part, leaf, each) for part in tree.parts]
    if tree.kind == "chain":
        return chain(*parts)
    return group(parts) if tree.kind == "group" else chord(parts[:-1], parts[-1])


def _items(tree: Tree) -> list[int]:
    return [1000 * (tree.label + 1) + number for number in range(tree.size)]


# Understanding

NOTHING: Any = object()
FAILED_STEP = "what failed"


class Meaning:
    """What a composition comes to, and which members run with what: `runs` has a label and what it was given."""

    def __init__(self, tree: Tree) -> None:
        self.runs: dict[int, list[Any]] = {}
        self.items: list[int] = []
        self.status, self.value = self.of(tree, NOTHING)

    def of(self, tree: Tree, given: Any) -> tuple[str, Any]:
        """What it comes to when it begins with this; its callbacks included."""
        told, value = self._begun(tree, given)
        self._followed(tree, told, value)
        return told, value

    def skip(self, tree: Tree, told: str) -> str:
        """It never begins, because of this; which travels to all that hangs on it."""
        match tree.kind:
            case "graph" | "chain" | "group" | "chord":
                for part in tree.parts:
                    self.skip(part, told)
        self._followed(tree, told, None)
        return told

    def _followed(self, tree: Tree, told: str, value: Any) -> None:
        if tree.on_success is not None:
            if told == OK:
                self.of(tree.on_success, value)
            else:
                self.skip(tree.on_success, told)
        if tree.on_failure is not None:
            if told in FAILURES:
                self.of(tree.on_failure, FAILED_STEP)
            else:
                # Nothing was wrong with it: it is not needed, and nothing that hangs on it is.
                self.skip(tree.on_failure, "")

    def _begun(self, tree: Tree, given: Any) -> tuple[str, Any]:
        kinds: dict[str, Callable[[Tree, Any], tuple[str, Any]]] = {
            "leaf": self._leaf, "map": self._map, "chunks": self._map, "chain": self._chain,
            "group": self._group, "chord": self._chord, "graph": self._graph,
        }  # fmt: skip
        return kinds[tree.kind](tree, given)

    def _leaf(self, tree: Tree, given: Any) -> tuple[str, Any]:
        came = [] if given is NOTHING or tree.immutable else [given]
        if tree.end != "expire":
            assert tree.label not in self.runs
            self.runs[tree.label] = came
        if tree.end in ENDS:
            return ENDS[tree.end], None
        return OK, [*came, tree.label]

    def _map(self, tree: Tree, _: Any) -> tuple[str, Any]:
        self.items += _items(tree)
        return OK, _items(tree)

    def _chain(self, tree: Tree, given: Any) -> tuple[str, Any]:
        told = OK
        for part in tree.parts:
            if told == OK:
                told, given = self.of(part, given)
            else:
                self.skip(part, told)
        return told, given

    def _group(self, tree: Tree, given: Any) -> tuple[str, Any]:
        return self._members(tree.parts, given)

    def _members(self, parts: list[Tree], given: Any) -> tuple[str, Any]:
        ends = [self.of(part, given) for part in parts]
        bad = [told for told, _ in ends if told != OK]
        return (bad[0], None) if bad else (OK, [value for _, value in ends])

    def _chord(self, tree: Tree, given: Any) -> tuple[str, Any]:
        told, values = self._members(tree.parts[:-1], given)
        if told == OK:
            return self.of(tree.parts[-1], values)
        return self.skip(tree.parts[-1], told), None

    def _graph(self, tree: Tree, given: Any) -> tuple[str, Any]:
        ends: list[tuple[str, Any]] = []
        for part, after in zip(tree.parts, tree.after, strict=True):
            bad = [ends[other][0] for other in after if ends[other][0] != OK]
            if bad:
                ends.append((self.skip(part, bad[0]), None))
                continue
            values = [ends[other][1] for other in after]
            ends.append(self.of(part, given if not after else values[0] if len(after) == 1 else values))
        bad = [told for told, _ in ends if told != OK]
        return (bad[0], None) if bad else (OK, {f"n{place}": value for place, (_, value) in enumerate(ends)})
