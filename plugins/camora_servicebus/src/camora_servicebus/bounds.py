"""What the properties of entities may be: converters and validators for the classes by which an app declares them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from camora.errors import ConfigurationError
from camora.units import duration_text, size, size_text
from camora.validators import check_name

__all__ = ["DAY", "GIB", "KIB", "LONGEST", "MIB", "MINUTE", "amount", "as_bytes", "flag", "queue_name", "time"]

MINUTE, DAY = 60.0, 86400.0
KIB, MIB, GIB = 1024, 1024**2, 1024**3
LONGEST = 10_675_199 * DAY
"""Seconds: the service counts ticks of 100 ns in 63 bits."""


def as_bytes(value: Any) -> Any:
    """A converter: bytes of a text such as "2GiB"."""
    # What is no size stays as it is, for the validator to name.
    try:
        return None if value is None else size(value)
    except ValueError:
        return value


def time(smallest: float, largest: float) -> Callable[[Any, Any, Any], None]:
    """A validator: seconds in these bounds, or None."""

    def check(_: Any, attribute: Any, value: Any) -> None:
        if value is None:
            return
        if not isinstance(value, float) or math.isnan(value) or not smallest <= value <= largest:
            bounds = f"from {duration_text(smallest)} to {duration_text(largest)}"
            raise ConfigurationError(f"{attribute.name}={value!r}: a time {bounds}, as seconds or a text such as '30s'")

    return check


def amount(smallest: int, largest: int, step: int) -> Callable[[Any, Any, Any], None]:
    """A validator: bytes in these bounds in whole steps, or None."""

    def check(_: Any, attribute: Any, value: Any) -> None:
        if value is None:
            return
        wrong = not isinstance(value, int) or isinstance(value, bool)
        if wrong or not smallest <= value <= largest or value % step:
            bounds = f"a multiple of {size_text(step)} from {size_text(smallest)} to {size_text(largest)}"
            raise ConfigurationError(f"{attribute.name}={value!r}: {bounds}, as bytes or a text such as '2GiB'")

    return check


def flag(_: Any, attribute: Any, value: Any) -> None:
    """A validator: True or False, or the default."""
    if value is not attribute.default and not isinstance(value, bool):
        raise ConfigurationError(f"{attribute.name}={value!r}: True or False")


def queue_name(_: Any, attribute: Any, value: Any) -> None:
    """A validator: the name of a queue, or None."""
    if value is not None:
        check_name(f"{attribute.name}: queue", value)
