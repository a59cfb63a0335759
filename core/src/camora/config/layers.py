"""Settings in layers, each value with its place; the last layer wins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from camora.config.locate import KeyPath
from camora.config.places import Place

__all__ = ["Layer", "is_reference", "over"]


@attrs.frozen
class Layer:
    """Plain data, and where each key of it stands."""

    data: dict[str, Any] = attrs.field(factory=dict)
    places: dict[KeyPath, Place] = attrs.field(factory=dict)

    def below(self, *path: str) -> Layer:
        """What is in a table, as a layer of its own; empty when there is no such table."""
        data: Any = self.data
        for key in path:
            data = data.get(key, {}) if isinstance(data, dict) else {}
        depth = len(path)
        places = {keys[depth:]: place for keys, place in self.places.items() if keys[:depth] == path}
        return Layer(data if isinstance(data, dict) else {}, places)

    def of(self, layer: Any) -> Layer:
        """The same, with places that say they are of another layer."""
        return Layer(self.data, {path: attrs.evolve(place, layer=layer) for path, place in self.places.items()})


def is_reference(value: object) -> bool:
    """True for `{ env = "X" }` and `{ file = "…" }`, which stand for a text."""
    return (
        isinstance(value, Mapping)
        and len(value) == 1
        and next(iter(value)) in ("env", "file")
        and isinstance(next(iter(value.values())), str)
    )


def over(base: Layer, top: Layer) -> Layer:
    """Both, where they meet the top one. Tables are merged; arrays and all else are replaced as a whole."""
    places = dict(base.places)
    return Layer(_merged(base.data, top, places, ()), places)


def _merged(below: Any, top: Layer, places: dict[KeyPath, Place], path: KeyPath) -> Any:
    value: Any = top.data
    for key in path:
        value = value[key]
    tables = isinstance(below, dict) and isinstance(value, dict)
    if tables and not (path and (is_reference(below) or is_reference(value))):
        merged = dict(below)
        for key in value:
            merged[key] = _merged(below.get(key), top, places, (*path, key))
        if path in top.places:
            places.setdefault(path, top.places[path])
        return merged
    depth = len(path)
    for keys in [keys for keys in places if keys[:depth] == path]:
        del places[keys]
    places.update({keys: place for keys, place in top.places.items() if keys[:depth] == path})
    return value
