"""The options of tasks that this plugin offers, checked when they are given. Light: it is read with the plugin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from camora.settings import structure_settings

from camora_servicebus.topics import ServiceBusTopic, topic_name

__all__ = ["OPTIONS", "checked_properties", "checked_session", "checked_topic"]

OPTIONS = frozenset({"topic", "session", "message_properties"})
_LONGEST = 128
"""Characters of a session's id ("Service Bus quotas")."""
_LARGEST = 2**63


def checked_session(value: str) -> str:
    """The id of a session. Raises `ValueError`."""
    if not value or len(value) > _LONGEST:
        raise ValueError(f"expected a text of 1 to {_LONGEST} characters, got {value!r}")
    return value


def checked_properties(value: Mapping[Any, Any]) -> Mapping[str, Any]:
    """Properties that a filter can look at. Raises `ValueError`."""
    for name, one in value.items():
        if not isinstance(name, str) or not name or len(name) > _LONGEST:
            raise ValueError(f"the name {name!r} must be a text of 1 to {_LONGEST} characters")
        if name.startswith(("camora_", "camora-")):
            raise ValueError(f"{name!r}: names that begin with 'camora' are not yours")
        if not isinstance(one, str | int | float | bool) or (isinstance(one, int) and not -_LARGEST <= one < _LARGEST):
            raise ValueError(f"{name!r} is {one!r}: a text, a number or a truth value")
    return value


def checked_topic(value: Any) -> Any:
    """A topic, or its name; from a file also a table. Raises `ConfigurationError`."""
    if isinstance(value, Mapping):
        return structure_settings(ServiceBusTopic, value, where="topic")
    return topic_name(value)
