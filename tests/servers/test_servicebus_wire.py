"""What the real client cannot be made to do: small windows and frames, drain, ranges, what is against the protocol."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any, Self

import pytest

from tests.servers.servicebus import ServiceBusServer
from tests.servers.servicebus.amqp.frames import AMQP_HEADER, Frames, frame
from tests.servers.servicebus.amqp.performatives import (
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    Flow,
    Open,
    Performative,
    Transfer,
    read,
)
from tests.servers.servicebus.amqp.types import Described, ULong, encode

_ACCEPTED = Described(ULong(0x24), [])


@pytest.fixture(scope="module")
def server() -> Iterator[ServiceBusServer]:
    with ServiceBusServer() as server:
        yield server


class Raw:
    """A client that says what a test wants, on channel 1."""

    def __init__(self, server: ServiceBusServer, *, max_frame: int = 65536, window: int = 1000) -> None:
        self._socket = socket.create_connection((server.host, server.port), timeout=60)
        self._file = self._socket.makefile("rb")
        self._frames = Frames(1 << 20)
        self._socket.sendall(AMQP_HEADER)
        assert self._file.read(8) == AMQP_HEADER
        self.say(Open("raw", max_frame_size=max_frame), channel=0)
        self.say(Begin(None, 0, window, 1000))
        assert isinstance(self.hear()[0], Open)
        assert isinstance(self.hear()[0], Begin)

    def say(self, said: Performative, rest: bytes = b"", *, channel: int = 1) -> None:
        """Send a frame."""
        self._socket.sendall(frame(channel, said.encode() + rest))

    def hear(self) -> tuple[Any, bytes]:
        """The next frame, and what came after its performative."""
        head = self._file.read(4)
        assert len(head) == 4, "the server closed the connection"
        self._frames.feed(head + self._file.read(struct.unpack(">I", head)[0] - 4))
        one = self._frames.next()
        assert one is not None
        said, at = read(one[2])
        return said, one[2][at:]

    def hear_a(self, kind: type[Performative]) -> Any:
        """The next frame, which is of this kind."""
        said, _ = self.hear()
        assert isinstance(said, kind), said
        return said

    def attach(self, path: str, *, receives: bool, handle: int = 0) -> Attach:
        """Begin a link; the server's answer."""
        source, target = Described(ULong(0x28), [path]), Described(ULong(0x29), [path])
        self.say(Attach(f"link{handle}", handle, receives, 0, 1, source, target, initial_delivery_count=0))
        return self.hear_a(Attach)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self._file.close()
        self._socket.close()


def body(text: bytes) -> bytes:
    return encode(Described(ULong(0x75), text))


def filled(server: ServiceBusServer, name: str, *texts: bytes) -> str:
    """A queue with messages."""
    queue = server.create_queue(name)
    with Raw(server) as client:
        client.attach(queue, receives=False)
        assert client.hear_a(Flow).link_credit > 0
        for number, text in enumerate(texts):
            client.say(Transfer(0, number, struct.pack(">I", number), 0, False, False), body(text))
        settled = -1
        while settled < len(texts) - 1:
            disposition = client.hear_a(Disposition)
            assert (disposition.role, disposition.settled, disposition.state) == (True, True, _ACCEPTED)
            assert disposition.first == settled + 1
            settled = disposition.last
    return queue


def test_no_more_is_sent_than_credit_and_window_allow(server: ServiceBusServer) -> None:
    queue = filled(server, "window", *[b"%d" % number for number in range(6)])
    with Raw(server, window=2) as client:
        client.attach(queue, receives=True)
        client.say(Flow(0, 2, 0, 1000, 0, 0, 5))
        assert [client.hear_a(Transfer).delivery_id for _ in range(2)] == [0, 1]
        client.say(Flow(2, 2, 0, 1000, echo=True))  # the session's window alone
        assert [client.hear_a(Transfer).delivery_id for _ in range(2)] == [2, 3]
        assert client.hear_a(Flow).handle is None
        client.say(Flow(4, 10, 0, 1000))
        assert client.hear_a(Transfer).delivery_id == 4
        client.say(Flow(5, 10, 0, 1000, 0, 5, 0, echo=True))
        assert client.hear_a(Flow).link_credit == 0  # the sixth message stays, for there is no credit
        assert [message["locked"] for message in server.messages(queue)] == [True] * 5 + [False]


def test_links_share_the_window_of_their_session(server: ServiceBusServer) -> None:
    queues = [filled(server, f"shared{number}", b"a", b"b") for number in range(2)]
    with Raw(server, window=1) as client:
        for handle, queue in enumerate(queues):
            client.attach(queue, receives=True, handle=handle)
        client.say(Flow(0, 1, 0, 1000, 0, 0, 1))
        client.say(Flow(0, 1, 0, 1000, 1, 0, 2))
        assert client.hear_a(Transfer).handle == 0
        client.say(Flow(1, 9, 0, 1000, 0, 1, 0))  # about the one link, and the other gets the window
        assert [client.hear_a(Transfer).handle for _ in range(2)] == [1, 1]


def test_receivers_take_turns(server: ServiceBusServer) -> None:
    queue = server.create_queue("turns")
    with Raw(server) as client, Raw(server) as sender:
        sender.attach(queue, receives=False)
        sender.hear_a(Flow)
        for handle in range(2):
            client.attach(queue, receives=True, handle=handle)
            client.say(Flow(0, 1000, 0, 1000, handle, 0, 10, echo=True))
            client.hear_a(Flow)
        got = []
        for number in range(6):
            sender.say(Transfer(0, number, b"t", 0, False, False), body(b"x"))
            got.append(client.hear_a(Transfer).handle)
    assert got in ([0, 1, 0, 1, 0, 1], [1, 0, 1, 0, 1, 0])


def test_large_messages_come_in_small_frames(server: ServiceBusServer) -> None:
    text = bytes(range(256)) * 20
    queue = filled(server, "frames", text, b"after")
    with Raw(server, max_frame=512) as client:
        client.attach(queue, receives=True)
        client.say(Flow(0, 1000, 0, 1000, 0, 0, 10))
        parts = []
        while True:
            said, part = client.hear()
            assert isinstance(said, Transfer)
            assert len(said.encode()) + len(part) + 8 <= 512
            assert said.delivery_id == 0
            parts.append(part)
            if not said.more:
                break
        assert len(parts) > 10
        assert b"".join(parts).endswith(body(text))
        after = client.hear_a(Transfer)
        client.say(Disposition(True, 0, after.delivery_id, False, _ACCEPTED))  # both in one word
        settled = set()
        while settled != {0, after.delivery_id}:
            said = client.hear_a(Disposition)
            settled |= {number for number in (0, after.delivery_id) if said.first <= number <= said.last}
    assert server.counts(queue)["active"] == 0


def test_drain_uses_up_the_credit(server: ServiceBusServer) -> None:
    queue = filled(server, "drain", b"one")
    with Raw(server) as client:
        client.attach(queue, receives=True)
        client.say(Flow(0, 1000, 0, 1000, 0, 0, 5, drain=True))
        client.hear_a(Transfer)
        drained = client.hear_a(Flow)
        assert (drained.delivery_count, drained.link_credit, drained.drain) == (5, 0, True)


def test_a_message_in_parts_and_one_that_is_aborted(server: ServiceBusServer) -> None:
    queue = server.create_queue("parts")
    with Raw(server) as client:
        client.attach(queue, receives=False)
        client.hear_a(Flow)
        whole = body(b"x" * 100)
        client.say(Transfer(0, 0, b"a", 0, False, True), whole[:50])
        client.say(Transfer(0, aborted=True, more=False))
        client.say(Transfer(0, 1, b"b", 0, False, True), whole[:50])
        client.say(Transfer(0, more=False), whole[50:])
        assert client.hear_a(Disposition).first == 1
    assert server.counts(queue)["active"] == 1


def test_settled_messages_are_not_answered(server: ServiceBusServer) -> None:
    queue = server.create_queue("settled")
    with Raw(server) as client:
        client.attach(queue, receives=False)
        client.hear_a(Flow)
        client.say(Transfer(0, 0, b"a", 0, True, False), body(b"x"))
        client.say(Detach(0, True))
        client.hear_a(Detach)
        client.say(End())
        client.hear_a(End)
        client.say(Close(), channel=0)
        client.hear_a(Close)
    assert server.counts(queue)["active"] == 1


def test_a_link_to_nothing_is_attached_and_detached(server: ServiceBusServer) -> None:
    with Raw(server) as client:
        answer = client.attach("nowhere", receives=False)
        assert answer.target is None
        refused = client.hear_a(Detach)
        assert refused.closed
        condition, description, info = refused.error.value
        assert (condition, info) == ("amqp:not-found", {})
        assert "nowhere" in description


@pytest.mark.parametrize(
    ("said", "rest"),
    [
        (b"\xff" * 20, b""),
        (Transfer(0, 0, b"a", 0, False, False).encode(), b""),  # on a channel without a session
        (encode(Described(ULong(0x99), [])), b""),
        (encode(Described(ULong(0x18), [1, 2, 3])), b""),
    ],
)
def test_what_is_against_the_protocol_ends_the_connection_alone(
    server: ServiceBusServer, said: bytes, rest: bytes
) -> None:
    with Raw(server) as bystander, Raw(server) as client:
        client._socket.sendall(frame(7, said + rest))
        closed = client.hear_a(Close)
        assert closed.error.value[0] == "amqp:decode-error"
        bystander.attach("nowhere", receives=True)
