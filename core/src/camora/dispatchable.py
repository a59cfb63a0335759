"""What is dispatched as one: a signature, or what a plugin makes of several."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, overload

from camora.errors import ConfigurationError
from camora.job import Job

__all__ = ["Composer", "Dispatchable", "Partial"]

A_contra = TypeVar("A_contra", contravariant=True)
R_co = TypeVar("R_co", covariant=True)
S = TypeVar("S")


class Composer(Protocol):
    """Makes one thing to dispatch of several; a plugin's (see `Extension.composer`)."""

    def then(self, first: Dispatchable[Any], second: Any) -> Dispatchable[Any]:
        """`first >> second`."""

    def each(self, task: Any, items: Iterable[Any], *, chunk: int | None = None) -> Dispatchable[Any]:
        """`task.map(items)` and `task.chunks(items, size)`."""

    async def dispatch(self, what: Dispatchable[Any]) -> Job[Any]:
        """Dispatch what was composed, or a signature that something follows."""


class Partial(Generic[A_contra, R_co]):
    """For type checkers: a signature whose first argument is the result of the step before it, an `A`.

    `task.s(…)` without its first argument; in truth a `Signature`.
    """

    on_success: Any
    on_failure: Any

    @overload
    def __rshift__(self, other: Partial[R_co, S]) -> Partial[A_contra, S]: ...
    @overload
    def __rshift__(self, other: Dispatchable[S]) -> Partial[A_contra, S]: ...
    def __rshift__(self, other: Any) -> Any:
        """As `Dispatchable`'s: the first of several steps still takes what comes before them."""
        raise NotImplementedError

    def options(self, **options: Any) -> Partial[A_contra, R_co]:
        """As `Signature.options`."""
        raise NotImplementedError


class Dispatchable(ABC, Generic[R_co]):
    """Something that is dispatched as one, and comes to one result."""

    __slots__ = ()

    on_success: Any = None
    """What is dispatched when it has succeeded: gets the result first, unless it is immutable."""
    on_failure: Any = None
    """What is dispatched when it has failed for good, after all its retries."""

    @property
    @abstractmethod
    def port(self) -> Any:
        """Where it is dispatched: the app, as a `DispatchPort`."""

    @overload
    def __rshift__(self, other: Partial[R_co, S]) -> Dispatchable[S]: ...
    @overload
    def __rshift__(self, other: Dispatchable[S]) -> Dispatchable[S]: ...
    def __rshift__(self, other: Any) -> Any:
        """One after the other. Raises `ConfigurationError` where no plugin for workflows is installed."""
        return self.port.composer.then(self, other)

    if not TYPE_CHECKING:  # type checkers know better

        def __or__(self, other: object) -> None:
            raise ConfigurationError(f"{self!r} | …: one after the other is a >> b")

    async def dispatch(self) -> Job[R_co]:
        """Dispatch it now."""
        job: Job[R_co] = await self.port.dispatch_signature(self)
        return job

    def dispatch_sync(self) -> Job[R_co]:
        """Dispatch it now, from code without an event loop; blocks."""
        job: Job[R_co] = self.port.dispatch_signature_sync(self)
        return job
