"""Which messages a subscription takes ("Topic filters and actions")."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import attrs

from tests.servers.servicebus.entities.messages import Incoming
from tests.servers.servicebus.entities.sql import compiled

__all__ = ["CorrelationFilter", "FalseFilter", "Filter", "SqlFilter", "TrueFilter"]


class Filter(Protocol):
    """Looks at a message as it was sent; raises `SqlError` if it cannot be decided."""

    def matches(self, message: Incoming) -> bool: ...


@attrs.frozen
class TrueFilter:
    """Takes all."""

    def matches(self, message: Incoming) -> bool:
        return True


@attrs.frozen
class FalseFilter:
    """Takes none."""

    def matches(self, message: Incoming) -> bool:
        return False


@attrs.frozen(kw_only=True)
class CorrelationFilter:
    """Takes those of which all that is given here is equal, by letter and type."""

    correlation_id: str | None = None
    message_id: str | None = None
    to: str | None = None
    reply_to: str | None = None
    label: str | None = None
    session_id: str | None = None
    reply_to_session_id: str | None = None
    content_type: str | None = None
    properties: Mapping[str, Any] = attrs.field(factory=dict, hash=False)

    def matches(self, message: Incoming) -> bool:
        wanted = (
            (self.correlation_id, message.correlation_id),
            (self.message_id, message.message_id),
            (self.to, message.to),
            (self.reply_to, message.reply_to),
            (self.label, message.subject),
            (self.session_id, message.session_id),
            (self.reply_to_session_id, message.reply_to_session_id),
            (self.content_type, message.content_type),
        )
        if any(value is not None and value != found for value, found in wanted):
            return False
        there = message.application_properties
        return all(name in there and there[name] == value for name, value in self.properties.items())


@attrs.frozen
class SqlFilter:
    """Takes those for which the expression is true; unknown is not. Raises `SqlError` if it cannot be read."""

    expression: str
    parameters: Mapping[str, Any] = attrs.field(factory=dict, hash=False)
    _decide: Callable[[Incoming], bool | None] = attrs.field(init=False, eq=False, repr=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_decide", compiled(self.expression, self.parameters))

    def matches(self, message: Incoming) -> bool:
        return self._decide(message) is True

    def __reduce__(self) -> tuple[Any, ...]:
        return SqlFilter, (self.expression, dict(self.parameters))  # what was compiled cannot be written down
