"""`CAMORA_A__B=…` as a layer, and `${VAR}` in texts."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import attrs

from camora.config.layers import Layer
from camora.config.locate import KeyPath
from camora.config.places import Place

__all__ = ["from_variables", "names_in", "parsed", "substituted"]

_PREFIX = "CAMORA_"
_SHORT = ("APP", "NAME")
"""What may be set without a section. Other names without `__` have a meaning elsewhere, or are the user's own."""
_REFERENCE = re.compile(r"\$\$\{|\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{")


def from_variables(environ: Mapping[str, str], below: Mapping[str, Any]) -> tuple[Layer, list[tuple[Place, str]]]:
    """The layer of overrides, and what is wrong with names.

    `below` are the layers under it: a part of a name stands for the key there that is the same but for case and
    punctuation, so that `CAMORA_QUEUES__BIG_MAIL__CONCURRENCY` speaks of `[queues.Big-Mail]`.
    """
    layer = Layer()
    problems = []
    for name in sorted(environ):
        parts = name.removeprefix(_PREFIX).split("__")
        if not name.startswith(_PREFIX) or (len(parts) == 1 and parts[0] not in _SHORT):
            continue
        place = Place(layer="variable", name=name, raw=environ[name])
        if not all(parts):
            problems.append((place, "expected a name such as CAMORA_WORKER__LEASE, found an empty part"))
            continue
        path = _keys(parts, below)
        if not _put(layer, path, parsed(environ[name]), place):
            problems.append((place, "cannot be set beside another variable that sets what it is in"))
    return layer, problems


def _keys(parts: Iterable[str], below: Mapping[str, Any]) -> tuple[str, ...]:
    path: list[str] = []
    level: Any = below
    for part in parts:
        keys = level if isinstance(level, Mapping) else {}
        key = next((key for key in keys if _plain(key) == _plain(part)), part.lower())
        path.append(key)
        level = keys.get(key)
    return tuple(path)


def _plain(key: str) -> str:
    return re.sub(r"[^a-z0-9]", "_", key.lower())


def _put(layer: Layer, path: KeyPath, value: Any, place: Place) -> bool:
    data: Any = layer.data
    table = attrs.evolve(place, raw=None)  # the variable's text is not that of the tables around it
    for depth, key in enumerate(path[:-1], 1):
        data = data.setdefault(key, {})
        layer.places.setdefault(path[:depth], table)
        if not isinstance(data, dict):
            return False
    if path[-1] in data:
        return False
    data[path[-1]] = value
    layer.places[path] = place
    return True


def parsed(text: str) -> Any:
    """A text as the TOML value it is; a text that is none stands for itself."""
    try:
        found = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    return found["value"] if found.keys() == {"value"} else text


def names_in(text: str) -> list[str]:
    """The variables that a text refers to, each once."""
    return list(dict.fromkeys(found[1] for found in _REFERENCE.finditer(text) if found[1]))


def substituted(text: str, environ: Mapping[str, str], note: Callable[[str], None]) -> str | None:
    """The text with every `${VAR}` and `${VAR:-default}` replaced; None when it holds none, `$${` being a plain `${`.

    A default also stands for a variable that is empty. What is wrong goes to `note`.
    """
    if "${" not in text:
        return None

    def value(found: re.Match[str]) -> str:
        whole, name, default = found[0], found[1], found[2]
        if whole == "$${":
            return "${"
        if name is None:
            note("expected ${NAME} or ${NAME:-default}, found '${' (a plain one is written $${)")
        elif default is not None:
            return environ.get(name) or default
        elif name in environ:
            return environ[name]
        else:
            note(f"variable {name!r} is not set: set it, or write ${{{name}:-default}}")
        return whole

    return _REFERENCE.sub(value, text)
