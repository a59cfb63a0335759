"""Sessions: windows, delivery-ids and handles ("OASIS AMQP 1.0, part 2: transport", 2.5)."""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tests.servers.servicebus.amqp.frames import frame
from tests.servers.servicebus.amqp.link import FromClient, Link, ToClient
from tests.servers.servicebus.amqp.performatives import (
    Attach,
    Begin,
    Detach,
    Disposition,
    Flow,
    Performative,
    Transfer,
)
from tests.servers.servicebus.amqp.types import DecodeError, Described, ULong

if TYPE_CHECKING:
    from tests.servers.servicebus.amqp.connection import Connection

__all__ = ["Session"]

_WINDOW = 5000
_HANDLE_MAX = 255

# A transfer of a short tag, as nearly all are: descriptor, list8, and its six fields (handle, delivery-id,
# delivery-tag, message-format, settled, more). Written in one go, for it is most of the work.
_transfer = struct.Struct(">IBBH 3s BBB BB BI BB16s B B B")


class Session:
    """One of a client's sessions, on the channel of the client's number."""

    def __init__(self, connection: Connection, channel: int, begin: Begin) -> None:
        self.connection = connection
        self.channel = channel
        self.links: dict[int, Link] = {}
        self._next_incoming = begin.next_outgoing_id or 0
        self._incoming = _WINDOW
        self._next_outgoing = 0
        self._room = begin.incoming_window or 0
        self._waiting: deque[bytes] = deque()
        self._unsettled: dict[int, tuple[ToClient, Any]] = {}
        self._accepted: dict[bool, list[int]] = {True: [], False: []}
        self.send(
            Begin(
                remote_channel=channel,
                next_outgoing_id=0,
                incoming_window=_WINDOW,
                outgoing_window=_WINDOW,
                handle_max=_HANDLE_MAX,
            )
        )

    # --- what the client says

    def attach(self, attach: Attach) -> Link:
        """A link that the client begins."""
        handle = attach.handle or 0
        if handle in self.links:
            raise DecodeError(f"the handle {handle} is in use")
        link = (ToClient if attach.role else FromClient)(self, handle, attach)
        self.links[handle] = link
        return link

    def transfer_received(self, transfer: Transfer, part: bytes) -> None:
        """A frame of a message."""
        self._next_incoming += 1
        self._incoming -= 1
        if self._incoming <= _WINDOW // 2:
            self._incoming = _WINDOW
            self.send_flow()
        link = self.links.get(transfer.handle or 0)
        if isinstance(link, FromClient):
            link.used = self.connection.clock()
            link.transfer(transfer, part)
        # else it was sent before the client saw that the link is gone

    def flow_received(self, flow: Flow) -> None:
        """The client's window, and perhaps a link's credit."""
        seen = flow.next_incoming_id if flow.next_incoming_id is not None else 0
        sent = self._next_outgoing - len(self._waiting)
        self._room = seen + (flow.incoming_window or 0) - sent
        while self._waiting and self._room > 0:
            self._room -= 1
            self.connection.write(self._waiting.popleft())
        link = None if flow.handle is None else self.links.get(flow.handle)
        if link is not None:
            link.used = self.connection.clock()
            link.flow(flow)
        self.flowing()
        if flow.handle is None and flow.echo:
            self.send_flow()

    def flowing(self) -> None:
        """The window is the session's: let each link send that has credit, in turn."""
        for link in list(self.links.values()):
            if isinstance(link, ToClient) and link.node is not None and link.room:
                link.node.flowing(link)

    def disposition_received(self, disposition: Disposition) -> None:
        """What became of messages that the client got."""
        if not disposition.role:
            return  # about messages that it sent: they were settled here first
        first = disposition.first or 0
        last = first if disposition.last is None else disposition.last
        run: list[Any] = []
        of: ToClient | None = None
        begin = first
        for number in range(first, min(last, self._next_outgoing) + 1):
            link, delivery = self._unsettled.pop(number, (None, None))
            if run and link is not of:
                self._settling(of, begin, run, disposition)
                run = []
            if link is not None:
                if not run:
                    begin, of = number, link
                run.append(delivery)
        if run:
            self._settling(of, begin, run, disposition)

    def _settling(self, link: ToClient | None, first: int, deliveries: list[Any], disposition: Disposition) -> None:
        if link is not None and link.node is not None:
            link.used = self.connection.clock()
            link.node.settling(link, first, deliveries, disposition.state, settled=bool(disposition.settled))

    def detach_received(self, detach: Detach) -> None:
        """The client ends a link."""
        link = self.links.get(detach.handle or 0)
        if link is None:
            return  # the answer to ours
        self.forget(link)
        self.send(Detach(handle=link.handle, closed=detach.closed))

    def end(self) -> None:
        """All its links are no more."""
        for link in list(self.links.values()):
            self.forget(link)

    # --- what the server says

    def forget(self, link: Link) -> None:
        """A link has ended: what was under way on it is nobody's any more."""
        if self.links.get(link.handle) is link:
            del self.links[link.handle]
        if isinstance(link, ToClient):
            self._unsettled = {number: one for number, one in self._unsettled.items() if one[0] is not link}
        link.end()

    def send(self, performative: Performative) -> None:
        """Say something on this session's channel."""
        self.flush()
        self.connection.write(frame(self.channel, performative.encode()))

    def send_flow(self, **link: Any) -> None:
        """Say the windows, and a link's credit if one is given."""
        self.send(
            Flow(
                next_incoming_id=self._next_incoming & 0xFFFFFFFF,
                incoming_window=self._incoming,
                next_outgoing_id=(self._next_outgoing - len(self._waiting)) & 0xFFFFFFFF,
                outgoing_window=_WINDOW,
                **link,
            )
        )

    @property
    def room(self) -> int:
        """How many more frames the client's window takes; none while the connection is full."""
        return max(self._room, 0) if self.connection.writable and not self._waiting else 0

    def transfer(self, link: ToClient, tag: bytes, payload: bytes, delivery: Any) -> int:
        """Send a message in as many frames as it takes. Its delivery-id."""
        number = self._next_outgoing
        if not link.settled:
            self._unsettled[number] = (link, delivery)
        limit = self.connection.remote_max_frame - 64
        settled = 0x41 if link.settled else 0x42
        if len(payload) <= limit and len(tag) == 16 and link.handle < 256:
            self._push(
                _transfer.pack(
                    _transfer.size + len(payload), 2, 0, self.channel, b"\x00\x53\x14", 0xC0, 31, 6,
                    0x52, link.handle, 0x70, number & 0xFFFFFFFF, 0xA0, 16, tag, 0x43, settled, 0x42,
                ) + payload
            )  # fmt: skip
        else:
            parts = [payload[at : at + limit] for at in range(0, len(payload), limit)] or [b""]
            for index, part in enumerate(parts):
                transfer = Transfer(link.handle, number, tag, 0, link.settled, index < len(parts) - 1)
                self._push(frame(self.channel, transfer.encode() + part))
        return number

    def _push(self, data: bytes) -> None:
        # One transfer-id per frame (2.5.6), while a delivery has one delivery-id: that of its first frame serves, since
        # delivery-ids only have to grow.
        self._next_outgoing += 1
        if self._room > 0 and not self._waiting:
            self._room -= 1
            self.connection.write(data)
        else:
            self._waiting.append(data)

    def settle_sent(self, first: int, last: int, state: Any) -> None:
        """Answer the client's word about messages that it got: they are settled, thus."""
        if first == last and state == ACCEPTED:
            self._accepted[False].append(first)
            self.connection.soon(self)
        else:
            self.send(Disposition(role=False, first=first, last=last, settled=True, state=state))

    def settle_received(self, number: int, state: Described) -> None:
        """Say what became of a message that the client sent."""
        if state == ACCEPTED:
            self._accepted[True].append(number)
            self.connection.soon(self)
        else:
            self.send(Disposition(role=True, first=number, last=number, settled=True, state=state))

    def flush(self) -> None:
        """Say what waited to be said together: all that went well, in as few words as there are gaps."""
        for role, waiting in self._accepted.items():
            if waiting:
                numbers, waiting[:] = list(waiting), []
                for first, last in _runs(numbers):
                    disposition = Disposition(role=role, first=first, last=last, settled=True, state=ACCEPTED)
                    self.connection.write(frame(self.channel, disposition.encode()))


def _runs(numbers: list[int]) -> Iterator[tuple[int, int]]:
    first = last = numbers[0]
    for number in numbers[1:]:
        if number != last + 1:
            yield first, last
            first = number
        last = number
    yield first, last


ACCEPTED = Described(ULong(0x24), [])
