"""What runs jobs in one event loop: pools, injector, and the chain around the function."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import attrs

from camora.binding import Binding
from camora.chain import Link, arrange, compose_execute
from camora.clock import Clock
from camora.context import Context
from camora.errors import ConfigurationError, MissingDependency
from camora.interfaces.codec import Codec
from camora.interfaces.injector import Injector
from camora.interfaces.middleware import Executed, Middleware
from camora.interfaces.pool import Pool, PoolSettings
from camora.links.call import CallFunction
from camora.links.early_ack import EarlyAck
from camora.links.expiry import Expiry
from camora.links.injection import Injection
from camora.links.limits import Limits
from camora.links.results import Results
from camora.links.retries import Retries
from camora.links.slots import Slots
from camora.links.timeouts import Timeouts
from camora.plugins import Catalog
from camora.registry import TaskRegistry
from camora.task import AnyTask
from camora.units import Rate

__all__ = ["FRAMEWORK", "Engine", "EngineParts", "PoolSet"]

FRAMEWORK = ("Results", "Expiry", "Retries", "Limits", "Slots", "EarlyAck", "Timeouts", "Injection", "CallFunction")
"""The names of the framework's own links, which a middleware's `before` and `after` may name."""


@attrs.frozen(kw_only=True)
class EngineParts:
    """What an app gives its engines."""

    catalog: Catalog
    tasks: TaskRegistry
    binding: Binding
    injector: Injector
    result_codec: Codec
    middleware: Sequence[Link]
    retry_policy: object
    pools: Mapping[str, PoolSettings]
    queue_rates: Mapping[str, Rate]
    clock: Clock
    largest_result: int
    headers: frozenset[str]
    """Of messages whose result is needed for what follows, kept or not."""
    reference: str
    """`module:attribute` of the app, for pools whose processes import it; empty when it has none."""


class PoolSet:
    """The pools of one engine: named ones from the settings, and one of each kind that a task needs."""

    def __init__(self, catalog: Catalog, settings: Mapping[str, PoolSettings]) -> None:
        self._catalog = catalog
        self._settings = dict(settings)
        self._pools: dict[str, Pool] = {}
        self._of_task: dict[AnyTask, Pool] = {}

    def of_task(self, task: AnyTask) -> Pool:
        """The pool that runs this task. Raises `ConfigurationError` for an unknown name."""
        pool = self._of_task.get(task)
        if pool is None:
            pool = self._of_task[task] = (
                self._named(task.config.pool, task) if task.config.pool else self._kind(task.execution)
            )
        return pool

    def _named(self, name: str, task: AnyTask) -> Pool:
        if name not in self._settings:
            known = ", ".join(sorted(self._settings)) or "none"
            raise ConfigurationError(f"{task.name}: there is no pool {name!r}; known are: {known}")
        if name not in self._pools:
            settings = self._settings[name]
            self._pools[name] = self._make(settings)
        return self._pools[name]

    def _kind(self, kind: str) -> Pool:
        key = f"<{kind}>"
        if key not in self._pools:
            self._pools[key] = self._make(PoolSettings(kind=kind))
        return self._pools[key]

    def _make(self, settings: PoolSettings) -> Pool:
        pool: Pool = self._catalog.provider("camora_pools", settings.kind).make(settings=settings)
        return pool

    async def open(self, tasks: Sequence[AnyTask]) -> None:
        """Make and open what these tasks need."""
        for task in tasks:
            self.of_task(task)
        for pool in self._pools.values():
            await pool.open()

    @property
    def abandoned(self) -> int:
        """Calls that run on though nobody waits for them."""
        return sum(pool.abandoned for pool in self._pools.values())

    async def close(self, grace: float) -> None:
        """Close all, at the same time."""
        await asyncio.gather(*(pool.close(grace) for pool in self._pools.values()))


class Engine:
    """Belongs to one event loop; opened and closed once."""

    def __init__(self, parts: EngineParts) -> None:
        self._parts = parts
        self.pools = PoolSet(parts.catalog, parts.pools)
        call = CallFunction(parts.binding.parameters_of, self.pools.of_task, parts.clock, parts.reference)
        # Whatever phase a user's link is in, the call itself is innermost.
        self.links = [
            *arrange([*self._framework(), *parts.middleware], elsewhere=("CallFunction",)),
            Link(call, "camora"),
        ]
        self._opened = False
        self._chains: dict[AnyTask, Executed] = {}

    def run(self, context: Context) -> Coroutine[Any, Any, Any]:
        """Run an attempt through the chain around its task, composed when the task is first met."""
        chain = self._chains.get(context.task)
        if chain is None:
            chain = self._chains[context.task] = compose_execute(self.links, context.task)
        return chain(context)

    def _framework(self) -> list[Link]:
        parts, pool_of, parameters_of = self._parts, self.pools.of_task, self._parts.binding.parameters_of
        links: list[Middleware] = [
            Results(parts.result_codec, parts.binding.result_out, parts.largest_result, parts.headers),
            Expiry(parts.clock),
            Retries(parts.retry_policy),
            Limits(parts.queue_rates),
            Slots(pool_of),
            EarlyAck(),
            Timeouts(pool_of),
            Injection(parameters_of, pool_of, parts.injector),
        ]
        return [Link(link, "camora") for link in links]

    async def open(self) -> None:
        """Check every task, then open pools and injector. Raises `ConfigurationError`s, all found at once."""
        tasks = list(self._parts.tasks)
        problems = self._parts.binding.problems(tasks)
        if problems:
            raise MissingDependency("\n".join(problems), problems=problems)
        await self._parts.injector.open()
        self._opened = True
        await self.pools.open(tasks)

    async def close(self, grace: float) -> None:
        """Close pools, then the injector."""
        await self.pools.close(grace)
        if self._opened:
            self._opened = False
            await self._parts.injector.close()
