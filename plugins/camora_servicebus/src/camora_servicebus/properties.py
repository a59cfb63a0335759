"""The properties of an entity: as an app says them, as the service's management client names them, and as text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from enum import Enum
from typing import Any
from urllib.parse import urlsplit

import attrs
from camora.units import duration_text, size_text

__all__ = ["KINDS", "Kind", "Property", "Unit", "read", "text_of", "written"]

_FOR_EVER = 10_675_198 * 86400.0
"""Seconds from which on the service means for ever: what it can count in ticks of 100 ns."""


class Unit(Enum):
    """What a value is: how it is shown, and how the management client writes it."""

    SECONDS = "seconds"
    KIB = 1024
    MIB = 1024**2
    NUMBER = "number"
    FLAG = "flag"
    ENTITY = "entity"
    RULE = "rule"
    """No property of the entity itself: it has rules, which are read and made by calls of their own."""


@attrs.frozen
class Property:
    """One property: `name` is Camora's, `attribute` the client's. What is `fixed` is decided when it is made."""

    name: str
    attribute: str
    unit: Unit
    fixed: bool = attrs.field(default=False, kw_only=True)


_LOCKED = (
    Property("lock_duration", "lock_duration", Unit.SECONDS),
    Property("max_delivery_count", "max_delivery_count", Unit.NUMBER),
    Property("sessions", "requires_session", Unit.FLAG, fixed=True),
)
_EXPIRING = (
    Property("time_to_live", "default_message_time_to_live", Unit.SECONDS),
    Property("idle_ttl", "auto_delete_on_idle", Unit.SECONDS),
)
_BURYING = (Property("dead_letter_expired", "dead_lettering_on_message_expiration", Unit.FLAG),)
_FORWARDING = (
    Property("forward_to", "forward_to", Unit.ENTITY),
    Property("forward_dead_letters_to", "forward_dead_lettered_messages_to", Unit.ENTITY),
)
_FILTERING = (Property("filter", "", Unit.RULE),)
_STORING = (
    Property("duplicate_detection", "duplicate_detection_history_time_window", Unit.SECONDS),
    Property("max_size", "max_size_in_megabytes", Unit.MIB),
    Property("max_message_size", "max_message_size_in_kilobytes", Unit.KIB),
    Property("partitioned", "enable_partitioning", Unit.FLAG, fixed=True),
)

_DETECTS = "requires_duplicate_detection"
_STATUS = "status"


@attrs.frozen
class Kind:
    """A kind of entity: what it is called, and which properties it has."""

    word: str
    properties: tuple[Property, ...]

    @property
    def detects(self) -> bool:
        """Whether it can recognise messages that it has seen."""
        return any(one.name == "duplicate_detection" for one in self.properties)


KINDS: Mapping[str, Kind] = {
    "queue": Kind("queue", _LOCKED + _STORING + _EXPIRING + _BURYING + _FORWARDING),
    "topic": Kind("topic", _STORING + _EXPIRING),
    "subscription": Kind("subscription", _FILTERING + _LOCKED + _EXPIRING + _BURYING + _FORWARDING),
}


def read(kind: Kind, found: Any) -> dict[str, Any]:
    """What the client found, by Camora's names: seconds, bytes, numbers; None: none; infinite: for ever."""
    made = {
        one.name: _read(one.unit, getattr(found, one.attribute)) for one in kind.properties if one.unit is not Unit.RULE
    }
    if kind.detects and not getattr(found, _DETECTS):
        made["duplicate_detection"] = None
    status = getattr(found, _STATUS) or "Active"
    made["status"] = str(getattr(status, "value", status))
    return made


def _read(unit: Unit, value: Any) -> Any:
    match unit:
        case Unit.SECONDS:
            return None if value is None else _seconds(value)
        case Unit.MIB | Unit.KIB:
            return None if value is None else int(value) * unit.value
        case Unit.FLAG:
            return bool(value)
        case Unit.ENTITY:
            # The service gives the whole address back: sb://shop.servicebus.windows.net/mail
            return urlsplit(value).path.strip("/") or value if value else None
    return value


def _seconds(value: timedelta) -> float:
    seconds = value.total_seconds()
    return math.inf if seconds >= _FOR_EVER else seconds


def written(kind: Kind, values: Mapping[str, Any], *, new: bool) -> dict[str, Any]:
    """The client's own names and values for these; what is None is left to the service.

    What is decided when an entity is made is written for a new one alone.
    """
    made: dict[str, Any] = {}
    for one in kind.properties:
        value = values.get(one.name)
        if value is None or one.unit is Unit.RULE or (one.fixed and not new):
            continue
        made[one.attribute] = _written(one.unit, value)
        if one.name == "duplicate_detection" and new:
            made[_DETECTS] = True
    return made


def _written(unit: Unit, value: Any) -> Any:
    match unit:
        case Unit.SECONDS:
            return timedelta(seconds=value)
        case Unit.MIB | Unit.KIB:
            return value // unit.value
    return value


def text_of(name: str, value: Any) -> str:
    """A value as a person reads it, and mostly as it is written in camora.toml."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    unit = next((one.unit for kind in KINDS.values() for one in kind.properties if one.name == name), None)
    match unit:
        case Unit.SECONDS:
            return "for ever" if math.isinf(value) else duration_text(value)
        case Unit.MIB | Unit.KIB:
            return size_text(value)
    return str(value)
