"""Frames read many at a time are those that came, and messages say what the client's own would say of them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from azure.servicebus import ServiceBusMessage
from azure.servicebus._pyamqp._encode import encode_frame
from azure.servicebus._pyamqp.performatives import FlowFrame
from azure.servicebus.amqp import AmqpAnnotatedMessage
from camora_servicebus.messages import body_of, job_id_of
from camora_servicebus.swift import Received, read_in_pieces

from tests.servers.servicebus import ServiceBusServer
from tests.servicebus.holding import ack, consuming, settle, take
from tests.servicebus.sending import bare, new_name

ATTRIBUTES = (
    "message_id", "correlation_id", "subject", "session_id", "application_properties", "delivery_count",
    "sequence_number", "enqueued_time_utc", "locked_until_utc", "content_type", "to", "reply_to", "partition_key",
)  # fmt: skip


@pytest.fixture(scope="module")
def shared() -> Iterator[ServiceBusServer]:
    with ServiceBusServer() as server:
        yield server


def strangers() -> list[Any]:
    """Messages of all sorts, as others send them."""
    annotated: list[dict[str, Any]] = [
        {"data_body": [b"one", b"two"]},
        {"value_body": {"a": 1}},
        {"value_body": "text"},
        {"sequence_body": [[1, 2], [3]]},
    ]
    return [
        ServiceBusMessage(b"plain"),
        ServiceBusMessage(b""),
        ServiceBusMessage("text", message_id="m", correlation_id="c", subject="s", to="t", content_type="text/plain"),
        ServiceBusMessage(
            b"a", application_properties={"n": 1, "t": "x", "u": uuid.uuid4(), "camora-copy": 3, "none": None}
        ),
        *(AmqpAnnotatedMessage(**parts) for parts in annotated),
    ]


async def test_a_message_says_what_the_client_s_own_says(shared: ServiceBusServer) -> None:
    queue = shared.create_queue(new_name())
    sent = strangers()
    async with bare(shared) as client, client.get_queue_sender(queue) as sender:
        for message in sent:
            await sender.send_messages(message)
    async with consuming(shared, queue) as (_, consumer):
        got = await take(consumer, len(sent))
        for one in got:
            ours = one.receipt.message
            assert isinstance(ours, Received)
            theirs = ours._build()
            for name in ATTRIBUTES:
                assert getattr(ours, name) == getattr(theirs, name), name
            assert body_of(ours) == body_of(theirs)
            assert type(body_of(ours)) is bytes
            assert job_id_of(ours) == job_id_of(theirs)
        await settle(consumer, *map(ack, got))


class Transport:
    """As much of the client's as is taken over."""

    def __init__(self, reader: Any, begun: bytes = b"") -> None:
        import io

        self.reader = reader
        self._read_buffer = io.BytesIO(begun)

    async def receive_frame(self, timeout: float | None = None, **_: Any) -> Any:
        raise AssertionError("it is the client's own still")


def frame(credit: int) -> bytes:
    header, body = encode_frame(
        FlowFrame(1, 2, 3, 4, 0, 0, credit, None, False, False, None)  # type: ignore[no-untyped-call]
    )
    return bytes(header) + b"\x00\x05" + bytes(body)


EMPTY = b"\x00\x00\x00\x08\x02\x00\x00\x00"


@pytest.mark.parametrize("size", [1, 3, 7, 8, 50, 10_000])
async def test_frames_come_whole_however_they_are_cut_on_the_way(size: int) -> None:
    reader = asyncio.StreamReader()
    data = b"".join(frame(number) for number in range(30)) + EMPTY + frame(99)
    transport = Transport(reader, data[:5])
    read_in_pieces(transport)

    async def come() -> None:
        for start in range(5, len(data), size):
            reader.feed_data(data[start : start + size])
            await asyncio.sleep(0)
        reader.feed_eof()

    coming = asyncio.create_task(come())
    found = [await transport.receive_frame(timeout=60) for _ in range(32)]
    await coming
    assert [fields[6] for _, (kind, fields) in found if kind == 19] == [*range(30), 99]
    assert {channel for channel, (kind, _) in found if kind == 19} == {5}
    assert [kind for _, (kind, _) in found].index(1) == 30, "the empty one in its place"
    with pytest.raises(OSError, match="closed"):
        await transport.receive_frame(timeout=60)


async def test_what_is_no_frame_ends_the_connection() -> None:
    reader = asyncio.StreamReader()
    transport = Transport(reader)
    read_in_pieces(transport)
    reader.feed_data(b"\x00\x00\x00\x01 this is no AMQP")
    with pytest.raises(OSError, match="no AMQP"):
        await transport.receive_frame(timeout=60)


async def test_silence_is_no_error_and_loses_nothing() -> None:
    reader = asyncio.StreamReader()
    transport = Transport(reader)
    read_in_pieces(transport)
    whole = frame(7)
    reader.feed_data(whole[:9])
    assert await transport.receive_frame(timeout=0.01) == (None, None)
    reader.feed_data(whole[9:])
    _, (_, fields) = await transport.receive_frame(timeout=60)
    assert fields[6] == 7


async def test_two_who_read_at_once_get_each_frame_once() -> None:
    reader = asyncio.StreamReader()
    transport = Transport(reader)
    read_in_pieces(transport)
    readers = [asyncio.create_task(transport.receive_frame(timeout=60)) for _ in range(4)]
    await asyncio.sleep(0)
    reader.feed_data(b"".join(frame(number) for number in range(4)))
    assert sorted(fields[6] for _, (_, fields) in await asyncio.gather(*readers)) == [0, 1, 2, 3]


async def test_a_transport_of_another_kind_stays_as_it_is() -> None:
    transport = Transport(object())
    read_in_pieces(transport)
    with pytest.raises(AssertionError, match="own still"):
        await transport.receive_frame()
