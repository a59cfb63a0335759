"""Links: one way of messages each, with credit ("OASIS AMQP 1.0, part 2: transport", 2.6)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import attrs

from tests.servers.servicebus.amqp.performatives import Attach, Detach, Flow, Transfer
from tests.servers.servicebus.amqp.types import DecodeError, Described

if TYPE_CHECKING:
    from tests.servers.servicebus.amqp.session import Session

__all__ = ["Arrived", "FromClient", "Link", "Node", "ToClient"]

# How many messages a client may have under way: what the service gives, too ("AMQP 1.0 protocol guide": flow control).
_CREDIT = 1000


@attrs.frozen
class Arrived:
    """A message that a client sent."""

    delivery_id: int
    tag: bytes
    format: int
    settled: bool
    payload: bytes


class Node(Protocol):
    """What is at the server's end of a link."""

    def received(self, link: FromClient, message: Arrived) -> None:
        """A message arrived whole: settle it, now or later."""

    def flowing(self, link: ToClient) -> None:
        """There is credit, or room, that was not there before."""

    def settling(self, link: ToClient, first: int, deliveries: list[Any], state: Any, *, settled: bool) -> None:
        """The client says what became of these, of consecutive ids; unless it settled them it wants an answer."""

    def gone(self, link: Link) -> None:
        """The link is no more, with its connection or without."""


class Link:
    """One of a client's links; `role` in its `attach` is True where the client receives."""

    def __init__(self, session: Session, handle: int, attach: Attach) -> None:
        self.session = session
        self.connection = session.connection
        self.handle = handle
        """The server's number of it, and the client's: each side has numbers of its own, and they may be the same."""
        self.attach = attach
        self.node: Node | None = None
        self.open = False
        """Whether it is attached on both sides."""
        self.ended = False
        self.used = session.connection.clock()
        """When something last happened on it, by the connection's clock."""

    @property
    def name(self) -> str:
        return str(self.attach.name)

    def accept(
        self, node: Node, *, source: Any = None, max_message_size: int | None = None, properties: Any = None
    ) -> None:
        """Attach it: what the client wishes is so, unless another source is said."""
        if self.ended:
            return
        self.node = node
        self.open = True
        asked = self.attach
        self.session.send(
            Attach(
                name=asked.name,
                handle=self.handle,
                role=not asked.role,
                snd_settle_mode=asked.snd_settle_mode,
                rcv_settle_mode=asked.rcv_settle_mode,
                source=asked.source if source is None else source,
                target=asked.target,
                initial_delivery_count=0 if asked.role else None,
                max_message_size=max_message_size,
                properties=properties or {},
            )
        )
        self.accepted()

    def accepted(self) -> None:
        """Say what comes after the attach."""

    def refuse(self, error: Described) -> None:
        """Attach it to nothing and detach it, which is how a link is refused (2.6.3)."""
        if self.ended:
            return
        asked = self.attach
        self.session.send(
            Attach(
                name=asked.name,
                handle=self.handle,
                role=not asked.role,
                source=None if asked.role else asked.source,
                target=asked.target if asked.role else None,
                initial_delivery_count=0 if asked.role else None,
            )
        )
        self.open = True
        self.detach(error)

    def detach(self, error: Described | None = None) -> None:
        """End it from this side; the client's answer changes nothing any more."""
        if self.ended:
            return
        if self.open:
            self.session.send(Detach(handle=self.handle, closed=True, error=error))
        self.session.forget(self)

    def end(self) -> None:
        """It is no more: tell the node, once."""
        if not self.ended:
            self.ended = True
            self.open = False
            if self.node is not None:
                self.node.gone(self)

    def flow(self, flow: Flow) -> None:
        """The client said something about credit."""
        raise NotImplementedError


class FromClient(Link):
    """One on which the client sends."""

    def __init__(self, session: Session, handle: int, attach: Attach) -> None:
        super().__init__(session, handle, attach)
        self._count = attach.initial_delivery_count or 0
        self._left = 0
        self._parts: list[bytes] = []
        self._first: Transfer | None = None

    def accepted(self) -> None:
        self._grant()

    def flow(self, flow: Flow) -> None:
        if flow.echo:
            self._grant()

    def transfer(self, transfer: Transfer, part: bytes) -> None:
        """A frame of a message arrived."""
        if transfer.aborted:
            self._first, self._parts = None, []
            return
        if self._first is None:
            if transfer.delivery_id is None:
                raise DecodeError("the first frame of a delivery has no delivery-id")
            self._first = transfer
        if transfer.more:
            self._parts.append(part)
            return
        first, parts = self._first, self._parts
        payload = b"".join((*parts, part)) if parts else part
        self._first, self._parts = None, []
        self._count += 1
        self._left -= 1
        if self._left <= _CREDIT // 2:
            self._grant()
        if self.node is not None:
            settled = bool(transfer.settled if transfer.settled is not None else first.settled)
            arrived = Arrived(
                first.delivery_id or 0, bytes(first.delivery_tag or b""), first.message_format or 0, settled, payload
            )
            self.node.received(self, arrived)

    def settle(self, message: Arrived, state: Described) -> None:
        """Say what became of a message; those that came settled nobody waits for."""
        if not message.settled and not self.ended:
            self.session.settle_received(message.delivery_id, state)

    def _grant(self) -> None:
        self._left = _CREDIT
        self.session.send_flow(handle=self.handle, delivery_count=self._count & 0xFFFFFFFF, link_credit=_CREDIT)


class ToClient(Link):
    """One on which the client receives."""

    def __init__(self, session: Session, handle: int, attach: Attach) -> None:
        super().__init__(session, handle, attach)
        self.settled = attach.snd_settle_mode == 1
        """Whether messages are gone as soon as they are sent."""
        self.drain = False
        self._limit = 0
        self._count = 0

    @property
    def credit(self) -> int:
        """How many more messages the client wants."""
        return max(self._limit - self._count, 0)

    @property
    def room(self) -> int:
        """How many more messages may be sent now."""
        return min(self.credit, self.session.room) if self.open else 0

    def flow(self, flow: Flow) -> None:
        if flow.link_credit is not None:
            # The client may not know yet of what is under way: credit counts from what it has seen (2.6.7).
            seen = flow.delivery_count if flow.delivery_count is not None else 0
            self._limit = self._count + _difference(seen + flow.link_credit, self._count)
        self.drain = bool(flow.drain)
        if self.node is not None:
            self.node.flowing(self)
        if self.drain and self.credit and not self.ended:
            self._count = self._limit  # nothing more is there: the credit is used up (2.6.7, drain)
            self._tell(drain=True)
        elif flow.echo:
            self._tell()

    def send(self, tag: bytes, payload: bytes, delivery: Any) -> int:
        """Send a message; the client's word about it will come with `delivery`. Its delivery-id."""
        self._count += 1
        return self.session.transfer(self, tag, payload, delivery)

    def _tell(self, *, drain: bool = False) -> None:
        count = self._count & 0xFFFFFFFF
        self.session.send_flow(
            handle=self.handle, delivery_count=count, link_credit=self.credit, available=0, drain=drain or None
        )


def _difference(one: int, other: int) -> int:
    # Of serial numbers of 32 bits (RFC 1982).
    return (one - other + 0x80000000) % 0x100000000 - 0x80000000
