"""The graph of factories, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from camora.builtin.injector.recipes import Recipe, Unreadable, name_of, read, short
from camora.context import Context
from camora.message import Message

__all__ = ["Graph", "problems_of"]

GIVEN = (Context, Message)
"""What every job-scoped factory may ask for without anybody providing it."""


class Graph:
    """The recipes of an app by the type they provide. Immutable."""

    def __init__(
        self, recipes: Mapping[Any, Recipe], unreadable: Iterable[str] = (), doubled: Iterable[str] = ()
    ) -> None:
        self.recipes = dict(recipes)
        self.unreadable = tuple(unreadable)
        """One text for each factory of which nobody knows what it provides."""
        self.doubled = tuple(doubled)
        """One text for each factory that provides what another provides already."""

    @classmethod
    def of(cls, given: Iterable[Any]) -> Graph:
        """Read everything, noting what cannot be read."""
        recipes: dict[Any, Recipe] = {}
        unreadable, doubled = [], []
        for item in given:
            try:
                recipe = read(item)
            except Unreadable as error:
                unreadable.append(str(error))
                continue
            known = recipes.setdefault(recipe.kind, recipe)
            if known is not recipe:
                kind = name_of(recipe.kind)
                doubled.append(
                    f"{known.label} and {recipe.label} both provide {kind}. Remove one, or tell them apart: "
                    f'provides=Annotated[{kind}, "a name"]'
                )
        return cls(recipes, unreadable, doubled)

    def replaced(self, recipes: Mapping[Any, Recipe]) -> Graph:
        """The same graph with some recipes replaced."""
        return Graph({**self.recipes, **recipes}, self.unreadable, self.doubled)

    def dependents(self, kinds: Iterable[Any]) -> set[Any]:
        """These types, and all that are made from them, directly or not."""
        found = set(kinds)
        while True:
            more = {
                kind
                for kind, recipe in self.recipes.items()
                if kind not in found and any(need.kind in found for need in recipe.needs.values())
            }
            if not more:
                return found
            found |= more


def problems_of(graph: Graph) -> Iterator[str]:
    """What keeps the graph from working, one text each, naming the factory and the fix."""
    yield from graph.unreadable
    yield from graph.doubled
    for recipe in graph.recipes.values():
        yield from _wrong_needs(recipe, graph.recipes)
    yield from _cycles(graph.recipes)


def _wrong_needs(recipe: Recipe, recipes: Mapping[Any, Recipe]) -> Iterator[str]:
    for name, need in recipe.needs.items():
        kind, provider = name_of(need.kind), recipes.get(need.kind)
        for_job = need.kind in GIVEN or (provider is not None and provider.scope == "job")
        if for_job and recipe.scope == "app":
            yield (
                f"{recipe.label} is made once for the app, but its parameter {name!r} asks for {kind}, which belongs "
                f'to one job. Declare it as dependency({short(recipe.label)}, scope="job")'
            )
        elif provider is None and not for_job and not need.optional:
            yield (
                f"{recipe.label}: nobody provides {kind} for its parameter {name!r}. Add a factory to "
                f"Camora(dependencies=[…]) whose return annotation is {kind}{_near(need.kind, recipes)}"
            )


def _near(kind: Any, recipes: Mapping[Any, Recipe]) -> str:
    """A hint, where a relative of the type is provided: only the exact type counts."""
    for known, recipe in recipes.items():
        if isinstance(kind, type) and isinstance(known, type) and (issubclass(known, kind) or issubclass(kind, known)):
            return (
                f". ({recipe.label} provides {name_of(known)}; only the exact type counts: "
                f"dependency({short(recipe.label)}, provides={name_of(kind)}))"
            )
    return ""


def _cycles(recipes: Mapping[Any, Recipe]) -> Iterator[str]:
    seen: set[Any] = set()

    def visit(kind: Any, path: tuple[Any, ...]) -> Iterator[str]:
        if kind in path:
            circle = (*path[path.index(kind) :], kind)
            yield (
                f"{' needs '.join(recipes[item].label for item in circle)}: a circle. Let one of them get what it "
                "needs later, in a method, instead of as a parameter"
            )
            return
        if kind in seen or kind not in recipes:
            return
        seen.add(kind)
        for need in recipes[kind].needs.values():
            yield from visit(need.kind, (*path, kind))

    for kind in recipes:
        yield from visit(kind, ())
