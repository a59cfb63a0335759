"""Whether what one step returns can be what the next one takes, as far as annotations tell.

Only what cannot possibly fit is refused: an annotation that nobody can judge fits, and so does what might.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

import attrs
from camora.dependencies import is_inject, marked
from camora.errors import PayloadError
from camora.signals import successes
from camora.signature import Signature

from camora_workflows.compose import Chain, Chord, Graph, Group, Mapped, shown

__all__ = ["Before", "Fitting", "fits"]

_UNKNOWN = Any
_SCALARS: Mapping[Any, frozenset[Any]] = {
    int: frozenset({int, float, bool}),
    float: frozenset({int, float, bool}),
    bool: frozenset({int, float, bool}),
    str: frozenset({str}),
}
"""What a value of each may become. Numbers go into each other as far as their values allow."""
_MOST_MEMBERS = 1000
"""So many members of a group are looked at for their types."""


@attrs.frozen
class Before:
    """What came before a step: what it comes to, and what it is called."""

    kind: Any
    text: str


class Fitting:
    """Checks one composition. Remembers what it has read of tasks."""

    def __init__(self) -> None:
        self._results: dict[Any, Any] = {}
        self._firsts: dict[Any, tuple[str, Any] | None] = {}

    def before(self, what: Any) -> Before:
        """What one thing hands to those after it."""
        return Before(self._returns(what), _told(what))

    def before_all(self, several: Sequence[Any]) -> Before:
        """What several hand to the one after all of them: a list."""
        kind = list[_union(self._returns(one) for one in several)]  # type: ignore[misc,valid-type]
        return Before(kind, " and ".join(map(_told, several)))

    def check(self, before: Before | None, step: Signature[Any]) -> None:
        """Raise `PayloadError` where a step cannot take what comes before it; with None, what is told of a failure."""
        task = step.task
        if task not in self._firsts:
            self._firsts[task] = _first_of(task)
        first = self._firsts[task]
        if first is None:
            gets = "what has failed" if before is None else "the result of the step before it"
            raise PayloadError(
                f"{task.name} takes no positional argument, and would get {gets} first; use {task.name}.si(…)",
                task=task.name,
            )
        name, wanted = first
        if before is None and _known(_plain(wanted)):
            raise PayloadError(
                f"{task.name} runs on_failure and gets a FailedStep first, and takes {name}: {_text(wanted)}. "
                f"Annotate it as FailedStep, or use {task.name}.si(…), which gets nothing",
                task=task.name,
                field=name,
            )
        if before is not None and not fits(before.kind, wanted):
            raise PayloadError(
                f"{before.text} comes to {_text(before.kind)}, and {task.name}, which follows, takes {name}: "
                f"{_text(wanted)}. Change one of them; or, if it is not to get that result, use {task.name}.si(…)",
                task=task.name,
                field=name,
            )

    def _returns(self, what: Any) -> Any:
        """What something comes to, as a type; `Any` where that is not known."""
        match what:
            case Signature():
                return self._result_of(what.task)
            case Chain():
                return self._returns(what.steps[-1])
            case Chord():
                return self._returns(what.body)
            case Mapped():
                return list[self._result_of(what.task)]  # type: ignore[misc]
            case Group():
                members = what.members.known
                if not members or len(members) > _MOST_MEMBERS:
                    return list[Any]
                return list[_union(self._returns(member) for member in members)]  # type: ignore[misc]
            case Graph():
                return dict[str, Any]
            case _:
                return _UNKNOWN

    def _result_of(self, task: Any) -> Any:
        if task not in self._results:
            self._results[task] = _result_of(task)
        return self._results[task]


def _result_of(task: Any) -> Any:
    """What the annotated return type says of a success; `Any` where it is not known."""
    function = getattr(task, "function", None)
    if isinstance(function, type):
        function = getattr(function, "execute", None)
    return successes(_hints(function).get("return", _UNKNOWN))


def _first_of(task: Any) -> tuple[str, Any] | None:
    """The name and the annotation of its first parameter, `Any` where that is not known or somebody injects it.

    None for a function that takes nothing by position.
    """
    function = getattr(task, "function", None)
    if function is None or (isinstance(function, type) and getattr(function, "makes_fields", False)):
        return "", _UNKNOWN
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return "", _UNKNOWN
    if not parameters or parameters[0].kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD):
        return None
    parameter = parameters[0]
    annotation, marker = marked(_hints(function).get(parameter.name, _UNKNOWN))
    if marker is not None or is_inject(parameter.default) or parameter.kind is parameter.VAR_POSITIONAL:
        return parameter.name, _UNKNOWN
    return parameter.name, annotation


def fits(given: Any, wanted: Any) -> bool:
    """False only where no value of the one type can be taken for the other."""
    given, wanted = _plain(given), _plain(wanted)
    if given is _UNKNOWN or wanted is _UNKNOWN:
        return True
    if _is_union(given):
        return any(fits(one, wanted) for one in get_args(given))
    if _is_union(wanted):
        return any(fits(given, one) for one in get_args(wanted))
    if given is type(None):
        return wanted is type(None) or not _known(wanted)
    if wanted is type(None):
        return not _known(given)
    if given in _SCALARS and wanted in _SCALARS:
        return wanted in _SCALARS[given]
    a_list, wants_list = _is_list(given), _is_list(wanted)
    if a_list and wants_list:
        return _item_fits(given, wanted)
    a_mapping, wants_mapping = _is_mapping(given), _is_mapping(wanted)
    if a_mapping and wants_mapping:
        values = [get_args(one) for one in (given, wanted)]
        return not all(len(pair) == 2 for pair in values) or fits(values[0][1], values[1][1])
    kinds = (given in _SCALARS, a_list, a_mapping), (wanted in _SCALARS, wants_list, wants_mapping)
    return not (any(kinds[0]) and any(kinds[1]))


def _item_fits(given: Any, wanted: Any) -> bool:
    items = _items(given), _items(wanted)
    if any(not one for one in items):
        return True
    if all(len(one) == 1 for one in items):
        return fits(items[0][0], items[1][0])
    if len(items[0]) == len(items[1]):
        return all(fits(one, other) for one, other in zip(*items, strict=True))
    if len(items[0]) == 1 or len(items[1]) == 1:
        single, many = sorted(items, key=len)
        return all(fits(*pair) for pair in ((one, single[0]) if many is items[0] else (single[0], one) for one in many))
    return False


def _items(kind: Any) -> tuple[Any, ...]:
    """The type of the items of a list, or those of a tuple, one by one."""
    args = get_args(kind)
    return args[:1] if len(args) == 2 and args[1] is Ellipsis else args


def _known(kind: Any) -> bool:
    """Whether it is known which plain values this type is made from, and that None is none of them."""
    return kind in _SCALARS or _is_list(kind) or _is_mapping(kind)


def _is_list(kind: Any) -> bool:
    origin = get_origin(kind) or kind
    return origin in (list, tuple, set, frozenset) or (
        getattr(origin, "__module__", "") == "collections.abc"
        and origin.__name__ in ("Sequence", "Iterable", "Collection", "Set")
    )


def _is_mapping(kind: Any) -> bool:
    origin = get_origin(kind) or kind
    return origin is dict or origin is Mapping


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _plain(kind: Any) -> Any:
    """Without what is only said about it; `Any` for what says nothing."""
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif hasattr(kind, "__supertype__"):
            kind = kind.__supertype__
        else:
            break
    if kind is None:
        return type(None)
    return _UNKNOWN if kind in (object, inspect.Parameter.empty) or isinstance(kind, typing.TypeVar) else kind


def _union(kinds: Iterable[Any]) -> Any:
    """One type for several; `Any` if one of them is."""
    found: dict[Any, None] = {}
    for kind in kinds:
        if _plain(kind) is _UNKNOWN:
            return _UNKNOWN
        found[type(None) if kind is None else kind] = None
    return Union[tuple(found)] if found else _UNKNOWN  # noqa: UP007 -- of any number


def _hints(function: Any) -> Mapping[str, Any]:
    if function is None:
        return {}
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # noqa: BLE001 -- what cannot be read is said where the task is used; here it is not known
        return {}


def _text(kind: Any) -> str:
    if kind is type(None):
        return "None"
    return kind.__name__ if isinstance(kind, type) and not get_args(kind) else str(kind).replace("typing.", "")


def _told(what: Any) -> str:
    return str(what.task.name) if isinstance(what, Signature) else shown(what)
