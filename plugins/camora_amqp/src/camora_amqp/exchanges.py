"""Exchanges, what they give to queues, and the way of a job by one of them, as an app writes them."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from typing import Any

import attrs
from camora.errors import ConfigurationError, UnsupportedCapability

__all__ = ["Binding", "Exchange", "ExchangeType", "Route", "name_of", "route_of"]

_LONGEST = 127
_LONGEST_KEY = 255
_SERVERS = ("amq.direct", "amq.fanout", "amq.topic", "amq.headers", "amq.match")
_ODD = re.compile(r"[^A-Za-z0-9\-_.:@#,/+ ]")
_RESERVED = ("x-", "camora-")


class ExchangeType(enum.StrEnum):
    """How an exchange chooses the queues that get a message.

    https://www.rabbitmq.com/tutorials/amqp-concepts#exchanges
    """

    DIRECT = "direct"
    """Those bound with the very same routing key."""
    FANOUT = "fanout"
    """All that are bound."""
    TOPIC = "topic"
    """Those bound with a pattern of words: `*` is one word, `#` any number of them."""
    HEADERS = "headers"
    """Those bound with matching headers."""


def _type(value: Any) -> ExchangeType:
    try:
        return ExchangeType(value)
    except ValueError:
        known = ", ".join(repr(one.value) for one in ExchangeType)
        raise ConfigurationError(
            f"type={value!r}: expected one of {known}. An exchange of another type is used as it is, if it is not "
            "declared: give its name alone"
        ) from None


def check_exchange_name(value: Any) -> str:
    """The name of an exchange, also of one of the server's own. Raises `ConfigurationError`."""
    if not isinstance(value, str) or not value or len(value.encode()) > _LONGEST:
        raise ConfigurationError(f"exchange name {value!r}: must be a text of 1 to {_LONGEST} bytes")
    if odd := _ODD.search(value):
        raise ConfigurationError(
            f"exchange name {value!r}: {odd[0]!r} is not allowed in it; ASCII letters, digits, space and -_.:@#,/+ are"
        )
    if value.startswith("amq.") and value not in _SERVERS:
        raise ConfigurationError(
            f"exchange name {value!r}: names that begin with 'amq.' belong to the server; it has {', '.join(_SERVERS)}"
        )
    return value


def _own_name(_: Any, attribute: Any, value: Any) -> None:
    del attribute
    if check_exchange_name(value).startswith("amq."):
        raise ConfigurationError(
            f"Exchange({value!r}): this one is the server's own and always there: write its name alone, {value!r}"
        )


@attrs.frozen
class Exchange:
    """Where messages are sent to be given to queues. Declared on the server when it is first used.

    `arguments` are for the server, such as an alternate exchange. An exchange that somebody else declares is named by a
    plain text instead: it must exist then. Raises `ConfigurationError`.
    """

    name: str = attrs.field(validator=_own_name)
    type: ExchangeType = attrs.field(default=ExchangeType.DIRECT, converter=_type)
    durable: bool = attrs.field(default=True, kw_only=True)
    auto_delete: bool = attrs.field(default=False, kw_only=True)
    arguments: Mapping[str, Any] = attrs.field(factory=dict, kw_only=True, hash=False)

    def __str__(self) -> str:
        return self.name


def name_of(exchange: Exchange | str) -> str:
    """The name, of an exchange or of its name."""
    return exchange if isinstance(exchange, str) else exchange.name


def _exchange(_: Any, attribute: Any, value: Any) -> None:
    del attribute
    if not isinstance(value, Exchange):
        check_exchange_name(value)


def _key(_: Any, attribute: Any, value: Any) -> None:
    if not isinstance(value, str) or len(value.encode()) > _LONGEST_KEY:
        raise ConfigurationError(f"{attribute.name}={value!r}: a text of at most {_LONGEST_KEY} bytes")


def _plain_headers(_: Any, attribute: Any, value: Any) -> None:
    for name, one in value.items():
        if not isinstance(name, str) or not name or len(name.encode()) > _LONGEST_KEY:
            raise ConfigurationError(f"{attribute.name}: the name {name!r} must be a text of 1 to {_LONGEST_KEY} bytes")
        if not isinstance(one, str | int | float | bool) or (isinstance(one, int) and not -(2**63) <= one < 2**63):
            raise ConfigurationError(f"{attribute.name}: {name!r} is {one!r}: a text, a number or a truth value")


def _message_headers(_: Any, attribute: Any, value: Any) -> None:
    _plain_headers(_, attribute, value)
    for name in value:
        if name.startswith(_RESERVED):
            raise ConfigurationError(
                f"{attribute.name}: {name!r}: names that begin with 'x-' or 'camora-' are not yours"
            )


@attrs.frozen
class Binding:
    """What an exchange gives to a queue: messages with this routing key, or with these headers.

    `headers` are for an exchange of type headers: texts, numbers and truth values, all of which a message must have; or
    any of them, with `"x-match": "any"` among them. Raises `ConfigurationError`.
    """

    exchange: Exchange | str = attrs.field(validator=_exchange)
    routing_key: str = attrs.field(default="", validator=_key)
    headers: Mapping[str, Any] = attrs.field(factory=dict, validator=_plain_headers, hash=False)


@attrs.frozen
class Route:
    """The way of a task's jobs by an exchange, as one option: `@app.task(route=Route(exchange, "a.b"))`.

    Without a routing key it is the name of the task's queue. `headers` are what an exchange of type headers looks at;
    those of `.options(headers=…)` are the job's own and travel inside it. Raises `ConfigurationError`.
    """

    exchange: Exchange | str = attrs.field(validator=_exchange)
    routing_key: str = attrs.field(default="", validator=_key)
    headers: Mapping[str, Any] = attrs.field(factory=dict, validator=_message_headers, hash=False)


def route_of(task: str, options: Mapping[str, Any]) -> Route | None:
    """The way that a job's options say; None: straight to its queue. Raises `ConfigurationError` for half a way."""
    route, exchange = options.get("route"), options.get("exchange")
    more = {
        name: value
        for name, value in (
            ("routing_key", options.get("routing_key")),
            ("headers", options.get("message_headers")),
        )
        if value
    }
    if route is not None and exchange is not None:
        raise ConfigurationError(
            f"{task}: route={route!r} and exchange={name_of(exchange)!r} both say where its jobs go: give one of them"
        )
    if route is not None:
        found: Route = attrs.evolve(route, **more) if more else route
        return found
    if exchange is not None:
        return Route(exchange, **more)
    if more:
        raise UnsupportedCapability(
            f"{task}: {', '.join(more)} need an exchange: add exchange=…, or give route=Route(…)",
            capability="task_options",
        )
    return None
