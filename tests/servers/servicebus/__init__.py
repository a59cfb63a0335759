"""A server of the dialect that Azure Service Bus speaks: AMQP 1.0 with its entities, locks and sessions.

It is for tests: it keeps the rules of the service, each beside the page of the documentation that it imitates, and it
fails on command. `amqp` is the wire, `entities` what is stored, `service` leads one to the other.
"""

from tests.servers.servicebus.server import ServiceBusServer, need

__all__ = ["ServiceBusServer", "need"]
