"""A composition as nodes: which there are, what feeds what, and what each gets. Pure: nothing here is sent or stored.

Nodes come in the order of their indexes, as a stream: the members of a group are taken from its iterable one at a time,
after everything that they feed. So a group of any size needs no memory, and every `feeds` is known when a node comes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import attrs
import msgspec
from camora.dispatchable import Dispatchable
from camora.errors import DispatchError
from camora.interfaces.workflows import START
from camora.signature import Signature

from camora_workflows.compose import Chain, Chord, Composed, Graph, Group, Mapped, one_of, shown
from camora_workflows.fitting import Before, Fitting
from camora_workflows.plan import Input, Kind, Plan
from camora_workflows.spots import Spot

__all__ = ["Compiler", "Draft"]

_COUNTED = {"map": "item {} of a map"}
_MEMBER, _CHUNK = "member {} of a group", "chunk {} of a map"


class Draft(msgspec.Struct, eq=False):
    """One node before there is a message for it."""

    index: int
    kind: Kind
    feeds: list[int] = msgspec.field(default_factory=list)
    gate: int | None = None
    input: Input = Input.NOTHING
    sources: tuple[int, ...] = ()
    handler: bool = False
    side: bool = False
    name: str = ""
    names: tuple[str, ...] = ()
    flat: bool = False
    signature: Signature[Any] | None = None
    """Of a job."""
    items: tuple[Any, ...] | None = None
    """Of a job that does several: the first argument of each."""
    spot: Spot | None = None
    """Where it stands; None where it is the whole."""


@attrs.frozen
class _Begin:
    """When something begins, and what it gets then."""

    gate: int | None = None
    sources: tuple[Draft, ...] = ()
    input: Input = Input.NOTHING
    handler: bool = False
    before: Before | None = None
    """What it gets is the result of this."""


@attrs.frozen
class _Stream:
    """The members of a group, which come later."""

    group: Group[Any]
    members: Iterator[tuple[Any, tuple[Any, ...] | None]]
    join: int
    begin: _Begin
    side: bool
    spot: Spot | None


class _Frame:
    """What is laid out at once: nodes that may refer to each other, and the groups among them."""

    __slots__ = ("drafts", "streams")

    def __init__(self) -> None:
        self.drafts: list[Draft] = []
        self.streams: list[_Stream] = []


class Compiler:
    """Compiles one composition; `plan` is known when `drafts` has given its first node."""

    def __init__(self, what: Dispatchable[Any], port: Any) -> None:
        self._what = what
        self._port = port
        self._next = 0
        self._fitting = Fitting()
        self.plan = Plan()

    def drafts(self) -> Iterator[Draft]:
        """All nodes. Raises `DispatchError` or `ConfigurationError` for what cannot be a part of a workflow."""
        frame = _Frame()
        names: dict[str, int] = {}
        end = self._lay(self._what, _Begin(gate=START), frame, side=False, names=names)
        kind = self._what.kind if isinstance(self._what, Composed) else "task"
        self.plan = Plan(kind=kind, result=end.index, names=names)
        yield from self._emit(frame)

    def _emit(self, frame: _Frame) -> Iterator[Draft]:
        yield from frame.drafts
        for stream in frame.streams:
            counted = _COUNTED.get(stream.group.kind, _MEMBER)
            for number, (member, items) in enumerate(stream.members, 1):
                within = _Frame()
                spot = Spot(counted if items is None else _CHUNK, number, stream.spot)
                if type(member) is Signature and not member.followed:  # most are: so they take the short way
                    end = self._lay_job(member, stream.begin, within, side=stream.side, items=items, spot=spot)
                    end.feeds.append(stream.join)
                    yield end
                    continue
                end = self._lay(member, stream.begin, within, side=stream.side, items=items, spot=spot)
                end.feeds.append(stream.join)
                yield from self._emit(within) if within.streams else within.drafts

    # Laying out

    def _draft(self, kind: Kind, begin: _Begin, frame: _Frame, *, side: bool) -> Draft:
        draft = Draft(self._next, kind, gate=begin.gate, handler=begin.handler, side=side)
        self._next += 1
        for source in begin.sources:
            source.feeds.append(draft.index)
        if len(begin.sources) > 1:
            order = tuple(source.index for source in begin.sources)
            if kind is Kind.JOB or list(order) != sorted(order):
                draft.sources = order
        frame.drafts.append(draft)
        return draft

    def _lay(
        self,
        what: Any,
        begin: _Begin,
        frame: _Frame,
        *,
        side: bool,
        items: tuple[Any, ...] | None = None,
        names: dict[str, int] | None = None,
        spot: Spot | None = None,
    ) -> Draft:
        """Its nodes, and the one whose end is its end."""
        root = what is self._what
        if isinstance(what, Signature):
            end = self._lay_job(what, begin, frame, side=side, items=items, spot=spot, root=root)
        elif isinstance(what, Composed):
            if what.job_id is not None and not root:
                raise DispatchError(
                    f"{what!r}: job_id={what.job_id!r} is for what is dispatched, and this is a part of something; "
                    "give it to the whole"
                )
            end = self._lay_composed(what, begin, frame, side=side, names=names, spot=spot)
        else:
            raise DispatchError(f"{what!r} cannot be a part of a workflow")
        self._follow(what, what.on_success, what.on_failure, end, frame, spot)
        return end

    def _lay_composed(
        self,
        what: Composed[Any],
        begin: _Begin,
        frame: _Frame,
        *,
        side: bool,
        names: dict[str, int] | None,
        spot: Spot | None,
    ) -> Draft:
        match what:
            case Chain():
                spots = [Spot("step {} of a chain", number, spot) for number in range(1, len(what.steps) + 1)]
                return self._lay_steps(what.steps, begin, frame, side=side, spots=spots)
            case Chord():
                spots = [Spot("the {} of a chord", part, spot) for part in ("header", "body")]
                return self._lay_steps((what.header, what.body), begin, frame, side=side, spots=spots)
            case Group():
                return self._lay_group(what, begin, frame, side=side, spot=spot)
            case Graph():
                named = {} if names is None else names
                return self._lay_graph(what, begin, frame, side=side, names=named, spot=spot)
            case _:
                raise DispatchError(f"{what!r} cannot be a part of a workflow")

    def _lay_job(
        self,
        what: Signature[Any],
        begin: _Begin,
        frame: _Frame,
        *,
        side: bool,
        items: tuple[Any, ...] | None,
        spot: Spot | None,
        root: bool = False,
    ) -> Draft:
        self._check(what, root=root)
        draft = self._draft(Kind.JOB, begin, frame, side=side)
        draft.signature, draft.items, draft.spot = what, items, spot
        if not what.immutable:
            draft.input = begin.input
        if draft.input is not Input.NOTHING:
            self._fitting.check(begin.before, what)
        return draft

    def _lay_steps(
        self, steps: Sequence[Any], begin: _Begin, frame: _Frame, *, side: bool, spots: Sequence[Spot]
    ) -> Draft:
        end = self._lay(steps[0], begin, frame, side=side, spot=spots[0])
        for (before, step), spot in zip(itertools.pairwise(steps), spots[1:], strict=True):
            begin = _Begin(sources=(end,), input=Input.RESULT, before=self._fitting.before(before))
            end = self._lay(step, begin, frame, side=side, spot=spot)
        return end

    def _lay_group(self, what: Group[Any], begin: _Begin, frame: _Frame, *, side: bool, spot: Spot | None) -> Draft:
        if begin.gate is None:
            begin = self._gate(begin, frame, side=side)
        empty = not what.members.ahead()
        join = self._draft(Kind.JOIN, _Begin(gate=begin.gate if empty else None), frame, side=side)
        join.flat = isinstance(what, Mapped) and what.chunk is not None
        if not empty:
            frame.streams.append(_Stream(what, _members(what), join.index, begin, side, spot))
        return join

    def _gate(self, begin: _Begin, frame: _Frame, *, side: bool) -> _Begin:
        """A gate for a group that begins after something: any number of members may stand behind it."""
        if len(begin.sources) > 1:  # a gate's value is its source's
            join = self._draft(Kind.JOIN, begin, frame, side=side)
            begin = attrs.evolve(begin, sources=(join,), input=Input.RESULT)
        gate = self._draft(Kind.GATE, begin, frame, side=side)
        return attrs.evolve(begin, gate=gate.index, sources=(), handler=False)

    def _lay_graph(
        self, what: Graph, begin: _Begin, frame: _Frame, *, side: bool, names: dict[str, int], spot: Spot | None
    ) -> Draft:
        if not what.nodes:
            raise DispatchError('this graph has no nodes: Graph().add("a", a.s(1))')
        ends: dict[str, Draft] = {}
        for name in what.ordered():
            node = what.nodes[name]
            start = begin
            if node.after:
                others = [what.nodes[other].what for other in node.after]
                several = len(others) > 1
                start = _Begin(
                    sources=tuple(ends[other] for other in node.after),
                    input=Input.ALL if several else Input.RESULT,
                    before=self._fitting.before_all(others) if several else self._fitting.before(others[0]),
                )
            its = Spot("node {!r} of a graph", name, spot)
            ends[name] = end = self._lay(node.what, start, frame, side=side, spot=its)
            end.name = end.name or name
            self._follow(node.what, node.on_success, node.on_failure, end, frame, its)
        names.update((name, ends[name].index) for name in what.nodes)
        join = self._draft(Kind.JOIN, _Begin(sources=tuple(ends[name] for name in what.nodes)), frame, side=side)
        join.names = tuple(what.nodes)
        return join

    def _follow(
        self, what: Any, on_success: Any, on_failure: Any, end: Draft, frame: _Frame, spot: Spot | None
    ) -> None:
        """What hangs on it: callbacks, which change nothing of what the whole comes to."""
        own = f"a {what.kind}" if isinstance(what, Composed) else what.task.name
        if on_success is not None:
            one_of(on_success, f"on_success of {shown(what)}")
            self._lay(
                on_success,
                _Begin(sources=(end,), input=Input.RESULT, before=self._fitting.before(what)),
                frame,
                side=True,
                spot=Spot("on_success of {}", own, spot),
            )
        if on_failure is not None:
            one_of(on_failure, f"on_failure of {shown(what)}")
            begin = _Begin(sources=(end,), input=Input.FAILURE, handler=True)
            self._lay(on_failure, begin, frame, side=True, spot=Spot("on_failure of {}", own, spot))

    def _check(self, what: Signature[Any], *, root: bool) -> None:
        """What a job in a workflow cannot have."""
        name, options = what.task.name, what.options_
        if what.port is not self._port:
            raise DispatchError(
                f"{name} is a task of {what.port!r}, and the workflow that it is part of is dispatched by "
                f"{self._port!r}: all tasks of a workflow are those of one app"
            )
        if options.job_id is not None and not root:
            raise DispatchError(
                f"{name}: job_id={options.job_id!r}: jobs of a workflow get their ids from it; give one to the whole, "
                f"chain(…).options(job_id={options.job_id!r})"
            )
        if options.key is not None:
            raise DispatchError(
                f"{name}: key={options.key!r}: a job of a workflow is unique as it is; to dispatch the whole once, "
                "give it an id: chain(…).options(job_id=…)"
            )
        if options.connection is not None:
            raise DispatchError(
                f"{name}: connection=…: a workflow cannot be dispatched in your transaction; dispatch one job there, "
                "and the workflow from that"
            )


def _members(what: Group[Any]) -> Iterator[tuple[Any, tuple[Any, ...] | None]]:
    if isinstance(what, Mapped):
        yield from what.signatures()
        return
    for member in what.members:
        yield one_of(member, "a member of a group"), None
