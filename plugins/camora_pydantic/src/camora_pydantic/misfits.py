"""Pydantic's errors, with places written as in code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args

from camora.interfaces import Misfit
from pydantic import ValidationError
from pydantic_core.core_schema import ErrorType

__all__ = ["INSIDE", "misfit"]

INSIDE = "camora_inside"
"""In an error's context: the places inside a value that the core has converted."""
_MOST = 5
_DISCREET = frozenset(get_args(ErrorType)) - {"value_error", "assertion_error", "union_tag_invalid"}
"""Errors of pydantic's own whose texts quote no value; validators of users may say anything."""


def misfit(error: ValidationError) -> Misfit:
    """What a validation error says."""
    found = error.errors(include_url=False, include_input=False)
    places = [place for detail in found[:_MOST] for place in _places(detail)]
    if len(found) > _MOST:
        places.append(("", f"and {len(found) - _MOST} more"))
    return Misfit(places, discreet=all(detail["type"] in _DISCREET for detail in found))


def _places(detail: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    spot = "".join(_step(part) for part in detail["loc"])
    inside = detail.get("ctx", {}).get(INSIDE)
    if inside is None:
        yield spot, _sentence(detail["msg"])
    else:
        for place, why in inside:
            yield f"{spot}{place}", why


def _step(part: int | str) -> str:
    return f".{part}" if isinstance(part, str) and part.isidentifier() else f"[{part!r}]"


def _sentence(text: str) -> str:
    """As the core's reasons begin: with a small letter."""
    text = text.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return text[:1].lower() + text[1:] if text[1:2].islower() else text
