"""The app's factories with the overrides on top of them, as layers: each with its own instances."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs

from camora.builtin.injector.graph import Graph
from camora.builtin.injector.recipes import replacement
from camora.errors import MissingDependency

if TYPE_CHECKING:
    import svcs

    from camora.builtin.injector.scopes import AppScope

__all__ = ["Layer", "Layers"]


@attrs.define(eq=False)
class Layer:
    """A graph, and the scopes of the loops that use it. What is not in `own` lives in the parent, and is shared."""

    graph: Graph
    parent: Layer | None = None
    own: frozenset[Any] = frozenset()
    scopes: dict[asyncio.AbstractEventLoop, AppScope] = attrs.field(factory=dict)
    _registry: svcs.Registry | None = None

    def scope(self, loop: asyncio.AbstractEventLoop) -> AppScope:
        """The loop's app scope; begun where there is none."""
        found = self.scopes.get(loop)
        if found is None:
            # Only now svcs is imported: most apps have no dependencies.
            from camora.builtin.injector.scopes import AppScope, registry_of

            if self._registry is None:
                self._registry = registry_of(self.graph)
            parent = None if self.parent is None else self.parent.scope(loop)
            found = self.scopes[loop] = AppScope(self.graph, self._registry, parent, self.own)
        return found

    def under(self, replacements: Mapping[Any, Callable[[], Any]]) -> Layer:
        """A layer on top of this one. It makes anew what is replaced, and all that is made from it."""
        recipes = {}
        for kind, factory in replacements.items():
            known = self.graph.recipes.get(kind)
            recipes[kind] = replacement(kind, "app" if known is None else known.scope, factory)
        return Layer(self.graph.replaced(recipes), self, frozenset(self.graph.dependents(recipes)))


@attrs.define(eq=False)
class _Override:
    replacements: Mapping[Any, Callable[[], Any]]
    layer: Layer | None = None


class Layers:
    """The stack of layers. Factories are read when something is first asked for. For any thread."""

    def __init__(self) -> None:
        self._given: list[Any] = []
        self._base: Layer | None = None
        self._overrides: list[_Override] = []
        self._top: Layer | None = None
        self._begun: list[Layer] = []
        # The loops of several threads may ask first at the same moment.
        self._lock = threading.Lock()

    def add(self, factory: Any) -> None:
        """Take a factory, unread."""
        self._given.append(factory)
        self._base = self._top = None

    @property
    def empty(self) -> bool:
        """True when nothing can be provided."""
        return not self._given and not self._overrides

    @property
    def top(self) -> Layer:
        """The layer in force. Raises `MissingDependency` where a factory cannot be read.

        It is then read again the next time: a type may be defined later.
        """
        while (found := self._top) is None:  # again, where an override came in between
            graph = self.graph
            if graph.unreadable:
                raise MissingDependency("\n".join(graph.unreadable), problems=graph.unreadable)
        return found

    @property
    def graph(self) -> Graph:
        """What is provided now, readable or not."""
        with self._lock:
            return self._read() if self._top is None else self._top.graph

    def _read(self) -> Graph:
        if self._base is None:
            graph = Graph.of(self._given)
            if graph.unreadable:
                return graph
            self._base = Layer(graph)
            self._begun.append(self._base)
        layer = self._base
        for override in self._overrides:
            # A layer that stands where it stood keeps its instances.
            if override.layer is None or override.layer.parent is not layer:
                override.layer = layer.under(override.replacements)
                self._begun.append(override.layer)
            layer = override.layer
        self._top = layer
        return layer.graph

    def override(self, replacements: Mapping[Any, Callable[[], Any]]) -> Callable[[], None]:
        """Put a layer on top, until the returned function is called; in whatever order, and again without effect."""
        mine = _Override(dict(replacements))
        with self._lock:
            self._overrides.append(mine)
            self._top = None

        def undo() -> None:
            with self._lock:
                if mine in self._overrides:
                    self._overrides.remove(mine)
                    self._top = None

        return undo

    async def close(self, loop: asyncio.AbstractEventLoop) -> None:
        """End this loop's scopes, the last begun first; also those of overrides that were undone."""
        with self._lock:
            begun = [layer for layer in reversed(self._begun) if loop in layer.scopes]
        for layer in begun:
            await layer.scopes.pop(loop).close()
        with self._lock:
            standing = {self._base, *(override.layer for override in self._overrides)}
            self._begun = [layer for layer in self._begun if layer.scopes or layer in standing]
