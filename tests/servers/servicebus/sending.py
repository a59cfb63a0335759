"""Links on which clients send ("AMQP 1.0 protocol guide": transfers; "Message transfers, locks, and settlement")."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.servers.servicebus.amqp.link import Arrived, FromClient, Link, ToClient
from tests.servers.servicebus.amqp.performatives import error
from tests.servers.servicebus.amqp.session import ACCEPTED
from tests.servers.servicebus.amqp.types import DecodeError, Described, ULong
from tests.servers.servicebus.entities import EntityError
from tests.servers.servicebus.message import BATCH, batched, read_message

if TYPE_CHECKING:
    from tests.servers.servicebus.service import Service

__all__ = ["Sending", "rejected"]


def rejected(condition: str, description: str) -> Described:
    """What a message is told that is not taken."""
    return Described(ULong(0x25), [error(condition, description)])


class Sending:
    """The server's end of one."""

    def __init__(self, service: Service, path: str) -> None:
        self._service = service
        self.path = path

    def received(self, link: FromClient, message: Arrived) -> None:
        faults = self._service.faults
        if fault := faults.take("send_lost", self.path):
            self._service.lose(link, fault)
            return
        if faults.take("throttled", self.path):
            link.settle(message, rejected(*BUSY))
            return
        if fault := faults.take("send_rejected", self.path):
            link.settle(message, rejected(fault.condition, fault.description))
            return
        try:
            if message.format == BATCH:
                incoming = [read_message(one) for one in batched(message.payload)]
            else:
                incoming = [read_message(message.payload)]
            self._service.namespace.target(self.path).send(incoming)
        except EntityError as failure:
            link.settle(message, rejected(failure.condition, str(failure)))
        except DecodeError as failure:
            link.settle(message, rejected("amqp:decode-error", str(failure)))
        else:
            if fault := faults.take("ack_lost", self.path):
                self._service.lose(link, fault)
            else:
                link.settle(message, ACCEPTED)

    def flowing(self, link: ToClient) -> None:
        """Nothing is sent on it."""

    def settling(self, link: ToClient, first: int, deliveries: list[Any], state: Any, *, settled: bool) -> None:
        """Nothing was sent on it."""

    def gone(self, link: Link) -> None:
        """Nothing of it is kept."""


# "Service Bus messaging exceptions": 50009.
BUSY = (
    "com.microsoft:server-busy",
    "The request was terminated because the namespace is being throttled: 50009. Please wait 2 seconds and try again.",
)
