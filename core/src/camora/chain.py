"""The chain: middleware and the framework's own links, ordered and composed once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Any

import attrs

from camora.context import Context
from camora.errors import ConfigurationError
from camora.interfaces.middleware import PHASES, Executed, Middleware
from camora.message import Message
from camora.task import AnyTask

__all__ = ["Link", "arrange", "compose_dispatch", "compose_execute"]


@attrs.frozen
class Link:
    """One middleware in its place, and where it came from (`camora`, `app` or a plugin's name)."""

    middleware: Middleware
    origin: str

    @property
    def name(self) -> str:
        """The middleware's name."""
        return self.middleware.name


def arrange(links: Iterable[Link], *, elsewhere: Collection[str] = ()) -> list[Link]:
    """Sort links, outermost first: by phase, then as listed, then as `before` and `after` demand.

    `elsewhere` names links that may be referred to though they are not among these.

    Raises `ConfigurationError` for an unknown phase or name, two links of one name, or a cycle.
    """
    listed = list(links)
    for link in listed:
        if not isinstance(link.middleware, Middleware):
            raise ConfigurationError(
                f"middleware {link.middleware!r} is no Middleware: give an instance of a class derived from "
                "camora.Middleware"
            )
        if link.middleware.phase not in PHASES:
            raise ConfigurationError(
                f"{link.name}: unknown phase {link.middleware.phase!r}: one of {', '.join(PHASES)}"
            )
    names = [link.name for link in listed]
    order = sorted(range(len(listed)), key=lambda index: (PHASES.index(listed[index].middleware.phase), index))
    graph: TopologicalSorter[int] = TopologicalSorter({index: set() for index in order})
    for index in order:
        for other in listed[index].middleware.before:
            for target in () if other in elsewhere else _called(other, names, names[index]):
                graph.add(target, index)
        for other in listed[index].middleware.after:
            for target in () if other in elsewhere else _called(other, names, names[index]):
                graph.add(index, target)
    return [listed[index] for index in _stable(graph, order, names)]


def _called(name: str, names: Sequence[str], who: str) -> list[int]:
    found = [index for index, other in enumerate(names) if other == name]
    if not found:
        raise ConfigurationError(f"{who} wants to stand before or after {name!r}; the chain has {', '.join(names)}")
    return found


def _stable(graph: TopologicalSorter[int], order: Sequence[int], names: Sequence[str]) -> list[int]:
    """A topological order that departs from `order` only where it must."""
    try:
        graph.prepare()
    except CycleError as error:
        circle = " → ".join(names[index] for index in error.args[1])
        raise ConfigurationError(f"the middleware's before and after go in a circle: {circle}") from None
    ready: set[int] = set()
    result: list[int] = []
    while graph.is_active():
        ready.update(graph.get_ready())
        first = min(ready, key=order.index)
        ready.remove(first)
        graph.done(first)
        result.append(first)
    return result


def compose_execute(links: Sequence[Link], task: AnyTask) -> Executed:
    """One callable around another, of the links that concern this task.

    The innermost link is the one that calls the function: nothing is inside it.
    """

    async def nothing(context: Context) -> Any:
        raise AssertionError(f"the chain of {context.task.name} has no link that calls the function")

    call: Executed = nothing
    for link in reversed(links):
        if type(link.middleware).execute is not Middleware.execute and link.middleware.concerns(task):
            call = _around_execute(link.middleware, call)
    return call


def _around_execute(middleware: Middleware, call_next: Executed) -> Executed:
    execute = middleware.execute
    # No coroutine of its own: what `execute` makes is handed out as it is.
    return lambda context: execute(context, call_next)


def compose_dispatch(
    links: Sequence[Link], publish: Callable[[Message], Awaitable[Message]]
) -> Callable[[Message], Awaitable[Message]] | None:
    """The dispatch half; None when no link has one, so that nothing is called at all."""
    call, used = publish, False
    for link in reversed(links):
        if type(link.middleware).dispatch is not Middleware.dispatch:
            call, used = _around_dispatch(link.middleware, call), True
    return call if used else None


def _around_dispatch(
    middleware: Middleware, call_next: Callable[[Message], Awaitable[Message]]
) -> Callable[[Message], Awaitable[Message]]:
    dispatch = middleware.dispatch
    return lambda message: dispatch(message, call_next)
