"""Reading a factory: what it provides, what it needs, and how it is called."""

from __future__ import annotations

import contextlib
import functools
import inspect
import types
import typing
from collections import abc
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_origin

import attrs

from camora.dependencies import Dependency, DependencyScope, is_inject

__all__ = ["Need", "Recipe", "Unreadable", "name_of", "read", "replacement", "short"]

_GENERATED = (abc.Iterator, abc.Iterable, abc.Generator, abc.AsyncIterator, abc.AsyncIterable, abc.AsyncGenerator)
_ENTERED = (contextlib.AbstractContextManager, contextlib.AbstractAsyncContextManager)
_FUNCTIONS = (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial, type)


class Unreadable(Exception):
    """A factory that cannot be understood; the text names it and the fix."""


@attrs.frozen
class Need:
    """A parameter of a factory: filled by type. With `optional` its default stands where nobody provides it."""

    kind: Any
    optional: bool
    positional: bool


@attrs.frozen(eq=False)
class Recipe:
    """How one dependency is made.

    `enters`: the factory returns a generator, or a context manager, around the instance. `awaits`: something to await,
    which need not be said of a coroutine.
    """

    kind: Any
    label: str
    scope: DependencyScope
    factory: Callable[..., Any]
    needs: Mapping[str, Need] = attrs.field(factory=dict)
    enters: bool = False
    awaits: bool = False


def name_of(kind: Any) -> str:
    """A type, as a reader of an error wants to see it."""
    return getattr(kind, "__qualname__", None) or str(kind)


def short(label: str) -> str:
    """A factory's label without its module, as it is written in code."""
    return label.rpartition(".")[2]


def read(given: Any) -> Recipe:
    """The recipe of a factory, an instance, or a `dependency(…)`. Raises `Unreadable`."""
    declared = given if isinstance(given, Dependency) else Dependency(given)
    what, provides = declared.factory, declared.provides
    if _is_instance(what, provides):
        label = f"the {name_of(type(what))} that was given"
        kind = type(what) if provides is None else provides
        return Recipe(_looked_up(kind, label), label, declared.scope, lambda: what)
    label = _label(what)
    hints = _hints(what, label)
    generates = _generates(what)
    kind, entered, awaited = _returned(what, hints, generates)
    if provides is None and kind is None:
        raise Unreadable(
            f"{label} does not say what it provides. Write its return annotation, or dependency({short(label)}, "
            "provides=…)"
        )
    return Recipe(
        _looked_up(kind if provides is None else provides, label),
        label,
        declared.scope,
        what,
        _needs(what, hints, label),
        enters=generates or entered,
        awaits=awaited,
    )


def replacement(kind: Any, scope: DependencyScope, factory: Callable[[], Any]) -> Recipe:
    """The recipe of what stands in for a type: called without arguments, whatever its annotations say."""
    return Recipe(kind, f"the override of {name_of(kind)}", scope, factory, enters=_generates(factory))


def _generates(what: Any) -> bool:
    """True for generator functions of either sort, also within `contextmanager` and other decorators."""
    called = inspect.unwrap(what if isinstance(what, _FUNCTIONS) else what.__call__)
    return inspect.isgeneratorfunction(called) or inspect.isasyncgenfunction(called)


def _is_instance(what: Any, provides: Any) -> bool:
    if isinstance(what, _FUNCTIONS):
        return False
    if not callable(what):
        return True
    # A callable object (a mock, say) is an instance where it is one of what it is to provide.
    return isinstance(provides, type) and isinstance(what, provides)


def _label(what: Any) -> str:
    what = what.func if isinstance(what, functools.partial) else what
    name = getattr(what, "__qualname__", None) or type(what).__qualname__
    return f"{getattr(what, '__module__', '') or ''}.{name}".lstrip(".")


def _hints(what: Any, label: str) -> dict[str, Any]:
    """Resolved annotations of what is called."""
    while isinstance(what, functools.partial):
        what = what.func
    if not isinstance(what, (type, types.FunctionType, types.MethodType)):
        what = type(what).__call__
    try:
        return _class_hints(what) if isinstance(what, type) else typing.get_type_hints(what, include_extras=True)
    except NameError as error:
        raise Unreadable(
            f"{label}: an annotation cannot be resolved: {error}. Import the type at module level, where annotations "
            "are read"
        ) from None
    except Exception as error:  # noqa: BLE001 -- annotations in text are code, and raise what they like
        if getattr(what, "__annotations__", None):
            raise Unreadable(f"{label}: an annotation cannot be resolved: {type(error).__name__}: {error}") from None
        return {}  # something built in, which does not say


def _class_hints(cls: type[Any]) -> dict[str, Any]:
    """What the constructor takes."""
    if attrs.has(cls):  # its __init__ is generated elsewhere, where text annotations mean nothing
        fields = typing.get_type_hints(cls, include_extras=True)
        return {field.alias: fields[field.name] for field in attrs.fields(cls) if field.name in fields}
    hints = typing.get_type_hints(cls.__init__, include_extras=True)
    hints.pop("return", None)
    if cls.__init__ is object.__init__ or isinstance(cls.__init__, types.WrapperDescriptorType):
        hints.update(typing.get_type_hints(cls, include_extras=True))  # the constructor is made from the fields
    return hints


def _returned(what: Any, hints: Mapping[str, Any], generates: bool) -> tuple[Any, bool, bool]:
    """What is provided, whether that is a context manager's to give, and whether it is awaited."""
    if isinstance(what, type):
        return what, False, False
    kind = hints.get("return")
    if kind is None or kind is type(None):
        return None, False, False
    origin = get_origin(kind)
    if generates:
        return (get_args(kind)[0] if origin in _GENERATED and get_args(kind) else None), False, False
    if origin in (abc.Awaitable, abc.Coroutine):
        return get_args(kind)[-1], False, True
    if origin in _ENTERED:
        return get_args(kind)[0], True, False
    return kind, False, False


def _needs(what: Any, hints: Mapping[str, Any], label: str) -> dict[str, Need]:
    try:
        parameters = inspect.signature(what).parameters.values()
    except (ValueError, TypeError):  # something built in that does not say
        return {}
    bound = what.keywords if isinstance(what, functools.partial) else {}
    needs = {}
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD) or parameter.name in bound:
            continue
        has_default = parameter.default is not parameter.empty and not is_inject(parameter.default)
        if parameter.name not in hints:
            if has_default:
                continue
            raise Unreadable(
                f"{label}: its parameter {parameter.name!r} has no annotation, so nobody knows what to fill it with. "
                "Annotate it, or give it a default"
            )
        kind, positional = hints[parameter.name], parameter.kind is parameter.POSITIONAL_ONLY
        kind = _looked_up(kind, f"{label}: its parameter {parameter.name!r}")
        needs[parameter.name] = Need(kind, optional=has_default, positional=positional)
    return needs


def _looked_up(kind: Any, label: str) -> Any:
    try:
        hash(kind)
    except TypeError:
        raise Unreadable(f"{label}: {kind!r} cannot be looked up, because it has no hash") from None
    return kind
