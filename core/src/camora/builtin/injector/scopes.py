"""Where instances live: one scope for an app in each event loop, and one for each job. svcs keeps the instances."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import logging
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from types import TracebackType
from typing import Any

import svcs

from camora.builtin.injector.graph import Graph
from camora.builtin.injector.keeping import Keeper, contained, entered, left, manager_of
from camora.builtin.injector.recipes import Recipe, name_of
from camora.context import Context
from camora.errors import MissingDependency
from camora.interfaces.injector import JobScope
from camora.message import Message

__all__ = ["AppScope", "OneJob", "registry_of"]

_logger = logging.getLogger("camora.injector")


class _Container(svcs.Container):
    """A container that knows its scope, for the factories that svcs calls with it."""

    scope: AppScope | OneJob


def registry_of(graph: Graph) -> svcs.Registry:
    """The recipes as factories of svcs. Context managers are entered by the scopes, which end them in their own way."""
    registry = svcs.Registry()
    for kind, recipe in graph.recipes.items():
        registry.register_factory(kind, _maker(recipe), enter=False)
    return registry


def _maker(recipe: Recipe) -> Any:
    async def make(svcs_container: _Container) -> Any:
        scope = svcs_container.scope
        args, kwargs = [], {}
        for name, need in recipe.needs.items():
            if need.optional and not scope.knows(need.kind):
                continue
            value = await scope.get(need.kind)
            if need.positional:
                args.append(value)
            else:
                kwargs[name] = value
        try:
            made = recipe.factory(*args, **kwargs)
            if recipe.awaits or inspect.iscoroutine(made):
                made = await made
            return await scope.enter(manager_of(made), recipe.label) if recipe.enters else made
        except (Exception, GeneratorExit):
            raise
        except BaseException as error:  # noqa: BLE001 -- a factory that calls sys.exit must not stop the worker
            raise contained(error) from None

    return make


class AppScope:
    """What is made once. Belongs to one event loop; `own` are the types that live here, others live in `parent`."""

    def __init__(self, graph: Graph, registry: svcs.Registry, parent: AppScope | None, own: AbstractSet[Any]) -> None:
        self._graph = graph
        self._parent = parent
        self._own = own
        self._container = _Container(registry)
        self._container.scope = self
        self._pending: dict[Any, asyncio.Task[Any]] = {}
        self._entered: list[tuple[Keeper, str]] = []
        # What is shared must not carry the context variables of the job that happened to ask first.
        self._context = contextvars.copy_context()

    def knows(self, kind: Any) -> bool:
        """True when `get` can answer."""
        recipe = self._graph.recipes.get(kind)
        return recipe is not None and recipe.scope == "app"

    async def get(self, kind: Any) -> Any:
        """The instance: made by the first who asks, while others wait. A failure is not kept."""
        if kind in self._container:
            return await self._container.aget(kind)
        if self._parent is not None and kind not in self._own:
            return await self._parent.get(kind)
        if not self.knows(kind):
            raise MissingDependency(f"nobody provides {name_of(kind)}")
        task = self._pending.get(kind)
        if task is None:
            # In a task of its own: who asked first may be cancelled, and the others wait on.
            making: Any = self._container.aget(kind)
            task = asyncio.get_running_loop().create_task(making, context=self._context.copy())
            self._pending[kind] = task
            task.add_done_callback(lambda done: self._made(kind, done))
        return await asyncio.shield(task)

    def _made(self, kind: Any, task: asyncio.Task[Any]) -> None:
        del self._pending[kind]
        if not task.cancelled():
            task.exception()  # who waits gets it; if nobody does any more, that is no news

    def job(self, context: Context) -> OneJob:
        """A scope for one job."""
        return OneJob(self, self._graph.recipes, self._container.registry, context)

    async def enter(self, manager: Any, label: str) -> Any:
        """Enter a context manager until the scope closes."""
        keeper = Keeper(manager, self._context.copy())
        value = await keeper.enter()
        self._entered.append((keeper, label))
        return value

    async def close(self) -> None:
        """End what was made, in reverse order; errors are logged, and stop nothing."""
        for task in list(self._pending.values()):
            task.cancel()
        if self._pending:
            await asyncio.wait(list(self._pending.values()))
        while self._entered:
            keeper, label = self._entered.pop()
            try:
                await keeper.leave()
            except Exception:
                _logger.exception("the teardown of %s failed", label)
        await self._container.aclose()


class OneJob(JobScope):
    """The scope of one job: a context manager around it, and the way to its dependencies."""

    __slots__ = ("_app", "_container", "_context", "_entered", "_making", "_recipes", "_registry")

    def __init__(self, app: AppScope, recipes: Mapping[Any, Recipe], registry: svcs.Registry, context: Context) -> None:
        self._app = app
        self._recipes = recipes
        self._registry = registry
        self._context = context
        self._container: _Container | None = None
        self._entered: list[tuple[Any, str]] | None = None

    def knows(self, kind: Any) -> bool:
        """True when `get` can answer."""
        return kind is Context or kind is Message or kind in self._recipes

    async def get(self, kind: Any) -> Any:
        """The job's instance, or the app's. Raises what the factory raises, or `MissingDependency`."""
        if kind is Context:
            return self._context
        if kind is Message:
            return self._context.message
        recipe = self._recipes.get(kind)
        if recipe is None:
            raise MissingDependency(f"nobody provides {name_of(kind)}")
        return await self._app.get(kind) if recipe.scope == "app" else await self._own(kind)

    async def _own(self, kind: Any) -> Any:
        if self._container is None:
            self._container = _Container(self._registry)
            self._container.scope = self
            self._making: dict[Any, asyncio.Future[None]] = {}
        # Two parts of one job may ask at the same moment; where the first fails, the second tries itself.
        while (made := self._making.get(kind)) is not None:
            await asyncio.wait((made,))
        if kind in self._container:
            return await self._container.aget(kind)
        made = self._making[kind] = asyncio.get_running_loop().create_future()
        try:
            return await self._container.aget(kind)
        finally:
            del self._making[kind]
            made.set_result(None)

    async def enter(self, manager: Any, label: str) -> Any:
        """Enter a context manager until the job ends."""
        value = await entered(manager)
        if self._entered is None:
            self._entered = []
        self._entered.append((manager, label))
        return value

    async def __aenter__(self) -> JobScope:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Tear down in reverse order, each told about the error.

        A teardown cannot make a failed job succeed. If one fails itself (a commit, say), the job fails with that,
        unless it has failed already: then its own error stands, with a note.
        """
        del kind, trace
        failed: BaseException | None = None
        while self._entered:
            manager, label = self._entered.pop()
            try:
                await left(manager, failed or error)
            except BaseException as later:  # noqa: BLE001 -- the others are torn down all the same
                if later is error or later is failed:
                    continue
                if error is not None:
                    with contextlib.suppress(Exception):
                        error.add_note(f"The teardown of {label} failed, too: {type(later).__name__}: {later}")
                if failed is None:
                    failed = later
        if failed is not None and (error is None or isinstance(failed, asyncio.CancelledError)):
            raise failed if isinstance(failed, Exception) else contained(failed)
