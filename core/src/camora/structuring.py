"""Plain data as settings classes: strict, by annotation, with every mistake kept and its key named."""

from __future__ import annotations

import difflib
import enum
import re
import types
from collections import abc
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import attrs

from camora.units import Rate, duration, duration_text, rate, size, size_text

__all__ = [
    "BYTES",
    "COLLECTIONS",
    "MAPPINGS",
    "SECONDS",
    "SECRET",
    "WRONG",
    "KeyPath",
    "Problem",
    "Structuring",
    "Unit",
    "base_and_marks",
    "expected",
    "is_table",
    "is_union",
    "members",
    "settings_fields",
    "unknown_key",
]

KeyPath = tuple[str | int, ...]

WRONG: Any = type("_Wrong", (), {"__repr__": lambda _: "WRONG"})()
"""Stands for a value that could not be made; its problem has been noted."""

SECRET = type("_Secret", (), {"__repr__": lambda _: "SECRET"})()
"""In `Annotated[…]`: never to be shown."""


@attrs.frozen
class Unit:
    """In `Annotated[…]`: read by `parse`, which raises `ValueError`; `words` say in errors what is expected.

    `write` makes of a value the text that people would write.
    """

    parse: Callable[[object], Any]
    words: str
    write: Callable[[Any], str] = str


@attrs.frozen
class Problem:
    """A mistake: where, and what. `unknown`: the key is not known at all."""

    path: KeyPath
    text: str
    unknown: bool = False


def unknown_key(path: KeyPath, known: abc.Iterable[str], *, what: str = "setting") -> Problem:
    """The problem of a key that nobody knows, with the nearest one that is known."""
    names = list(known)
    name = str(path[-1])
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(names)) or 'none'}"
    return Problem(path, f"unknown {what} {name!r}: {hint}", unknown=True)


COLLECTIONS: dict[Any, type] = {
    list: list,
    tuple: tuple,
    set: set,
    frozenset: frozenset,
    abc.Sequence: list,
    abc.Iterable: list,
    abc.Collection: list,
    abc.Set: frozenset,
    abc.MutableSequence: list,
    abc.MutableSet: set,
}
MAPPINGS = (dict, abc.Mapping, abc.MutableMapping)
_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")
_PARSED: dict[Any, Unit] = {
    timedelta: Unit(lambda value: timedelta(seconds=duration(value)), 'a duration such as "30s"'),
    Rate: Unit(rate, 'a rate such as "100/m"'),
}
_MOMENTS: tuple[tuple[type, str], ...] = (
    (datetime, "a date with a time"),
    (date, "a date"),
    (time, "a time of day"),
)


def base_and_marks(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """A type without its `Annotated`, and what stood there."""
    if get_origin(kind) is Annotated:
        base, *marks = get_args(kind)
        return base, tuple(marks)
    return kind, ()


def is_union(kind: Any) -> bool:
    """True for `A | B` and `Optional`."""
    return get_origin(kind) in (Union, types.UnionType)


def members(kind: Any) -> list[Any]:
    """The members of a union, None left out."""
    return [member for member in get_args(kind) if member is not type(None)]


def settings_fields(cls: Any) -> dict[str, attrs.Attribute[Any]]:
    """The fields that are set from outside, by the name they are given under."""
    return {field.alias or field.name: field for field in attrs.fields(cls) if field.init}


_WORDS: dict[Any, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    Path: "a path",
    **dict(_MOMENTS),
    **{kind: unit.words for kind, unit in _PARSED.items()},
}


def expected(kind: Any) -> str:
    """A type in words, as errors say it."""
    base, marks = base_and_marks(kind)
    unit = next((mark for mark in marks if isinstance(mark, Unit)), None)
    if unit is not None:
        return unit.words
    if base in _WORDS:
        return _WORDS[base]
    if is_union(base):
        return " or ".join(dict.fromkeys(expected(member) for member in members(base)))
    origin = get_origin(base) or base
    if origin is Literal:
        return f"one of {', '.join(repr(value) for value in get_args(base))}"
    if origin in COLLECTIONS:
        inner = [item for item in get_args(base) if item is not Ellipsis]
        return f"an array of {expected(inner[0]).removeprefix('a ')}" if inner and inner[0] is not Any else "an array"
    if origin in MAPPINGS or is_table(base):
        return "a table"
    if isinstance(base, type) and issubclass(base, enum.Enum):
        return f"one of {', '.join(repr(member.value) for member in base)}"
    return getattr(base, "__name__", str(base))


def is_table(kind: Any) -> bool:
    """True for an attrs class, whose objects are tables in a file."""
    return isinstance(kind, type) and attrs.has(kind) and kind is not Rate


class Structuring:
    """Makes values of annotated types, and keeps what is wrong in `problems`.

    `lenient`: texts stand for numbers and truth values too, as in the query of a URL.
    """

    def __init__(self, *, lenient: bool = False) -> None:
        self.problems: list[Problem] = []
        self._lenient = lenient

    # What a source of settings may do in its own way

    def text(self, given: Any, path: KeyPath) -> Any:
        """The text that is given where one is expected, or WRONG; what is noted here is not noted again."""
        del path
        return given if isinstance(given, str) else WRONG

    def loose(self, given: Any, path: KeyPath) -> str | None:
        """The text from which something else than a text may be read; None where the data must be as it is meant."""
        del path
        return given if self._lenient and isinstance(given, str) else None

    def shown(self, given: Any, path: KeyPath) -> str:
        """A wrong value as the error shows it."""
        del path
        text = repr(given)
        return text if len(text) <= 60 else f"{text[:57]}..."

    def hide(self, path: KeyPath) -> None:
        """Called before a value is read that must never be shown."""

    def annotations(self, cls: type[Any]) -> Mapping[str, Any]:
        """The types of a class's fields, by name."""
        return get_type_hints(cls, include_extras=True)

    def told(self, error: BaseException, path: KeyPath) -> str:
        """A foreign error's text."""
        del path
        return " ".join(str(error).split()) or type(error).__name__

    # Reading

    def wrong(self, kind: Any, given: Any, path: KeyPath) -> Any:
        """Note that something else was expected; returns WRONG."""
        return self.note(path, f"expected {expected(kind)}, found {self.shown(given, path)}")

    def note(self, path: KeyPath, text: str) -> Any:
        """Note a problem; returns WRONG."""
        self.problems.append(Problem(path, text))
        return WRONG

    def read(self, kind: Any, given: Any, path: KeyPath) -> Any:
        """A value of this type, or WRONG."""
        if given is WRONG:
            return WRONG
        base, marks = base_and_marks(kind)
        if SECRET in marks:
            self.hide(path)
        unit = next((mark for mark in marks if isinstance(mark, Unit)), None) or _PARSED.get(base)
        if unit is not None:
            return self._unit(unit, given, path)
        if base is Any or base is object:
            return given
        return self._of_kind(base, given, path)

    def _of_kind(self, base: Any, given: Any, path: KeyPath) -> Any:
        if is_union(base):
            return self._union(base, given, path)
        origin = get_origin(base) or base
        if origin is Literal:
            return self._literal(base, given, path)
        if base in (str, int, float, bool):
            return self._scalar(base, given, path)
        if origin in COLLECTIONS:
            return self._collection(base, origin, given, path)
        if origin in MAPPINGS:
            return self._mapping(base, given, path)
        if is_table(base):
            return self.table(base, given, path)
        return self._other(base, given, path)

    def _scalar(self, kind: Any, given: Any, path: KeyPath) -> Any:
        if kind is str or isinstance(given, Mapping):
            before = len(self.problems)
            found = self.text(given, path)
            if found is WRONG:
                return WRONG if len(self.problems) > before else self.wrong(kind, given, path)
            given = found
        if type(given) is kind:
            return given
        if kind is float and type(given) is int and abs(given) < 2**1000:
            return float(given)
        text = self.loose(given, path)
        if text is not None:
            found = _parsed(kind, text.strip())
            if found is not WRONG:
                return found
        return self.wrong(kind, given, path)

    def _text_or(self, given: Any, path: KeyPath) -> Any:
        """The text where one is given, else what is; WRONG where it should be one, and is noted."""
        before = len(self.problems)
        found = self.text(given, path)
        return given if found is WRONG and len(self.problems) == before else found

    def _unit(self, unit: Unit, given: Any, path: KeyPath) -> Any:
        value = self._text_or(given, path) if isinstance(given, Mapping) else given
        if value is WRONG:
            return WRONG
        try:
            return unit.parse(value)
        except (ValueError, TypeError):
            return self.note(path, f"expected {unit.words}, found {self.shown(given, path)}")

    def _literal(self, kind: Any, given: Any, path: KeyPath) -> Any:
        choices = get_args(kind)
        value = self._text_or(given, path)
        if value is WRONG:
            return WRONG
        for choice in choices:
            if type(choice) is type(value) and choice == value:
                return choice
        near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        return self.note(path, f"expected {expected(kind)}, found {self.shown(value, path)}{hint}")

    def _union(self, kind: Any, given: Any, path: KeyPath) -> Any:
        if given is None and type(None) in get_args(kind):
            return None
        choices = members(kind)
        if isinstance(given, Mapping):
            choices = [choice for choice in choices if is_table(base_and_marks(choice)[0])] or choices
        if len(choices) == 1:
            return self.read(choices[0], given, path)
        before = len(self.problems)
        for choice in choices:
            found = self.read(choice, given, path)
            if found is not WRONG:
                return found
            del self.problems[before:]
        return self.wrong(kind, given, path)

    def _collection(self, kind: Any, origin: Any, given: Any, path: KeyPath) -> Any:
        text = self.loose(given, path)
        if text is not None:
            given = [part.strip() for part in text.split(",") if part.strip()]
        if not isinstance(given, (list, tuple, set, frozenset)):
            return self.wrong(kind, given, path)
        inner = get_args(kind)
        if origin is tuple and inner and inner[-1] is not Ellipsis:
            kinds = list(inner)
            if len(kinds) != len(given):
                return self.note(path, f"expected an array of {len(kinds)}, found {len(given)} elements")
        else:
            kinds = [inner[0] if inner else Any] * len(given)
        pairs = enumerate(zip(kinds, given, strict=True))
        items = [self.read(item_kind, item, (*path, index)) for index, (item_kind, item) in pairs]
        if any(item is WRONG for item in items):
            return WRONG
        try:
            return COLLECTIONS[origin](items)
        except TypeError:  # a set of what cannot be in one
            return self.wrong(kind, given, path)

    def _mapping(self, kind: Any, given: Any, path: KeyPath) -> Any:
        if not isinstance(given, Mapping):
            return self.wrong(kind, given, path)
        inner = get_args(kind)
        value_kind = inner[1] if len(inner) == 2 else Any
        made = {key: self.read(value_kind, item, (*path, key)) for key, item in given.items()}
        return WRONG if any(item is WRONG for item in made.values()) else made

    def _other(self, kind: Any, given: Any, path: KeyPath) -> Any:
        value = self._text_or(given, path)
        if value is WRONG:
            return WRONG
        if isinstance(kind, type) and isinstance(value, kind):
            return value
        if kind in (datetime, date, time) or kind is Path:
            if not isinstance(value, str):
                return self.wrong(kind, value, path)
            try:
                return Path(value) if kind is Path else kind.fromisoformat(value)
            except ValueError:
                return self.wrong(kind, value, path)
        import cattrs

        try:
            return cattrs.Converter().structure(value, kind)
        except Exception:  # noqa: BLE001 -- whatever a converter raises is the setting's fault
            return self.wrong(kind, value, path)

    # Tables

    def table(
        self,
        cls: type[Any],
        given: Any,
        path: KeyPath,
        *,
        also: abc.Iterable[str] | None = (),
        fixed: Mapping[str, Any] | None = None,
    ) -> Any:
        """An object of an attrs class, or WRONG.

        `also` are keys that somebody else reads (None: all that are not its own); `fixed` are values that are there
        already.
        """
        if not isinstance(given, Mapping):
            return self.note(path, f"expected a table, found {self.shown(given, path)}")
        before = len(self.problems)
        fields = settings_fields(cls)
        others = set(also or ())
        annotations = self.annotations(cls)
        for key in given if also is not None else ():
            if key not in others and (key not in fields or key in (fixed or ())):
                self.problems.append(unknown_key((*path, key), {*fields, *others} - {*(fixed or ())}))
        values: dict[str, Any] = dict(fixed or {})
        missing = False
        for name, field in fields.items():
            kind = annotations.get(field.name, Any)
            if name in values:
                continue
            if name not in given or name in others:
                if field.default is attrs.NOTHING:
                    missing = True
                    self.note((*path, name), f"is missing: expected {expected(kind)}")
                continue
            value = self._field(field, kind, given[name], (*path, name))
            if value is not WRONG:
                values[name] = value
            else:
                missing = missing or field.default is attrs.NOTHING
        known = len(self.problems)
        made = WRONG if missing else self.made(cls, values, given, path)
        if any(problem.unknown for problem in self.problems[before:known]):
            # A misspelt key explains why the others alone do not make a whole.
            self.problems[known:] = [problem for problem in self.problems[known:] if problem.path != path]
        return WRONG if len(self.problems) > before else made

    def _field(self, field: attrs.Attribute[Any], kind: Any, given: Any, path: KeyPath) -> Any:
        before = len(self.problems)
        converter: Any = field.converter
        value = self.read(kind, given, path)
        if value is WRONG and converter is not None and not isinstance(given, Mapping):
            # The class may read more than its annotation says: what remains, the converter made of it.
            try:
                taken = converter(given) is not given  # what comes back as it was, was not understood
            except Exception:  # noqa: BLE001 -- then the annotation's word holds
                return WRONG
            if taken:
                del self.problems[before:]
                return given
        return value

    def made(self, cls: type[Any], values: Mapping[str, Any], given: Mapping[str, Any], path: KeyPath) -> Any:
        """The object; where the class refuses, each value that it refuses by itself is a problem of its own."""
        try:
            return cls(**values)
        except Exception as refusal:  # noqa: BLE001 -- a stranger's validators
            whole = refusal
        fields = settings_fields(cls)
        needed = {name: value for name, value in values.items() if fields[name].default is attrs.NOTHING}
        culprits: dict[str, Exception] = {}
        for name in (name for name in values if name not in needed):
            try:
                cls(**needed, **{name: values[name]})
            except Exception as refusal:  # noqa: BLE001
                culprits[name] = refusal
        try:
            cls(**needed)
        except Exception as refusal:  # noqa: BLE001 -- one of those without which nothing can be made
            culprits = dict.fromkeys(needed, refusal) if len(needed) == 1 else {}
        for name, error in culprits.items():
            place = (*path, name)
            self.note(place, self._refusal(name, values[name], given.get(name), error, place))
        return WRONG if culprits else self.note(path, self.told(whole, path))

    def _refusal(self, name: str, value: Any, given: Any, error: Exception, path: KeyPath) -> str:
        """What a validator says, without the name and the value that are shown beside it."""
        for tried in (value, given):
            found = re.match(
                rf"(?:\w+\()?{re.escape(name)} ?= ?{re.escape(repr(tried))}\)?: (.+)", str(error), re.DOTALL
            )
            if found:
                return f"{self.told(ValueError(found[1]), path)}, found {self.shown(given, path)}"
        return self.told(error, path)


def _parsed(kind: Any, text: str) -> Any:
    if kind is bool:
        return True if text.lower() in _TRUE else False if text.lower() in _FALSE else WRONG
    try:
        return kind(text)
    except ValueError:
        return WRONG


SECONDS = Unit(duration, 'a duration such as "30s"', duration_text)
BYTES = Unit(size, 'a size such as "10MB"', size_text)
