"""The plugin: what camora-servicebus offers. The client library is imported only when somebody uses it."""

from __future__ import annotations

from collections.abc import Sequence

from camora.hookspecs import hookimpl
from camora.interfaces import Broker
from camora.provider import MadeFrom, Provider

from camora_servicebus.settings import SCHEMES, ServiceBusSettings


def _broker(made: MadeFrom) -> Broker:
    from camora_servicebus.broker import ServiceBusBroker

    return ServiceBusBroker.from_url(made.url, made.settings)


@hookimpl
def camora_brokers() -> Sequence[Provider[Broker]]:
    """The broker in Azure Service Bus."""
    text = "queues of Azure Service Bus"
    return [Provider("servicebus", _broker, settings=ServiceBusSettings, schemes=SCHEMES, help=text)]
