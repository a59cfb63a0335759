"""The built-in injector: factories by type, on svcs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

import attrs

from camora.builtin.injector.graph import Graph, problems_of
from camora.builtin.injector.recipes import Recipe, name_of
from camora.context import Context
from camora.dependencies import DependencyScope
from camora.errors import ConfigurationError
from camora.interfaces.injector import Injector, JobScope

if TYPE_CHECKING:
    import svcs

    from camora.builtin.injector.scopes import AppScope

__all__ = ["SvcsInjector"]


@attrs.define(eq=False)
class _Layer:
    """A graph with the scopes in which its instances live: the app's own, or one with overrides on top of it."""

    graph: Graph
    parent: _Layer | None = None
    own: frozenset[Any] = frozenset()
    scopes: dict[asyncio.AbstractEventLoop, AppScope] = attrs.field(factory=dict)
    _registry: svcs.Registry | None = None

    def scope(self, loop: asyncio.AbstractEventLoop) -> AppScope:
        found = self.scopes.get(loop)
        if found is None:
            # Only now svcs is imported: most apps have no dependencies.
            from camora.builtin.injector.scopes import AppScope, registry_of

            if self._registry is None:
                self._registry = registry_of(self.graph)
            parent = None if self.parent is None else self.parent.scope(loop)
            found = self.scopes[loop] = AppScope(self.graph, self._registry, parent, self.own)
        return found


class SvcsInjector(Injector):
    """Shares app-scoped instances within one event loop; each loop that opens it has its own."""

    def __init__(self) -> None:
        self._given: list[Any] = []
        self._base: _Layer | None = None
        self._top: _Layer | None = None
        self._layers: list[_Layer] = []
        self._overrides: list[Mapping[Any, Callable[[], Any]]] = []
        self._users: dict[asyncio.AbstractEventLoop, int] = {}

    def add(self, factory: Any) -> None:
        """Take a factory; it is read when something is first asked for, so that its types may be defined later."""
        if factory is None:
            raise ConfigurationError("dependencies: None is no factory; was a call's result meant to be given?")
        if self._users:
            raise ConfigurationError(f"dependencies: {factory!r} comes too late, a worker runs already")
        self._given.append(factory)
        self._base = self._top = None

    def _layer(self) -> _Layer:
        """The layer in force."""
        if self._top is not None:
            return self._top
        if self._base is None:
            self._base = _Layer(Graph.of(self._given))
            self._layers.append(self._base)
        self._top = self._base
        for replacements in self._overrides:
            self._top = self._overridden(self._top, replacements)
            self._layers.append(self._top)
        return self._top

    @staticmethod
    def _overridden(parent: _Layer, replacements: Mapping[Any, Callable[[], Any]]) -> _Layer:
        recipes = {}
        for kind, factory in replacements.items():
            known = parent.graph.recipes.get(kind)
            scope: DependencyScope = "app" if known is None else known.scope
            recipes[kind] = Recipe(kind, f"the override of {name_of(kind)}", scope, factory)
        # What was made from the originals must not be met under the override.
        return _Layer(parent.graph.replaced(recipes), parent, frozenset(parent.graph.dependents(recipes)))

    def provides(self, kind: Any) -> bool:
        """True when there is a factory for exactly this type."""
        try:
            return kind in self._layer().graph.recipes
        except TypeError:  # no hash
            return False

    def problems(self) -> Iterable[str]:
        """What is wrong with the factories: unreadable, doubled, missing, circular, or of the wrong scope."""
        return list(problems_of(self._layer().graph))

    async def open(self) -> None:
        """Take note of the loop."""
        loop = asyncio.get_running_loop()
        self._users[loop] = self._users.get(loop, 0) + 1
        if self._given or self._overrides:
            self._layer().scope(loop)

    def job_scope(self, context: Context) -> AbstractAsyncContextManager[JobScope]:
        """A scope for one job of this loop."""
        layer = self._top or self._layer()
        return layer.scope(asyncio.get_running_loop()).job(context)

    def override(self, replacements: Mapping[Any, Callable[[], Any]]) -> Callable[[], None]:
        """Answer with these instead. What was made from the originals is made anew meanwhile."""
        mine = dict(replacements)
        self._overrides.append(mine)
        self._top = None

        def undo() -> None:
            remaining = [item for item in self._overrides if item is not mine]
            if len(remaining) < len(self._overrides):
                self._overrides = remaining
                self._top = None

        return undo

    async def close(self) -> None:
        """Tear down this loop's instances, when the last who opened it here closes it."""
        loop = asyncio.get_running_loop()
        users = self._users.pop(loop, 1) - 1
        if users > 0:
            self._users[loop] = users
            return
        for layer in reversed(self._layers):
            scope = layer.scopes.pop(loop, None)
            if scope is not None:
                await scope.close()
        self._layers = [layer for layer in self._layers if layer.scopes or layer is self._base or layer is self._top]
