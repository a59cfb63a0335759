"""Checks of fields that several classes of options and settings share. They raise `ConfigurationError`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from camora.errors import ConfigurationError
from camora.units import Rate, rate

__all__ = ["check_name", "named", "rate_or_none", "whole"]

_NAME_LIMIT = 200


def check_name(kind: str, name: object) -> str:
    """A queue or task name that every broker can carry: 1 to 200 printable characters without space, `*` or `#`.

    Raises `ConfigurationError`, once, where the name is declared.
    """
    if not isinstance(name, str) or not name:
        raise ConfigurationError(f"{kind} name {name!r}: must be a text of at least one character")
    if len(name) > _NAME_LIMIT:
        raise ConfigurationError(
            f"{kind} name {name[:40]!r}…: has {len(name)} characters, at most {_NAME_LIMIT} are allowed"
        )
    for character in name:
        if not character.isprintable() or character in " *#{}":
            raise ConfigurationError(f"{kind} name {name!r}: {character!r} is not allowed in it")
    return name


def named(kind: str) -> Callable[[Any, Any, Any], None]:
    """A validator: a name as `check_name` wants it, or None."""

    def check(_: Any, attribute: Any, value: Any) -> None:
        if value is not None:
            check_name(kind, value)

    return check


def whole(smallest: int, largest: int) -> Callable[[Any, Any, Any], None]:
    """A validator: a whole number in these bounds, or None."""

    def check(_: Any, attribute: Any, value: Any) -> None:
        if value is None:
            return
        if not isinstance(value, int) or isinstance(value, bool) or not smallest <= value <= largest:
            raise ConfigurationError(f"{attribute.name}={value!r}: a whole number from {smallest} to {largest}")

    return check


def rate_or_none(value: Any) -> Rate | None:
    """A `Rate` from a text; None stays None. Raises `ConfigurationError`."""
    try:
        return None if value is None else rate(value)
    except ValueError as error:
        raise ConfigurationError(f"rate_limit={error}") from None
