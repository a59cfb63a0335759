"""The built-in injector: factories by type, on svcs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from camora.builtin.injector.graph import problems_of
from camora.builtin.injector.layers import Layers
from camora.context import Context
from camora.errors import ConfigurationError
from camora.interfaces.injector import Injector, JobScope

__all__ = ["SvcsInjector"]


class SvcsInjector(Injector):
    """Shares app-scoped instances within one event loop; each loop that opens it has its own."""

    def __init__(self) -> None:
        self._layers = Layers()
        self._users: dict[asyncio.AbstractEventLoop, int] = {}

    def add(self, factory: Any) -> None:
        """Take a factory; it is read when something is first asked for, so that its types may be defined later."""
        if factory is None:
            raise ConfigurationError("dependencies: None is no factory; was a call's result meant to be given?")
        if self._users:
            raise ConfigurationError(f"dependencies: {factory!r} comes too late, a worker runs already")
        self._layers.add(factory)

    def provides(self, kind: Any) -> bool:
        """True when there is a factory for exactly this type.

        Raises `MissingDependency` where a factory cannot be read: it might be the one, and a guess would make a
        parameter that is to be injected one that is sent.
        """
        recipes = self._layers.top.graph.recipes
        try:
            return kind in recipes
        except TypeError:  # no hash
            return False

    def problems(self) -> Iterable[str]:
        """What is wrong with the factories: unreadable, doubled, missing, circular, or of the wrong scope."""
        return list(problems_of(self._layers.graph))

    async def open(self) -> None:
        """Take note of the loop. Raises `MissingDependency` where a factory cannot be read."""
        loop = asyncio.get_running_loop()
        if not self._layers.empty:
            # Begun here, and not by the first job, for the context variables: what is shared carries none of a job.
            self._layers.top.scope(loop)
        self._users[loop] = self._users.get(loop, 0) + 1

    def job_scope(self, context: Context) -> AbstractAsyncContextManager[JobScope]:
        """A scope for one job of this loop."""
        return self._layers.top.scope(asyncio.get_running_loop()).job(context)

    def override(self, replacements: Mapping[Any, Callable[[], Any]]) -> Callable[[], None]:
        """Answer with these instead. What was made from the originals is made anew meanwhile.

        What is made under an override is forgotten when it is undone, and torn down at `close`.
        """
        return self._layers.override(replacements)

    async def close(self) -> None:
        """Tear down this loop's instances, when the last who opened it here closes it."""
        loop = asyncio.get_running_loop()
        users = self._users.pop(loop, 1) - 1
        if users > 0:
            self._users[loop] = users
        else:
            await self._layers.close(loop)
