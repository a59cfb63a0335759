"""The injector: who fills the parameters that a payload does not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from camora.context import Context

__all__ = ["Injector", "JobScope"]


class JobScope(ABC):
    """The dependencies of one running job."""

    @abstractmethod
    async def get(self, kind: Any) -> Any:
        """The instance for this type; made at most once per scope. Raises what its factory raises."""


class Injector(ABC):
    """Makes, shares and tears down dependencies. Belongs to the worker's event loop."""

    @abstractmethod
    def add(self, factory: Any) -> None:
        """Take a factory (or a `dependency(…)` around one) while the app is made. Raises `ConfigurationError`."""

    @abstractmethod
    def provides(self, kind: Any) -> bool:
        """True when `get` can answer for this type. No I/O."""

    @abstractmethod
    def problems(self) -> Iterable[str]:
        """What is wrong with the graph of factories (missing, cyclic), one text each. Asked at worker start."""

    @abstractmethod
    async def open(self) -> None:
        """Begin in this loop; nothing is made before it is asked for. Several may open it, and each closes it once."""

    @abstractmethod
    def job_scope(self, context: Context) -> AbstractAsyncContextManager[JobScope]:
        """A scope for one job. Leaving it tears down what is scoped to the job, in reverse order.

        App-scoped instances are shared: made once, even when many jobs ask at the same moment.
        """

    @abstractmethod
    def override(self, replacements: Mapping[Any, Callable[[], Any]]) -> Callable[[], None]:
        """Answer with these factories instead, until the returned function is called. For tests."""

    @abstractmethod
    async def close(self) -> None:
        """Tear down what is scoped to the app in this loop, in reverse order, when the last who opened it closes it."""
