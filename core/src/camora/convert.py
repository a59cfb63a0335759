"""Rich values as plain data, and plain data as the annotated types: cattrs, made strict.

cattrs by itself turns "5" into 5 where an int is annotated. A payload comes from elsewhere, so here nothing is guessed:
a value has the annotated type or is an error that names its place.
"""

from __future__ import annotations

import base64
import binascii
import enum
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints
from uuid import UUID

from cattrs import Converter
from cattrs.cols import is_namedtuple
from cattrs.errors import StructureHandlerNotFoundError
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from camora.explaining import Placed, misfitting
from camora.interfaces.types import Misfit, TypeSupport

__all__ = ["Conversion"]

Hook = Callable[[Any], Any]
_PLAIN: dict[type, str] = {int: "int", str: "str", bool: "bool", float: "float"}
_TAG, _VALUE = "$type", "$value"


def _wrong(expected: str, value: Any) -> ValueError:
    text = repr(value)
    shown = text if len(text) <= 60 else f"{text[:57]}..."
    return ValueError(f"expected {expected}, got {shown} ({type(value).__name__})")


def _exactly(kind: type) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        if type(value) is kind:
            return value
        raise _wrong(kind.__name__, value)

    return structure


def _float(value: Any, _: Any) -> float:
    if type(value) is float:
        return value
    if type(value) is int:
        return float(value)
    raise _wrong("float", value)


def _from_text(name: str, parse: Callable[[str], Any]) -> Callable[[Any, Any], Any]:
    def structure(value: Any, _: Any) -> Any:
        if isinstance(value, str):
            try:
                return parse(value)
            except (ValueError, InvalidOperation, binascii.Error):
                pass
        raise _wrong(name, value)

    return structure


def _timedelta(value: Any, _: Any) -> timedelta:
    if type(value) in (int, float):
        return timedelta(seconds=value)
    raise _wrong("a duration in seconds", value)


def _decode64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


_TEXTS: dict[type, tuple[str, Callable[[str], Any], Callable[[Any], str]]] = {
    datetime: ("an ISO 8601 datetime", datetime.fromisoformat, datetime.isoformat),
    date: ("an ISO 8601 date", date.fromisoformat, date.isoformat),
    time: ("an ISO 8601 time", time.fromisoformat, time.isoformat),
    UUID: ("a UUID", UUID, str),
    Decimal: ("a decimal number as text", Decimal, str),
    bytes: ("bytes in base64", _decode64, lambda value: base64.b64encode(value).decode()),
}


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)


def _is_rich_union(kind: Any) -> bool:
    """A union in which the data alone would not say which member it is."""
    return _is_union(kind) and len([member for member in get_args(kind) if member is not type(None)]) > 1


def _is_mapping(kind: Any) -> bool:
    origin = get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, Mapping) and len(get_args(kind)) == 2


def _class_of(kind: Any) -> Any:
    """What values of this type are instances of."""
    if get_origin(kind) is Annotated:
        return _class_of(get_args(kind)[0])
    return get_origin(kind) or kind


def _member_name(kind: Any) -> str:
    return getattr(kind, "__qualname__", None) or str(kind)


class Conversion:
    """One app's converter. `supports` convert the types of other libraries."""

    def __init__(self, supports: Iterable[TypeSupport] = ()) -> None:
        self._supports = tuple(supports)
        self.converter = Converter(
            forbid_extra_keys=True,
            unstruct_collection_overrides={set: list, frozenset: list},
            structure_fallback_factory=_no_data,
        )
        register = self.converter.register_structure_hook
        for plain in (int, str, bool):
            register(plain, _exactly(plain))
        register(float, _float)
        for kind, (name, parse, show) in _TEXTS.items():
            register(kind, _from_text(name, parse))
            self.converter.register_unstructure_hook(kind, show)
        register(timedelta, _timedelta)
        self.converter.register_unstructure_hook(timedelta, timedelta.total_seconds)
        self.converter.register_structure_hook_func(
            lambda kind: isinstance(kind, type) and issubclass(kind, PurePath),
            lambda value, kind: _from_text("a path", kind)(value, kind),
        )
        self.converter.register_unstructure_hook_func(
            lambda kind: isinstance(kind, type) and issubclass(kind, PurePath), str
        )
        self.converter.register_structure_hook(Path, _from_text("a path", Path))
        self.converter.register_structure_hook_func(
            lambda kind: isinstance(kind, type) and issubclass(kind, enum.Enum), _enum
        )
        self.converter.register_structure_hook_factory(_is_rich_union, self._structure_union)
        self.converter.register_unstructure_hook_factory(_is_rich_union, self._unstructure_union)
        self.converter.register_structure_hook_factory(_is_mapping, self._structure_mapping)
        self.converter.register_unstructure_hook_factory(_is_mapping, self._unstructure_mapping)
        self.converter.register_structure_hook_factory(_is_deferred_dataclass, self._structure_dataclass)
        self.converter.register_unstructure_hook_factory(_is_deferred_dataclass, self._unstructure_dataclass)
        self.converter.register_structure_hook_factory(is_namedtuple, self._structure_namedtuple)
        self.converter.register_unstructure_hook_factory(is_namedtuple, self._unstructure_namedtuple)
        self.converter.register_structure_hook_factory(_is_sequence, self._structure_sequence)
        self.converter.register_unstructure_hook_factory(_is_sequence, self._unstructure_sequence)
        for support in self._supports:  # the last that is registered is the first that is asked
            self._register(support)
        self.structurer = lru_cache(maxsize=None)(self._structurer)
        self.unstructurer = lru_cache(maxsize=None)(self._unstructurer)

    def _structurer(self, annotation: Any) -> Hook | None:
        """A function from plain data to this type; None where data already is what is annotated (`Any`).

        Raises `StructureHandlerNotFoundError` for types that cannot be made from data.
        """
        if annotation is Any or annotation is object:
            return None
        hook = self.converter.get_structure_hook(annotation)
        return lambda value: hook(value, annotation)

    def _unstructurer(self, annotation: Any) -> Hook:
        """A function from a value of this type to plain data."""
        if annotation is Any or annotation is object:
            return self.converter.unstructure
        return self.converter.get_unstructure_hook(annotation)

    def travels(self, annotation: Any) -> bool:
        """True when values of this type can be made from a payload."""
        if annotation in (Any, object, None):
            return True
        try:
            self.structurer(annotation)
        except (StructureHandlerNotFoundError, TypeError, NameError):
            return False
        return True

    def support_of(self, annotation: Any) -> TypeSupport | None:
        """Who converts this type, when it is another library's."""
        return next((support for support in reversed(self._supports) if support.knows(annotation)), None)

    def _register(self, support: TypeSupport) -> None:
        others = _Others(self)

        def structure(kind: Any) -> Callable[[Any, Any], Any]:
            hook = support.structurer(kind, others)
            return lambda value, _: hook(value)

        def unstructure(kind: Any) -> Hook:
            return support.unstructurer(kind, others)

        self.converter.register_structure_hook_factory(support.knows, structure)
        self.converter.register_unstructure_hook_factory(support.knows, unstructure)

    # A union's member that plain data does not tell by itself travels as {"$type": name, "$value": data}.

    def _union_members(self, kind: Any) -> dict[str, Any]:
        return {_member_name(member): member for member in get_args(kind)}

    def _unstructure_union(self, kind: Any) -> Hook:
        members = [(_class_of(member), name, member) for name, member in self._union_members(kind).items()]

        def unstructure(value: Any) -> Any:
            if value is None or type(value) in _PLAIN:
                return value
            for exact in (True, False):
                for origin, name, member in members:
                    if isinstance(origin, type) and (type(value) is origin if exact else isinstance(value, origin)):
                        return {_TAG: name, _VALUE: self.unstructurer(member)(value)}
            raise _wrong(str(kind), value)

        return unstructure

    def _structure_union(self, kind: Any) -> Callable[[Any, Any], Any]:
        members = self._union_members(kind)
        plain = {member for member in members.values() if isinstance(member, type)}

        def structure(value: Any, _: Any) -> Any:
            if value is None and type(None) in plain:
                return None
            if type(value) in _PLAIN and type(value) in plain:
                return value
            if isinstance(value, dict) and value.keys() == {_TAG, _VALUE}:
                if value[_TAG] not in members:
                    raise _wrong(f"one of {', '.join(members)}", value[_TAG])
                return self.converter.structure(value[_VALUE], members[value[_TAG]])
            # Somebody else's producer does not tag: the first member that fits.
            for member in members.values():
                try:
                    return self.converter.structure(value, member)
                except Exception:  # noqa: BLE001, S112 -- whatever a hook raises means "not this one"
                    continue
            raise _wrong(" or ".join(members), value)

        return structure

    def _unstructure_mapping(self, kind: Any) -> Hook:
        key_kind, value_kind = get_args(kind)
        key_hook, value_hook = self.unstructurer(key_kind), self.unstructurer(value_kind)

        def unstructure(value: Any) -> dict[str, Any]:
            try:
                return {str(key_hook(key)): value_hook(item) for key, item in value.items()}
            except (Misfit, Placed):
                _place(value_hook, ((repr(key), item) for key, item in value.items()))
                raise

        return unstructure

    def _structure_mapping(self, kind: Any) -> Callable[[Any, Any], Any]:
        key_kind, value_kind = get_args(kind)
        key_hook = _number_key(key_kind) if key_kind in (int, float) else self.structurer(key_kind)
        value_hook = self.structurer(value_kind)
        origin = get_origin(kind)
        make = origin if isinstance(origin, type) and issubclass(origin, dict) else dict

        def structure(value: Any, _: Any) -> Any:
            if not isinstance(value, dict):
                raise _wrong("a mapping", value)
            made = {}
            for key, item in value.items():
                try:
                    made[key_hook(key) if key_hook else key] = value_hook(item) if value_hook else item
                except Exception as error:
                    raise Placed(f"[{key!r}]", error) from error
            return make(made) if make is not dict else made

        return structure

    # Where annotations are text (PEP 563), cattrs reads a named tuple's as they are, and a dataclass's without what
    # `Annotated` adds to them.

    def _structure_dataclass(self, kind: Any) -> Callable[[Any, Any], Any]:
        def hook(annotation: Any) -> Any:
            return override(struct_hook=lambda value, _: self.converter.structure(value, annotation))

        return make_dict_structure_fn(
            kind, self.converter, _cattrs_forbid_extra_keys=True, **_by_annotated_field(kind, hook)
        )

    def _unstructure_dataclass(self, kind: Any) -> Hook:
        def hook(annotation: Any) -> Any:
            return override(unstruct_hook=lambda value: self.converter.unstructure(value, annotation))

        return make_dict_unstructure_fn(kind, self.converter, **_by_annotated_field(kind, hook))

    def _structure_namedtuple(self, kind: Any) -> Callable[[Any, Any], Any]:
        hints = get_type_hints(kind, include_extras=True)
        hooks = [self.structurer(hints.get(name, Any)) for name in kind._fields]

        def structure(value: Any, _: Any) -> Any:
            if not isinstance(value, list) or len(value) != len(hooks):
                raise _wrong(f"a list of {len(hooks)}", value)
            return kind(*(hook(item) if hook else item for hook, item in zip(hooks, value, strict=True)))

        return structure

    def _unstructure_namedtuple(self, kind: Any) -> Hook:
        hints = get_type_hints(kind, include_extras=True)
        hooks = [self.unstructurer(hints.get(name, Any)) for name in kind._fields]
        return lambda value: [hook(item) for hook, item in zip(hooks, value, strict=True)]

    def _unstructure_sequence(self, kind: Any) -> Hook:
        hook = self.unstructurer(get_args(kind)[0])

        def unstructure(value: Any) -> list[Any]:
            try:
                return [hook(item) for item in value]
            except (Misfit, Placed):
                _place(hook, enumerate(value))
                raise

        return unstructure

    def _structure_sequence(self, kind: Any) -> Callable[[Any, Any], Any]:
        origin, (item_kind, *_) = get_origin(kind), get_args(kind)
        hook = self.structurer(item_kind)
        make: Any = origin if origin in (set, frozenset, tuple) else (frozenset if "Set" in str(origin) else list)

        def structure(value: Any, _: Any) -> Any:
            if not isinstance(value, list):
                raise _wrong("a list", value)
            if hook is None:
                return make(value)
            made, index = [], 0
            try:
                for index, item in enumerate(value):  # noqa: B007 -- the index is for the error
                    made.append(hook(item))
            except Exception as error:
                raise Placed(f"[{index}]", error) from error
            return make(made)

        return structure


def _is_deferred_dataclass(kind: Any) -> bool:
    if not isinstance(kind, type) or not is_dataclass(kind) or not any(isinstance(f.type, str) for f in fields(kind)):
        return False
    try:
        return bool(_by_annotated_field(kind, lambda annotation: annotation))
    except NameError:  # the error is better when somebody asks for a hook
        return False


def _by_annotated_field(kind: Any, make: Callable[[Any], Any]) -> dict[str, Any]:
    """By field, for those whose annotation says more than a type."""
    hints, full = get_type_hints(kind), get_type_hints(kind, include_extras=True)
    return {field.name: make(full[field.name]) for field in fields(kind) if full[field.name] != hints[field.name]}


def _place(hook: Hook, items: Iterable[tuple[Any, Any]]) -> None:
    """Look again for the item that does not fit, and raise with its place."""
    for place, item in items:
        try:
            hook(item)
        except (Misfit, Placed) as error:
            raise Placed(f"[{place}]", error) from error


def _no_data(kind: Any) -> Any:
    """Found out when a hook is asked for, not when the first payload arrives."""
    raise StructureHandlerNotFoundError(f"values of {kind!r} cannot be made from a payload", type_=kind)


def _is_sequence(kind: Any) -> bool:
    """Homogeneous collections; fixed tuples stay with cattrs."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is tuple:
        return len(args) == 2 and args[1] is Ellipsis
    from collections import abc

    return origin in (list, set, frozenset, abc.Sequence, abc.Set, abc.Iterable, abc.Collection) and len(args) == 1


def _number_key(kind: type) -> Hook:
    def structure(value: Any) -> Any:
        try:
            return kind(value)
        except (ValueError, TypeError):
            raise _wrong(kind.__name__, value) from None

    return structure


def _enum(value: Any, kind: Any) -> Any:
    try:
        return kind(value)
    except ValueError:
        names = ", ".join(repr(member.value) for member in list(kind)[:12])
        raise _wrong(f"one of {names}", value) from None


class _Others:
    """The conversion as a plugin sees it: every error is a `Misfit`, or a `TypeError` for what does not travel."""

    def __init__(self, conversion: Conversion) -> None:
        self._conversion = conversion

    def travels(self, annotation: Any) -> bool:
        return self._conversion.travels(annotation)

    def structurer(self, annotation: Any) -> Hook:
        try:
            hook = self._conversion.structurer(annotation)
        except StructureHandlerNotFoundError as error:
            raise TypeError(str(error)) from error
        return misfitting(hook) if hook is not None else lambda value: value

    def unstructurer(self, annotation: Any) -> Hook:
        return misfitting(self._conversion.unstructurer(annotation))
