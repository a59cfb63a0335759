"""Secrets: arguments that a task gets as they are, and that are shown to nobody on the way.

`Annotated[str, Secret]` marks a parameter, a field of a task class, or a field of a class that is passed along. What a
task's annotations mark is found when something is about to be shown; a job that succeeds pays nothing for it.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, get_args, get_origin

import attrs

__all__ = ["HIDDEN", "Secret", "Secrets", "hide", "marked_in", "mask_arguments", "secrets_of", "texts_of"]

HIDDEN = "***"
"""What stands where a secret was."""
_SHORTEST = 4
"""Characters; anything shorter would be found everywhere in a text, and hiding it would only show where it was."""
_DEEPEST = 100


class Secret:
    """Marks a value that no log, repr, error or listing may show: `password: Annotated[str, Secret]`."""


@attrs.define(eq=False)
class Mark:
    """Where secrets are in data of one type: the whole of it, or in its fields, items or places."""

    whole: bool = False
    fields: dict[str, Mark] = attrs.field(factory=dict)
    """By field, of a class."""
    places: tuple[Mark | None, ...] = ()
    """By place, of a tuple."""
    items: Mark | None = None
    """Of every item of a collection, or value of a mapping."""

    def matters(self, seen: tuple[Mark, ...] = ()) -> bool:
        """False when there is no secret anywhere in it."""
        if self.whole:
            return True
        inner = [*self.fields.values(), *filter(None, self.places), *([self.items] if self.items else [])]
        return any(mark not in seen and mark.matters((*seen, self)) for mark in inner)

    def inside(self, data: Any) -> Iterator[tuple[Any, Mark | None, Any]]:
        """The parts of a mapping or list, each with its mark."""
        if isinstance(data, Mapping):
            for key, value in data.items():
                yield key, self.fields.get(key, self.items) if isinstance(key, str) else self.items, value
        else:
            for place, value in enumerate(data):
                yield place, self.places[place] if place < len(self.places) else self.items, value


def marked_in(annotation: Any) -> Mark | None:
    """Where secrets are in values of this type; None when nowhere. Never raises."""
    return _significant(_mark(annotation, {}))


def _significant(mark: Mark | None) -> Mark | None:
    return mark if mark is not None and mark.matters() else None


def _mark(annotation: Any, known: dict[Any, Mark]) -> Mark | None:
    if get_origin(annotation) is Annotated:
        inner, *words = get_args(annotation)
        if any(word is Secret or isinstance(word, Secret) for word in words):
            return Mark(whole=True)
        return _mark(inner, known)
    origin, args = get_origin(annotation), get_args(annotation)
    if hasattr(origin or annotation, "get_secret_value"):  # a type that is secret by itself, such as pydantic's
        return Mark(whole=True)
    if args:
        return _mark_generic(origin, args, known)
    if isinstance(annotation, type) and annotation.__module__ != "builtins":
        return _mark_class(annotation, known)
    return None


def _mark_generic(origin: Any, args: tuple[Any, ...], known: dict[Any, Mark]) -> Mark | None:
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return Mark(whole=True) if _hides(args[0], known) else Mark(items=_mark(args[-1], known))
    if origin is tuple and not (len(args) == 2 and args[1] is Ellipsis):
        return Mark(places=tuple(_mark(arg, known) for arg in args))
    if isinstance(origin, type) and issubclass(origin, Iterable) and origin is not type:
        return Mark(items=_mark(args[0], known))
    members = [arg for arg in args if arg is not type(None)]
    if len(members) == 1:
        return _mark(members[0], known)
    # Of a union, the data does not surely tell which member it is; and so for what is not known at all.
    return Mark(whole=True) if any(_hides(arg, known) for arg in members) else None


def _hides(annotation: Any, known: dict[Any, Mark]) -> bool:
    mark = _mark(annotation, known)
    return mark is not None and mark.matters()


def _mark_class(kind: type, known: dict[Any, Mark]) -> Mark | None:
    if kind in known:
        return known[kind]
    is_tuple = issubclass(kind, tuple) and hasattr(kind, "_fields")
    if not (is_tuple or attrs.has(kind) or dataclasses.is_dataclass(kind) or _is_record(kind)):
        return None
    mark = known[kind] = Mark()
    for name, annotation in _hints(kind).items():
        found = _mark(annotation, known)
        if found is not None:
            mark.fields |= dict.fromkeys([name, *_aliases(kind, name)], found)
    if is_tuple:  # it travels as a list
        mark.places = tuple(mark.fields.get(name) for name in kind._fields)  # type: ignore[attr-defined]
    return mark


def _is_record(kind: type) -> bool:
    """Typed dicts, structs, and models."""
    return any(hasattr(kind, name) for name in ("__total__", "__struct_fields__", "model_fields"))


def _aliases(kind: type, name: str) -> Iterator[str]:
    """Other names under which a field may travel."""
    info = getattr(kind, "model_fields", {}).get(name)
    for alias in (getattr(info, which, None) for which in ("alias", "validation_alias", "serialization_alias")):
        choices = getattr(alias, "choices", (alias,))
        yield from (choice for choice in choices if isinstance(choice, str))


def _hints(what: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(what, include_extras=True)
    except Exception:  # noqa: BLE001 -- annotations that cannot be read; whoever calls the task is told so elsewhere
        raw = getattr(what, "__annotations__", {})
        # Rather too much than too little.
        return {name: Annotated[Any, Secret] for name, said in raw.items() if "Secret" in str(said)}


# A task's


@attrs.frozen
class Secrets:
    """Where secrets are in a task's arguments. False when it has none."""

    named: Mapping[str, Mark] = attrs.field(factory=dict)
    order: tuple[str, ...] = ()
    """The parameters that may be given by position."""
    declared: frozenset[str] = frozenset()
    """Every parameter that has a name."""
    rest: Mark | None = None
    rest_named: Mark | None = None

    def __bool__(self) -> bool:
        return bool(self.named or self.rest or self.rest_named)

    def of_place(self, place: int, named: Iterable[str] = ()) -> Mark | None:
        """The mark of a positional argument, beside those that are given by name."""
        free = [name for name in self.order if name not in named]
        return self.named.get(free[place]) if place < len(free) else self.rest

    def of_name(self, name: str) -> Mark | None:
        """The mark of a named argument."""
        return self.named.get(name) if name in self.declared else self.rest_named

    def marked(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Iterator[tuple[Any, Mark]]:
        """The arguments in which there are secrets."""
        for place, value in enumerate(args):
            if (mark := self.of_place(place, kwargs)) is not None:
                yield value, mark
        for name, value in kwargs.items():
            if (mark := self.of_name(name)) is not None:
                yield value, mark

    def texts(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> set[str]:
        """The texts that would give these arguments' secrets away."""
        return {text for value, mark in self.marked(args, kwargs) for text in texts_of(value, mark)}

    def shown(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """The arguments of a call, for a repr; what holds a secret is hidden as a whole."""
        parts = [HIDDEN if self.of_place(place, kwargs) else repr(value) for place, value in enumerate(args)]
        parts += [f"{name}={HIDDEN if self.of_name(name) else repr(value)}" for name, value in kwargs.items()]
        return ", ".join(parts)


_NONE = Secrets()


def secrets_of(function: Any) -> Secrets:
    """Where secrets are in the arguments of a function, or in the fields of a task class. Never raises."""
    try:
        if isinstance(function, type):
            return _of_class(function)
        return _of_function(function)
    except Exception:  # noqa: BLE001 -- what has no signature is no task either
        return _NONE


def _of_class(kind: Any) -> Secrets:
    hints = _hints(kind)
    fields = [field for field in attrs.fields(kind) if field.init]
    named = {field.alias: mark for field in fields if (mark := marked_in(hints.get(field.name)))}
    names = tuple(field.alias for field in fields)
    return Secrets(named, names, frozenset(names)) if named else _NONE


def _of_function(function: Any) -> Secrets:
    hints = _hints(function)
    named: dict[str, Mark] = {}
    order, declared, rest, rest_named = [], set(), None, None
    for parameter in inspect.signature(function).parameters.values():
        mark = marked_in(hints.get(parameter.name))
        if parameter.kind is parameter.VAR_POSITIONAL:
            rest = mark
        elif parameter.kind is parameter.VAR_KEYWORD:
            rest_named = mark
        else:
            declared.add(parameter.name)
            if mark is not None:
                named[parameter.name] = mark
            if parameter.kind is not parameter.KEYWORD_ONLY:
                order.append(parameter.name)
    if not (named or rest or rest_named):
        return _NONE
    return Secrets(named, tuple(order), frozenset(declared), rest, rest_named)


def mask_arguments(task: Any, message: Any) -> dict[str, Any]:
    """A message's `args` and `kwargs` with every secret replaced by `***`: for listings. The message is unchanged.

    `task` is the registered task of that name; None when there is none here. Then nobody knows which arguments are
    secret, and all are hidden.
    """
    if task is None or getattr(task, "is_fallback", False):
        return {"args": [HIDDEN] * len(message.args), "kwargs": dict.fromkeys(message.kwargs, HIDDEN)}
    secrets: Secrets = task.secrets
    args, kwargs = message.args, message.kwargs
    return {
        "args": [_masked(value, secrets.of_place(place, kwargs)) for place, value in enumerate(args)],
        "kwargs": {name: _masked(value, secrets.of_name(name)) for name, value in kwargs.items()},
    }


def _masked(data: Any, mark: Mark | None) -> Any:
    if mark is None or data is None:
        return data
    if mark.whole or not isinstance(data, Mapping | list):
        return HIDDEN
    if isinstance(data, Mapping):
        return {key: _masked(value, inner) for key, inner, value in mark.inside(data)}
    return [_masked(value, inner) for _, inner, value in mark.inside(data)]


# In texts


def texts_of(value: Any, mark: Mark | None = None, depth: int = 0) -> Iterator[str]:
    """The texts by which secrets in plain data, or in a live value, may be recognised. Never raises."""
    if value is None or isinstance(value, bool) or depth > _DEEPEST:
        return
    if mark is not None and not mark.whole:
        if isinstance(value, Mapping | list | tuple):
            for _, inner, item in mark.inside(value):
                if inner is not None:
                    yield from texts_of(item, inner, depth + 1)
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from texts_of(key, None, depth + 1)
            yield from texts_of(item, None, depth + 1)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from texts_of(item, None, depth + 1)
    else:
        yield from _forms(value)


def _forms(value: Any) -> Iterator[str]:
    """A single value as it looks when somebody prints it, quotes it, or writes its bytes."""
    try:
        text = value.decode("utf-8", "replace") if isinstance(value, bytes | bytearray) else str(value)
        quoted = repr(bytes(value))[2:-1] if isinstance(value, bytes | bytearray) else repr(text)[1:-1]
    except Exception:  # noqa: BLE001 -- a stranger's __str__ may do anything
        return
    for form in (text, quoted, ascii(text)[1:-1]):
        if len(form) >= _SHORTEST:
            yield form


def hide(text: str, secrets: Iterable[str]) -> str:
    """The text with each of these replaced by `***`, the longest first."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text
