"""Rules over AMQP ("AMQP 1.0 in Azure Service Bus: request-response-based operations": rule operations)."""

from __future__ import annotations

from typing import Any

from tests.servers.servicebus.amqp.types import Described, Timestamp, ULong
from tests.servers.servicebus.entities import (
    CorrelationFilter,
    FalseFilter,
    Filter,
    InvalidArgument,
    Namespace,
    NotFound,
    Rule,
    SqlError,
    SqlFilter,
    TrueFilter,
)

__all__ = ["add_rule", "enumerate_rules", "remove_rule"]

_DESCRIPTION, _EMPTY_ACTION = 0x137000000004, 0x137000000005
_SQL, _TRUE, _FALSE, _CORRELATION = 0x137000000006, 0x137000000007, 0x137000000008, 0x137000000009
_CORRELATION_FIELDS = (
    "correlation-id", "message-id", "to", "reply-to", "label", "session-id", "reply-to-session-id", "content-type",
    "properties",
)  # fmt: skip


def _subscription(path: str) -> tuple[str, str]:
    topic, found, name = path.lower().partition("/subscriptions/")
    if not found:
        raise NotFound(f"{path}: only subscriptions have rules")
    return topic, name


def add_rule(namespace: Namespace, path: str, name: str, description: dict[Any, Any]) -> None:
    """Raises `InvalidArgument` for a filter that cannot be read, `NotFound`, `AlreadyExists`."""
    fields = {str(key): value for key, value in description.items()}
    namespace.add_rule(*_subscription(path), Rule(name, _filter(fields), namespace.ground.clock()))


def remove_rule(namespace: Namespace, path: str, name: str) -> None:
    """Raises `NotFound`."""
    namespace.remove_rule(*_subscription(path), name)


def enumerate_rules(namespace: Namespace, path: str, skip: int, top: int) -> list[Described]:
    """So many rules after the first so many, as AMQP describes them."""
    rules = list(namespace.subscription(*_subscription(path)).rules.values())
    return [_described(rule) for rule in rules[skip : skip + top]]


def _filter(fields: dict[str, Any]) -> Filter:
    if "sql-filter" in fields:
        expression = str(dict(fields["sql-filter"])["expression"])
        try:
            return SqlFilter(expression)
        except SqlError as error:
            raise InvalidArgument(f"{expression!r}: {error}") from None
    if "correlation-filter" in fields:
        given = {str(key).replace("-", "_"): value for key, value in fields["correlation-filter"].items()}
        given["properties"] = {str(key): value for key, value in (given.get("properties") or {}).items()}
        return CorrelationFilter(**given)
    if "false-filter" in fields:
        return FalseFilter()
    return TrueFilter()


def _described(rule: Rule) -> Described:
    match rule.filter:
        case SqlFilter(expression):
            found = Described(ULong(_SQL), [expression])
        case CorrelationFilter() as wanted:
            values = [getattr(wanted, name.replace("-", "_")) for name in _CORRELATION_FIELDS]
            found = Described(ULong(_CORRELATION), [*values[:-1], dict(values[-1])])
        case FalseFilter():
            found = Described(ULong(_FALSE), [])
        case _:
            found = Described(ULong(_TRUE), [])
    created = Timestamp(round(rule.created * 1000))
    return Described(ULong(_DESCRIPTION), [found, Described(ULong(_EMPTY_ACTION), []), rule.name, created])
