"""A workflow's nodes as a tree that people can read: what comes one after the other, and what beside each other."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs
from camora.interfaces.workflows import START

from camora_workflows.plan import SKIPPED, Kind
from camora_workflows.shapes import Shape

__all__ = ["Branch", "Picture", "state_of"]

_OVER = ("failed", "expired", "cancelled", "discarded", SKIPPED)
"""How a member stands whose steps have come to different things: as the first of these that is among them."""
_SOME = 5
"""How many members of a large group are drawn that went wrong, and how many that are under way."""


@attrs.define(eq=False)
class Branch:
    """A part of the tree. `what` is `job`, `chain`, `group` or `graph`; `end` is the node whose end is its end."""

    what: str
    end: Shape
    steps: list[Branch] = attrs.field(factory=list)
    callbacks: list[Branch] = attrs.field(factory=list)
    after: tuple[str, ...] = ()
    """In a graph: what it waits for."""
    size: int = 0
    """Of a group or graph: how many members it has; as many of them as were asked for are `steps`."""
    counts: Mapping[str, int] = attrs.field(factory=dict)
    """Of a group: how many of its members stand how."""

    def jobs(self) -> Iterator[Shape]:
        """All jobs that are drawn in it."""
        if self.what == "job":
            yield self.end
        for branch in (*self.steps, *self.callbacks):
            yield from branch.jobs()


def state_of(shape: Shape) -> str:
    """Its status, or `waits` for others, or `begun`: it may run, and the broker knows how far it is."""
    return shape.status or ("waits" if shape.waiting else "begun")


class Picture:
    """Finds the chains, groups and graphs in a flat list of nodes.

    Of groups of more than `most` members only those are drawn that are worth a look; None: all of all groups.
    """

    def __init__(self, shapes: Mapping[int, Shape], *, most: int | None = None) -> None:
        self._shapes = shapes
        self._most = most
        self._behind: dict[int, list[int]] = defaultdict(list)
        self._inside: dict[int, list[int]] = defaultdict(list)
        self._sources: dict[int, list[int]] = defaultdict(list)
        self._encloses: dict[int, int | None] = {}
        self._drawn: set[int] = set()
        self._gathering: set[int] = set()
        """Joins within a graph, of what a group there comes after."""
        for shape in shapes.values():
            if shape.gate is not None:
                self._behind[shape.gate].append(shape.index)
            if shape.kind is not Kind.JOIN or shape.gate is None:
                for target in self._main(shape):
                    if shapes[target].kind is Kind.JOB:
                        self._sources[target].append(shape.index)
            joins = [target for target in self._main(shape) if shapes[target].kind is Kind.JOIN]
            if any(shapes[join].mapping for join in joins):
                self._gathering.update(join for join in joins if not shapes[join].mapping)
        for index in shapes:
            enclosing = self._enclosing(index)
            if enclosing is not None:
                self._inside[enclosing].append(index)

    def branches(self) -> list[Branch]:
        """The whole, one after the other."""
        return self._thread(self._behind[START], None)

    # What belongs to what

    def _known(self, indexes: Iterable[int]) -> Iterator[int]:
        return (index for index in indexes if index in self._shapes)

    def _is_callback(self, shape: Shape, target: int) -> bool:
        other = self._shapes[target]
        return other.handler or (other.side and not shape.side)

    def _main(self, shape: Shape) -> list[int]:
        """The nodes that go on from this one, callbacks aside."""
        return [target for target in self._known(shape.feeds) if not self._is_callback(shape, target)]

    def _enclosing(self, index: int) -> int | None:
        """The join that ends the group or graph in which this node stands; None at the top."""
        path: list[int] = []
        found: int | None = None
        while True:
            if index in self._encloses:
                found = self._encloses[index]
                break
            path.append(index)
            self._encloses[index] = None
            following = self._next(index)
            if following is None or following[1]:
                found = None if following is None else following[0]
                break
            index = following[0]
        for passed in path:
            self._encloses[passed] = found
        return found

    def _next(self, index: int) -> tuple[int, bool] | None:
        """Where the way goes on, and whether that is the end of what it is in."""
        shape = self._shapes[index]
        if shape.kind is Kind.GATE:
            closed = self._closed_by(index)
            return None if closed is None else (closed, False)
        targets = self._main(shape)
        joins = [target for target in targets if self._shapes[target].kind is Kind.JOIN]
        if joins:
            return next((join for join in joins if self._shapes[join].mapping), joins[0]), True
        return (targets[0], False) if targets else None

    def _closed_by(self, gate: int) -> int | None:
        """The join of the group behind a gate: it is recorded right after that."""
        if self._is_join(gate + 1):
            return gate + 1
        return next((self._enclosing(index) for index in self._behind[gate]), None)

    def _is_join(self, index: int) -> bool:
        return index in self._shapes and self._shapes[index].kind is Kind.JOIN

    def _is_gate(self, index: int) -> bool:
        return index in self._shapes and self._shapes[index].kind is Kind.GATE

    def _is_head(self, index: int) -> bool:
        """Whether a member begins with this, or with what this is the join of: that has no gate of its own."""
        shape = self._shapes[index]
        if shape.kind is not Kind.JOIN:
            return shape.gate is not None
        return not self._is_gate(index - 1) and index not in self._gathering

    def _outermost(self, index: int, within: int | None) -> int:
        """Of what this node is in, the part that stands directly in `within`."""
        while (enclosing := self._enclosing(index)) is not None and enclosing != within:
            index = enclosing
        return index

    # Drawing

    def _thread(self, heads: Sequence[int], within: int | None) -> list[Branch]:
        """What begins with these nodes, one after the other, until the end of what it is in."""
        found: list[Branch] = []
        rest = [head for head in heads if head not in self._drawn]
        while rest:
            first, *others = rest
            branch, apart = self._part(first, within)
            found.append(branch)
            if not apart:
                for other in others:
                    found += self._thread([other], within)
            rest = [index for index in self._main(branch.end) if index != within and index not in self._drawn]
        return found

    def _part(self, index: int, within: int | None) -> tuple[Branch, bool]:
        """One part, and whether it holds all that begins at the same moment."""
        shape = self._shapes[index]
        outermost = self._outermost(index, within)
        if outermost != index:
            return self._closed(self._shapes[outermost]), True
        if shape.kind is Kind.GATE:
            self._drawn.add(index)
            join = self._closed_by(index)
            return (self._job(shape) if join is None else self._closed(self._shapes[join])), False
        return (self._closed(shape) if shape.kind is Kind.JOIN else self._job(shape)), False

    def _job(self, shape: Shape, after: tuple[str, ...] = ()) -> Branch:
        self._drawn.add(shape.index)
        return Branch("job", shape, after=after, callbacks=self._callbacks(shape))

    def _callbacks(self, shape: Shape) -> list[Branch]:
        return [
            _as_one(self._thread([target], None))
            for target in self._known(shape.feeds)
            if self._is_callback(shape, target) and target not in self._drawn
        ]

    def _closed(self, join: Shape) -> Branch:
        self._drawn.add(join.index)
        made = self._graph(join) if join.mapping else self._group(join)
        made.callbacks = self._callbacks(join)
        return made

    def _group(self, join: Shape) -> Branch:
        heads = [index for index in self._inside[join.index] if self._is_head(index)]
        counts: dict[str, int] = defaultdict(int)
        states = {}
        for head in heads:
            states[head] = self._standing(head, join.index)
            counts[states[head]] += 1
        drawn = heads if self._most is None or len(heads) <= self._most else _noteworthy(states)
        members = [_as_one(self._thread([head], join.index)) for head in drawn]
        self._drawn.update(self._inside[join.index])
        return Branch("group", join, steps=members, size=len(heads), counts=dict(counts))

    def _standing(self, head: int, join: int) -> str:
        """How a member stands: all its steps together."""
        states, index = set(), head
        while True:
            shape = self._shapes[index]
            states.add(state_of(shape))
            following = self._next(index)
            if following is None or following[0] == join or following[1]:
                break
            index = following[0]
        return next((state for state in (*_OVER, "begun", "waits") if state in states), "succeeded")

    def _graph(self, join: Shape) -> Branch:
        members = []
        inside = self._inside[join.index]
        for index in inside:
            shape = self._shapes[index]
            if index in self._drawn or (shape.kind is Kind.JOIN and not self._is_head(index)):
                continue
            if shape.kind is Kind.JOB:
                member = self._job(shape, self._names(self._sources[index]))
            else:
                member = self._part(index, join.index)[0]
            # In what is itself beside the workflow, callbacks are told only by leading nowhere.
            member.callbacks += [
                _as_one(self._thread([target], None))
                for target in self._main(member.end)
                if target != join.index and target not in self._drawn and self._enclosing(target) is None
            ]
            members.append(member)
        return Branch("graph", join, steps=members, size=len(members))

    def _names(self, sources: Sequence[int]) -> tuple[str, ...]:
        return tuple(self._shapes[index].name or f"#{index}" for index in sources)


def _as_one(thread: list[Branch]) -> Branch:
    return thread[0] if len(thread) == 1 else Branch("chain", thread[-1].end, steps=thread)


def _noteworthy(states: Mapping[int, str]) -> list[int]:
    """Which members of a large group are drawn: what went wrong, and what is under way; of each the first."""
    wrong = [index for index, state in states.items() if state in _OVER]
    begun = [index for index, state in states.items() if state == "begun"]
    return sorted([*wrong[:_SOME], *begun[:_SOME]])
