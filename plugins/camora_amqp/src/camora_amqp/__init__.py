"""RabbitMQ for Camora."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from camora_amqp.exchanges import Binding, Exchange, ExchangeType, Route
from camora_amqp.topology import Queue

if TYPE_CHECKING:
    from camora_amqp.broker import AmqpBroker
    from camora_amqp.results import AmqpResultBackend
    from camora_amqp.settings import AmqpSettings

__all__ = ["AmqpBroker", "AmqpResultBackend", "AmqpSettings", "Binding", "Exchange", "ExchangeType", "Queue", "Route"]


def __getattr__(name: str) -> Any:
    # The client library is loaded by those who use it, not by whoever looks which plugins there are.
    if name == "AmqpBroker":
        from camora_amqp.broker import AmqpBroker

        return AmqpBroker
    if name == "AmqpResultBackend":
        from camora_amqp.results import AmqpResultBackend

        return AmqpResultBackend
    if name == "AmqpSettings":
        from camora_amqp.settings import AmqpSettings

        return AmqpSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
