"""Azure Service Bus for Camora."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from camora_servicebus.deferring import Defer
from camora_servicebus.description import ServiceBusQueue
from camora_servicebus.topics import ServiceBusSubscription, ServiceBusTopic

if TYPE_CHECKING:
    from camora_servicebus.broker import ServiceBusBroker
    from camora_servicebus.settings import ServiceBusSettings

__all__ = [
    "Defer",
    "ServiceBusBroker",
    "ServiceBusQueue",
    "ServiceBusSettings",
    "ServiceBusSubscription",
    "ServiceBusTopic",
]


def __getattr__(name: str) -> Any:
    # The client library is loaded by those who use it, not by whoever looks which plugins there are.
    if name == "ServiceBusBroker":
        from camora_servicebus.broker import ServiceBusBroker

        return ServiceBusBroker
    if name == "ServiceBusSettings":
        from camora_servicebus.settings import ServiceBusSettings

        return ServiceBusSettings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
