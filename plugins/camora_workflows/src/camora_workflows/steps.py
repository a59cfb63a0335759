"""`step`: what a job has done is not done again, however often the job is run."""

from __future__ import annotations

import asyncio
import functools
import inspect
import typing
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar, get_args, get_origin, overload

from camora.errors import EncodeError, PayloadError

from camora_workflows.journaling import Running, StepError, running

__all__ = ["step"]

P = ParamSpec("P")
R = TypeVar("R")


@overload
def step(
    name: str, function: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
) -> Coroutine[Any, Any, R]: ...
@overload
def step(
    name: str, function: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs
) -> Coroutine[Any, Any, R]: ...
@overload
def step(name: str, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]: ...
async def step(name: str, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call the function, and remember under this name what it returned: later runs of the job get that at once.

    Inside an async task. A plain function runs in a thread. What comes back is the value after its way into the store
    and out again, by the function's annotated return type; so it is the same in the first run and in all later ones.
    What the function raises is raised here, and nothing is remembered. It may run twice when the worker dies, or the
    store is lost, between its end and the entry: make it idempotent where that matters.

    Raises `StepError` outside of a job, in a process of a pool, for a name that this run has used already, and for a
    value that cannot be stored; `UnsupportedCapability` where no store keeps a journal.
    """
    run = running("step(…)")
    entry = run.once("step", name)
    _check_function(name, function)
    known = (await run.entries()).get(entry)
    kind = _returned(function, run, name)
    if known is None:
        value = await _called(function, args, kwargs)
        known = await run.enter(entry, _encoded(run, name, kind, value))
    return _decoded(run, known, kind)


def _check_function(name: str, function: Any) -> None:
    if inspect.iscoroutine(function):
        function.close()  # or Python would complain of it, too
    if not callable(function):
        raise StepError(f"step({name!r}, …) takes a function, and what to call it with; it got {function!r}")


async def _called(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    if _is_async(function):
        return await function(*args, **kwargs)
    value = await asyncio.to_thread(function, *args, **kwargs)
    return await value if inspect.isawaitable(value) else value


def _is_async(function: Any) -> bool:
    if isinstance(function, functools.partial):
        return _is_async(function.func)
    of_task = getattr(function, "is_async", None)
    if isinstance(of_task, bool):
        return of_task
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _encoded(run: Running, name: str, kind: Any, value: Any) -> bytes:
    if isinstance(value, AsyncIterable) or inspect.isgenerator(value):
        raise StepError(f"the step {name!r} returned {value!r}; return what can be kept, such as a list")
    try:
        return run.host.encode(value, kind)
    except EncodeError as error:
        raise StepError(
            f"the step {name!r} was done, and what it returned cannot be kept: {error}. Return plain "
            "data, or what its return annotation can be made of"
        ) from error


def _decoded(run: Running, encoded: bytes, kind: Any) -> Any:
    try:
        return run.host.decode(encoded, kind)
    except PayloadError:  # an annotation that was meant loosely; as with results
        return run.host.decode(encoded)


def _returned(function: Any, run: Running, name: str) -> Any:
    """The type that the function says it returns; `Any` where it says nothing."""
    if isinstance(function, functools.partial):
        return _returned(function.func, run, name)
    if isinstance(function, type):
        return function
    inner = inspect.unwrap(getattr(function, "function", function))
    if not inspect.isroutine(inner):
        inner = getattr(type(inner), "__call__", inner)  # noqa: B004
    annotation = (getattr(inner, "__annotations__", None) or {}).get("return", Any)

    def holder() -> None: ...

    # By itself: what the parameters are annotated with need not be importable where a step is.
    holder.__annotations__ = {"return": annotation}
    try:
        found = typing.get_type_hints(holder, globalns=getattr(inner, "__globals__", {}), include_extras=True)["return"]
    except NameError as error:
        raise StepError(
            f"the step {name!r}: the return annotation of {inner.__qualname__} cannot be resolved: "
            f"{error}. Import the type at module level"
        ) from None
    if isinstance(get_origin(found), type) and issubclass(get_origin(found), Awaitable):
        return get_args(found)[-1]
    return found
