"""Declaring dependencies: `dependency` says more of a factory than its annotations do, `inject` marks a parameter."""

from __future__ import annotations

from typing import Any, Literal, get_args

import attrs

from camora.errors import ConfigurationError

__all__ = ["Dependency", "DependencyScope", "dependency", "inject", "is_inject"]

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


_INJECT = _Inject()


def inject() -> Any:
    """A default for an injected parameter, so that type checkers let callers leave it out.

    `async def send(to: str, client: Client = inject()) -> None: ...`
    """
    return _INJECT


def is_inject(value: object) -> bool:
    """True for the default that `inject` returns."""
    return value is _INJECT
