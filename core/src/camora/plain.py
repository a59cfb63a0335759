"""Plain data: what a codec can encode, and where a value is not."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ["find_unencodable"]


_DEEPEST = 200
"""Levels of nesting; far below the interpreter's own limit, far above real data."""


def find_unencodable(value: Any, path: str, depth: int = 0) -> tuple[str, str] | None:
    """The place of the first thing in plain data that cannot be encoded, and why; None when all can."""
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        if depth > _DEEPEST:
            return path, f"is nested too deeply (more than {_DEEPEST} levels)"
        for place, key, item in _children(value, path):
            if not isinstance(key, (str, int, float)):
                return place, f"has a key of type {type(key).__name__}; keys are text"
            if found := find_unencodable(item, place, depth + 1):
                return found
        return None
    why = _why_not(value)
    return (path, why) if why else None


def _children(value: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield (f"{path}.{key}" if isinstance(key, str) else f"{path}[{key!r}]"), key, item
    else:
        for index, item in enumerate(value):
            yield f"{path}[{index}]", index, item


def _why_not(value: Any) -> str:
    if value is None or isinstance(value, (bool, int)):
        return ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{value!r} has no JSON form"
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return "contains a lone surrogate, which is no Unicode text"
        return ""
    return f"a {type(value).__module__}.{type(value).__qualname__} cannot be encoded"
