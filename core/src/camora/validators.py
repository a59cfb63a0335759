"""Checks of fields that several classes of options and settings share. They raise `ConfigurationError`."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from camora.errors import ConfigurationError, SettingsError
from camora.units import Rate, duration, rate

__all__ = ["check_name", "more_than_no_time", "named", "rate_or_none", "seconds_or_none", "whole"]

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


def seconds_or_none(value: Any) -> Any:
    """A converter: a duration, also one with units, as seconds; None stays None."""
    # What is no duration stays as it is, for the validator to name.
    try:
        return None if value is None else duration(value)
    except ValueError:
        return value


def more_than_no_time(_: Any, attribute: Any, value: Any) -> None:
    """A validator: seconds, more than 0; None only where that is the default. Raises `SettingsError`."""
    if value is None and attribute.default is None:
        return
    if not isinstance(value, float):
        raise SettingsError(f"{attribute.name} = {value!r}: expected seconds, or a text such as '5s'")
    if not value > 0 or math.isinf(value):
        raise SettingsError(f"{attribute.name} = {value!r}: must be more than 0")
