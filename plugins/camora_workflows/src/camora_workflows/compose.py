"""What is dispatched as one, as it is put together: chains, groups, chords and graphs. Nothing here does I/O.

A composition refers to what it was made of and never changes it, so its parts can be used again. Only an iterator can
be gone through just once: a group of one is dispatched once.
"""

from __future__ import annotations

import copy
import inspect
import itertools
from collections.abc import AsyncIterable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Self, TypeVar

import attrs
from camora.dispatchable import Dispatchable
from camora.errors import ConfigurationError, DispatchError
from camora.signature import Signature

if TYPE_CHECKING:
    from camora_workflows.handle import WorkflowJob

__all__ = ["Chain", "Chord", "Composed", "Graph", "GraphNode", "Group", "Mapped", "Members", "one_of", "shown"]

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class Composed(Dispatchable[R_co]):
    """Several jobs that are dispatched as one. `await …dispatch()` answers with a `WorkflowJob`."""

    kind: ClassVar[str]
    job_id: str | None = None
    """The id of the whole, where it was asked for."""

    if TYPE_CHECKING:  # it is the composer of the app that makes the handle

        async def dispatch(self) -> WorkflowJob[R_co]:
            """Dispatch it now."""

        def dispatch_sync(self) -> WorkflowJob[R_co]:
            """Dispatch it now, from code without an event loop; blocks."""

        def options(self, *, job_id: str | None) -> Self:
            """The same with an id for the whole: dispatching twice under one id is dispatching once.

            Options of its jobs are given to their signatures. Raises `ConfigurationError` for such a one.
            """

    else:  # the types of the base are the better ones, and type checkers know what is misspelt

        def __setattr__(self, name: str, value: Any) -> None:
            if name.startswith("on_") and name not in ("on_failure", "on_success"):  # it would be forgotten
                raise AttributeError(f"{name} of {self!r}: what follows it is on_success or on_failure")
            super().__setattr__(name, value)

        def options(self, *, job_id: str | None = None, **others: Any) -> Self:
            """As type checkers see it."""
            for name in others:
                raise ConfigurationError(
                    f"{self!r}: options({name}=…): the whole has one option, job_id; give others to the signatures in "
                    f"it: task.options({name}=…).s(…)"
                )
            made = self._copied()
            made.job_id = job_id
            return made

        def __rshift__(self, other: Any) -> Any:
            """One after the other; an empty group, which knows no app, can be composed, too."""
            return Chain([self, one_of(other, f"what comes after {self!r}")])

    @property
    def followed(self) -> bool:
        """True when something follows it, or it has an id: then it is one step in what it becomes part of."""
        return self.on_success is not None or self.on_failure is not None or self.job_id is not None

    def _copied(self) -> Self:
        return copy.copy(self)

    def _then(self, on_success: Any, on_failure: Any) -> None:
        if on_success is not None:
            self.on_success = one_of(on_success, "on_success")
        if on_failure is not None:
            self.on_failure = one_of(on_failure, "on_failure")


class Chain(Composed[R_co]):
    """One after the other: each gets the result of the one before it first."""

    kind = "chain"

    def __init__(self, steps: Iterable[Any], *, on_success: Any = None, on_failure: Any = None) -> None:
        self.steps = tuple(_flat(one_of(step, "a step of a chain") for step in steps))
        if not self.steps:
            raise ConfigurationError("this chain has no steps: give it signatures, chain(a.s(1), b.s())")
        self._then(on_success, on_failure)

    @property
    def port(self) -> Any:
        """The app of its first step that knows one."""
        return _port_of(self, self.steps)

    def __repr__(self) -> str:
        return " >> ".join(shown(step) for step in self.steps)


class Group(Composed[list[R]], Generic[R]):
    """Side by side: comes to the list of their results, in their order. Members are looked at when it is dispatched."""

    kind = "group"

    def __init__(self, members: Iterable[Any], *, on_success: Any = None, on_failure: Any = None) -> None:
        self.members = Members(members)
        self._then(on_success, on_failure)

    @property
    def port(self) -> Any:
        """The app of its first member."""
        return _port_of(self, [one_of(member, "a member of a group") for member in self.members.ahead()])

    def __repr__(self) -> str:
        return f"group({self.members!r})"


class Mapped(Group[R]):
    """A task for each of many items; or for as many at once as `chunk` says. They have their items already."""

    kind = "map"

    def __init__(self, task: Any, items: Iterable[Any], *, chunk: int | None = None) -> None:
        what = f"{task.name}.{'map' if chunk is None else 'chunks'}"
        if not isinstance(items, Iterable):
            raise ConfigurationError(f"{what}({items!r}): give an iterable of items, such as a list")
        if chunk is not None and (type(chunk) is not int or chunk < 1):
            raise ConfigurationError(f"{what}(…, {chunk!r}): how many items go into one job; a whole number from 1")
        self.task = task
        self.chunk = chunk
        self.members = Members(items)

    @property
    def port(self) -> Any:
        """The app, as the task knows it."""
        return self.task.port

    def signatures(self) -> Iterator[tuple[Signature[Any], tuple[Any, ...] | None]]:
        """One signature for each job, and the items of a chunk. Raises `DispatchError` as `Members`."""
        if self.chunk is None:
            for item in self.members:
                yield Signature(self.task, (item,), {}, immutable=True), None
            return
        items = iter(self.members)
        while chunk := tuple(itertools.islice(items, self.chunk)):
            yield Signature(self.task, (chunk[0],), {}, immutable=True), chunk

    def __repr__(self) -> str:
        known = self.members.known
        items = "…" if known is None else f"{len(known)} items"
        name = self.task.name
        return f"{name}.map({items})" if self.chunk is None else f"{name}.chunks({items}, {self.chunk})"


class Chord(Composed[R_co]):
    """A group, and then a body, which gets the list of all results, once."""

    kind = "chord"

    def __init__(self, header: Any, body: Any, *, on_success: Any = None, on_failure: Any = None) -> None:
        self.header: Any = header if isinstance(header, Dispatchable) else Group(header)
        self.body = one_of(body, "the body of a chord")
        self._then(on_success, on_failure)

    @property
    def port(self) -> Any:
        """The app of its body, or of its first member."""
        return _port_of(self, (self.body, self.header))

    def __repr__(self) -> str:
        return f"chord({shown(self.header)}, {shown(self.body)})"


@attrs.frozen
class GraphNode:
    """One node of a graph, as it was added."""

    what: Any
    after: tuple[str, ...]
    on_success: Any
    on_failure: Any


class Graph(Composed[dict[str, Any]]):
    """Jobs that wait for each other by name; comes to a mapping of all their results.

    `Graph().add("a", a.s(1)).add("b", b.s(), after=["a"])`
    """

    kind = "graph"

    def __init__(self, *, on_success: Any = None, on_failure: Any = None) -> None:
        self.nodes: dict[str, GraphNode] = {}
        self._then(on_success, on_failure)

    def add(
        self, name: str, what: Any, *, after: Iterable[str] = (), on_success: Any = None, on_failure: Any = None
    ) -> Self:
        """Add a node: a signature, or anything else that can be dispatched. Returns the graph itself.

        It begins when those that it comes `after` have succeeded, and gets their results first: the one result, or the
        list of several in the order of `after`. `after` may name nodes that are added later; names are looked at when
        the graph is dispatched. Raises `ConfigurationError` for a name that is taken.
        """
        if not name or type(name) is not str:
            raise ConfigurationError(f"add({name!r}, …): a node's name is a text")
        where = f"node {name!r}"
        if name in self.nodes:
            raise ConfigurationError(f"{where} is there already; names in a graph are unique")
        if isinstance(after, str):
            raise ConfigurationError(f"{where}: after={after!r}: give a list of names, after=[{after!r}]")
        names = tuple(after)
        for one in names:
            if names.count(one) > 1:
                raise ConfigurationError(f"{where}: after= names {one!r} twice")
        self.nodes[name] = GraphNode(
            one_of(what, where),
            names,
            None if on_success is None else one_of(on_success, f"on_success of {where}"),
            None if on_failure is None else one_of(on_failure, f"on_failure of {where}"),
        )
        return self

    def ordered(self) -> list[str]:
        """The names, each after those it waits for; else in the order in which they were added.

        Raises `DispatchError` for an unknown name, and for a cycle.
        """
        for name, node in self.nodes.items():
            for other in node.after:
                if other not in self.nodes:
                    known = ", ".join(map(repr, self.nodes))
                    raise DispatchError(
                        f"graph: node {name!r} comes after {other!r}, which is no node; there are {known}"
                    )
        done: dict[str, None] = {}
        for root in self.nodes:
            path = [root]
            while path:
                name = path[-1]
                open_ = next((other for other in self.nodes[name].after if other not in done), None)
                if open_ is None:
                    done[name] = None
                    path.pop()
                elif open_ in path:
                    circle = " after ".join(map(repr, [*path[path.index(open_) :], open_]))
                    raise DispatchError(f"graph: these nodes wait for each other: {circle}")
                else:
                    path.append(open_)
        return list(done)

    def _copied(self) -> Self:
        made = super()._copied()
        made.nodes = dict(self.nodes)
        return made

    @property
    def port(self) -> Any:
        """The app of its first node that knows one."""
        return _port_of(self, [node.what for node in self.nodes.values()])

    def __repr__(self) -> str:
        return f"Graph({', '.join(self.nodes)})"


class Members:
    """What was given to a group, gone through when it is dispatched: once, if it is an iterator."""

    def __init__(self, given: Iterable[Any]) -> None:
        if isinstance(given, AsyncIterable):
            raise ConfigurationError("a group takes a plain iterable; collect an asynchronous one first")
        if not isinstance(given, Iterable):
            raise ConfigurationError(f"{given!r} is no member of a group: give signatures, or an iterable of them")
        self._given: Iterable[Any] = given if isinstance(given, Iterator) else _kept(given)
        self._ahead: list[Any] = []
        self._gone = False

    @property
    def known(self) -> Sequence[Any] | None:
        """All of them, where looking at them takes nothing away."""
        return self._given if isinstance(self._given, Sequence) else None

    def ahead(self) -> Sequence[Any]:
        """The first of them, which stays, if there is one. Raises as going through them does."""
        if not isinstance(self._given, Iterator):
            return list(itertools.islice(self._given, 1))
        self._check()
        if not self._ahead:
            self._ahead.extend(itertools.islice(self._given, 1))
        return self._ahead

    def __iter__(self) -> Iterator[Any]:
        if not isinstance(self._given, Iterator):
            return iter(self._given)
        self._check()
        self._gone = True
        ahead, self._ahead = self._ahead, []
        return itertools.chain(ahead, self._given)

    def _check(self) -> None:
        if self._gone:
            raise DispatchError(
                "this group was made of an iterator, which has been gone through: make it anew, or give it a list"
            )

    def __repr__(self) -> str:
        known = self.known
        if known is None:
            return "…"
        return ", ".join([shown(member) for member in known[:3]] + ["…"] * (len(known) > 3))


def one_of(what: Any, where: str) -> Any:
    """What can be part of a workflow. Raises `ConfigurationError` that says what is meant, else."""
    if type(what) is Signature or isinstance(what, Dispatchable):
        return what
    hint = "give a signature, such as task.s(1)"
    if hasattr(what, "s"):
        hint = f"that is the task itself; give a signature: {getattr(what, 'name', 'task.options(…)')}.s(…)"
    elif inspect.iscoroutine(what):
        what.close()  # nobody will await it: this error says so
        hint = f"that is a call, which runs here and now; give a signature: {what.__name__}.s(…)"
    elif inspect.isroutine(what):
        hint = "that is a plain function; declare it with @app.task, and give a signature: name.s(…)"
    elif isinstance(what, Iterable) and not isinstance(what, (str, bytes)):
        hint = "several at once are a group: group(…)"
    raise ConfigurationError(f"{where} is {what!r}: {hint}")


def shown(what: Any) -> str:
    """In few words, without arguments, of which some may be secret."""
    if isinstance(what, Signature):
        return f"{what.task.name}.{'si' if what.immutable else 's'}()"
    return repr(what) if isinstance(what, Composed) else type(what).__name__


def _flat(steps: Iterable[Any]) -> Iterator[Any]:
    """A chain in a chain is the same as its steps, unless something hangs on it."""
    for step in steps:
        if type(step) is Chain and not step.followed:
            yield from step.steps
        else:
            yield step


def _kept(given: Iterable[Any]) -> Iterable[Any]:
    """A list may be changed by its owner before the group is dispatched; that would be surprising."""
    return tuple(given) if isinstance(given, list) else given


def _port_of(what: Any, parts: Sequence[Any]) -> Any:
    for part in parts:
        try:
            return part.port
        except NoAppError:
            continue
    raise NoAppError(f"{what!r} holds no signature that knows its app: dispatch it by  await app.dispatch(…)")


class NoAppError(DispatchError):
    """Nothing in it knows an app, such as an empty group."""
