"""Azure Service Bus for Camora."""

from __future__ import annotations

from typing import TYPE_CHECKING

from camora.lazy import names_of

if TYPE_CHECKING:
    from camora_servicebus.broker import ServiceBusBroker
    from camora_servicebus.deferring import Defer
    from camora_servicebus.description import ServiceBusQueue
    from camora_servicebus.settings import ServiceBusSettings
    from camora_servicebus.topics import ServiceBusSubscription, ServiceBusTopic
    from camora_servicebus.user_state import SessionState, session_state

__all__ = [
    "Defer",
    "ServiceBusBroker",
    "ServiceBusQueue",
    "ServiceBusSettings",
    "ServiceBusSubscription",
    "ServiceBusTopic",
    "SessionState",
    "session_state",
]

# The client library is loaded by those who use it, not by whoever looks which plugins there are.
__getattr__ = names_of(
    __name__,
    {
        "camora_servicebus.broker": ["ServiceBusBroker"],
        "camora_servicebus.deferring": ["Defer"],
        "camora_servicebus.description": ["ServiceBusQueue"],
        "camora_servicebus.settings": ["ServiceBusSettings"],
        "camora_servicebus.topics": ["ServiceBusSubscription", "ServiceBusTopic"],
        "camora_servicebus.user_state": ["SessionState", "session_state"],
    },
)
