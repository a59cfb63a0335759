"""The settings in force, defaults among them, each with where it comes from; nothing secret is shown."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from typing import Any

import attrs

from camora.config.choices import Choice
from camora.config.configuration import Configuration
from camora.config.layers import is_reference
from camora.config.locate import KeyPath
from camora.config.places import Place
from camora.config.reading import SECTIONS
from camora.config.secrets import MASK, scrubbed
from camora.config.sections import TopSection
from camora.config.source import Source
from camora.structuring import Unit, base_and_marks, is_union, members, settings_fields

__all__ = ["Setting", "effective", "origin_of", "plain_default"]

DEFAULT = "default"


@attrs.frozen
class Setting:
    """A key with its value as plain data (None: not set) and where that comes from."""

    path: KeyPath
    value: Any
    origin: str


def effective(found: Configuration) -> list[Setting]:
    """Every setting in force, table by table, in the order in which `docs/configuration.md` tells of them."""
    return list(_Showing(found).everything())


class _Showing:
    def __init__(self, found: Configuration) -> None:
        self._source: Source = found.source
        self._profile = found.profile
        chosen = (*found.middleware, *found.observers)
        self._used = {one.provider.name for one in chosen if isinstance(one, Choice)}

    def everything(self) -> Iterator[Setting]:
        data = self._source.data
        yield from self._table((), {name: data[name] for name in settings_fields(TopSection) if name in data})
        own = [path[0] for path in self._source.tables if len(path) == 1 and path[0] not in SECTIONS]
        for name in (*SECTIONS, *map(str, own)):
            if name in data or name == "extensions" or (name,) in self._source.tables:
                yield from self._section(name, data.get(name, {}))

    def _section(self, name: str, given: Any) -> Iterator[Setting]:
        if name == "extensions":
            for path in self._source.tables:  # all of them are on, whatever the file says
                if path[0:1] == (name,) and len(path) == 2:
                    yield from self._table(path, given.get(path[1], {}))
        elif isinstance(given, list):
            for index, table in enumerate(given):
                yield from self._table((name, index), table)
        elif name in SECTIONS or given or name in self._used:
            yield from self._table((name,), given)

    def _table(self, path: KeyPath, given: Mapping[str, Any]) -> Iterator[Setting]:
        fields = self._fields(path)
        inner = []
        for name in (*fields, *(name for name in given if name not in fields)):
            place = (*path, name)
            if place in self._source.in_url:
                continue
            kind, default = fields.get(name, (Any, None))
            if name not in given:
                yield Setting(place, default, DEFAULT)
            elif isinstance(given[name], Mapping) and given[name] and not is_reference(given[name]):
                inner.append((place, given[name]))  # tables stand behind the other keys
            else:
                yield Setting(place, self._shown(given[name], kind, place), self._origin(place))
        for place, table in inner:
            yield from self._table(place, table)

    def _fields(self, path: KeyPath) -> dict[str, tuple[Any, Any]]:
        """The type and the default of each field of a table, by name."""
        if path[:1] == ("tasks",) and len(path) == 2:
            return {}  # what is not said here, the task's code says
        found = {}
        fixed = {"name"} if path[:1] == ("queues",) and len(path) == 2 else ()  # the table's own name
        for cls, _ in self._source.tables.get(path, ()):
            kinds = self._source.annotations(cls)
            for name, field in settings_fields(cls).items():
                if name in fixed:
                    continue
                kind = kinds.get(field.name, Any)
                found[name] = kind, plain_default(field, kind)
        return found

    def _shown(self, given: Any, kind: Any, path: KeyPath) -> Any:
        source = self._source
        if source.is_hidden(path):
            return MASK
        raw = source.place(path).raw
        if raw is not None and _is_text(kind):
            given = raw  # a text that looks like a number is a text all the same
        return self._without_secrets(given, path)

    def _without_secrets(self, given: Any, path: KeyPath) -> Any:
        if isinstance(given, str):
            return scrubbed(given, self._source.secrets)
        if isinstance(given, list):
            return [self._shown(item, Any, (*path, index)) for index, item in enumerate(given)]
        if isinstance(given, Mapping):
            return {key: self._shown(item, Any, (*path, key)) for key, item in given.items()}
        return given

    def _origin(self, path: KeyPath) -> str:
        where = origin_of(self._source.place(path), self._profile)
        through = self._source.through.get(path)
        return f"{where}, {through}" if through else where


def origin_of(place: Place, profile: str | None) -> str:
    """A place in words: file and line, the profile too, or the variable."""
    where = f"{place.name}:{place.position.line}" if place.position else place.name
    return f"{where} (profile {profile})" if place.layer == "profile" else where


def plain_default(field: attrs.Attribute[Any], kind: Any) -> Any:
    """A field's default as one would write it in the file; None where it has none."""
    default: Any = field.default
    if isinstance(default, attrs.Factory):  # type: ignore[arg-type]
        return None if default.takes_self else _plain(default.factory(), kind)
    return None if default is attrs.NOTHING else _plain(default, kind)


def _is_text(kind: Any) -> bool:
    base = base_and_marks(kind)[0]
    return base is str or (is_union(base) and members(base) == [str])


def _unit(kind: Any) -> Unit | None:
    base, marks = base_and_marks(kind)
    if is_union(base):
        return next((unit for member in members(base) if (unit := _unit(member))), None)
    return next((mark for mark in marks if isinstance(mark, Unit)), None)


def _plain(value: Any, kind: Any) -> Any:
    unit = _unit(kind)
    if unit is not None and isinstance(value, (int, float)):
        return unit.write(value)
    if value is None or isinstance(value, (str, bool, int, float, datetime, date, time)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item, Any) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item, Any) for item in value]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, type):
        return value.__qualname__ if value.__module__ == "builtins" else f"{value.__module__}.{value.__qualname__}"
    return str(value)
