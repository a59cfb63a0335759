"""Declaring dependencies: `dependency` says more of a factory than its annotations do, `inject` marks a parameter."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal, get_args, get_origin

import attrs

from camora.errors import ConfigurationError

__all__ = ["Dependency", "DependencyScope", "Marker", "dependency", "inject", "is_inject", "marked"]

DependencyScope = Literal["app", "job"]


@attrs.frozen
class Dependency:
    """What `dependency` returns: a factory, or an instance, with its scope and the type it answers for."""

    factory: Any
    scope: DependencyScope = "app"
    provides: Any = None


def dependency(factory: Any, *, scope: DependencyScope = "app", provides: Any = None) -> Dependency:
    """Say how a dependency is made: `Camora(dependencies=[dependency(get_session, scope="job")])`.

    `factory` is a function (plain or async), a generator function (plain or async: setup, `yield`, teardown), a class,
    or an instance that is there already. With `scope="app"` it is called once per worker process, with `"job"` once for
    each job. `provides` is the type it answers for; by default its return annotation, or the class of an instance.

    Raises `ConfigurationError` for a scope that is neither.
    """
    if scope not in get_args(DependencyScope):
        raise ConfigurationError(
            f"dependency(scope={scope!r}): one of {', '.join(map(repr, get_args(DependencyScope)))}"
        )
    if isinstance(factory, Dependency):
        raise ConfigurationError(f"dependency({factory!r}): it is a dependency already; give scope and provides there")
    return Dependency(factory, scope, provides)


class _Inject:
    def __repr__(self) -> str:
        return "inject()"

    def __getattr__(self, name: str) -> Any:
        # Met where the function was called directly, not run as a job.
        raise AttributeError(
            f"no {name!r}: inject() stands for what Camora passes when it runs the job; a direct call passes it itself"
        )


class Marker(ABC):
    """Stands in `Annotated[T, …]` beside the type of a dependency, and wraps the run of the job that is given it.

    As a class, or as an object of it: `session: Annotated[Session, Inbox]`. For jobs in this process only.
    """

    @abstractmethod
    async def around(self, context: Any, value: Any, call_next: Callable[[], Awaitable[Any]]) -> Any:
        """Run the job by `call_next`, or not; what it returns is the job's result. `value` is the dependency."""


def marked(annotation: Any) -> tuple[Any, Marker | None]:
    """The annotation without its marker, and that marker."""
    if get_origin(annotation) is not Annotated:
        return annotation, None
    kind, *notes = get_args(annotation)
    found = [note for note in notes if isinstance(note, Marker) or _is_marker(note)]
    if not found:
        return annotation, None
    others = tuple(note for note in notes if note not in found)
    marker = found[0]() if isinstance(found[0], type) else found[0]
    return (Annotated[(kind, *others)] if others else kind), marker


def _is_marker(note: Any) -> bool:
    return isinstance(note, type) and issubclass(note, Marker)


_INJECT = _Inject()


def inject() -> Any:
    """A default for an injected parameter, so that type checkers let callers leave it out.

    `async def send(to: str, client: Client = inject()) -> None: ...`
    """
    return _INJECT


def is_inject(value: object) -> bool:
    """True for the default that `inject` returns."""
    return value is _INJECT
