"""Messages on the wire: cut into sections, and put together again for who receives them.

"OASIS AMQP 1.0, part 3: messaging"; "AMQP 1.0 in Azure Service Bus and Event Hubs protocol guide" (message format and
annotations). Sections that nobody here needs stay bytes.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import attrs

from tests.servers.servicebus.amqp.types import (
    DecodeError,
    Described,
    Int,
    Symbol,
    Timestamp,
    UInt,
    ULong,
    decode,
    encode,
    value_end,
)
from tests.servers.servicebus.entities import Incoming, Stored

__all__ = ["BATCH", "Sections", "batched", "delivered", "message", "read_message", "sections"]

BATCH = 0x80013700
"""The message-format of a transfer whose data sections are messages ("protocol guide": batches)."""

_HEADER, _DELIVERY, _ANNOTATIONS, _PROPERTIES, _APPLICATION, _DATA, _SEQUENCE, _VALUE, _FOOTER = range(0x70, 0x79)


@attrs.frozen
class Sections:
    """Where what is, in the bytes of a message."""

    header: list[Any]
    annotations: dict[Any, Any]
    properties: list[Any]
    application: tuple[int, int]
    """Where the application properties begin and end, both where the body begins if there are none."""
    bare: int
    """Where the part begins that nobody on the way changes: properties, application properties, body."""
    body: int


def _walk(data: bytes) -> Iterator[tuple[int, int, int, int]]:
    at, end = 0, len(data)
    while at < end:
        if data[at : at + 2] == b"\x00\x53":
            code, value = data[at + 2], at + 3
        else:
            if data[at] != 0:
                raise DecodeError(f"a message has no section at byte {at}")
            code, value = decode(data, at + 1)
        stop = value_end(data, value)
        if stop > end:
            raise DecodeError(f"a message ends in the middle of a section, at byte {end} of {stop}")
        yield code, at, value, stop
        at = stop


def sections(data: bytes) -> Sections:
    """Cut a message. Raises `DecodeError`."""
    header: list[Any] = []
    annotations: dict[Any, Any] = {}
    properties: list[Any] = []
    bare = body = -1
    application = None
    for code, at, value, stop in _walk(data):
        if code == _HEADER:
            header = decode(data, value)[0]
        elif code == _ANNOTATIONS:
            annotations = decode(data, value)[0] or {}
        elif code != _DELIVERY:
            if bare < 0:
                bare = at
            if code == _PROPERTIES:
                properties = decode(data, value)[0]
            elif code == _APPLICATION:
                application = (at, stop)
            elif body < 0:
                body = at
    if body < 0:
        body = len(data)
    return Sections(header, annotations, properties, application or (body, body), body if bare < 0 else bare, body)


def batched(data: bytes) -> list[bytes]:
    """The messages of a batch."""
    return [decode(data, value)[0] for code, _, value, _ in _walk(data) if code == _DATA]


def read_message(data: bytes, *, message_id: str | None = None) -> Incoming:
    """A message as it was sent. Raises `DecodeError`."""
    cut = sections(data)
    properties = [*cut.properties, *[None] * (13 - len(cut.properties))]
    begin, end = cut.application
    given = decode(data, begin + 3)[0] if end > begin else {}
    ttl = cut.header[2] if len(cut.header) > 2 else None
    scheduled = cut.annotations.get("x-opt-scheduled-enqueue-time")
    return Incoming(
        encoded=data,
        message_id=_text(properties[0]) or message_id,
        session_id=_text(properties[10]),
        partition_key=_text(cut.annotations.get("x-opt-partition-key")),
        time_to_live=None if ttl is None else ttl / 1000,
        scheduled=None if scheduled is None else scheduled / 1000,
        subject=_text(properties[3]),
        correlation_id=_text(properties[5]),
        to=_text(properties[2]),
        reply_to=_text(properties[4]),
        reply_to_session_id=_text(properties[12]),
        content_type=_text(properties[6]),
        application_properties={_text(name) or "": value for name, value in (given or {}).items()},
        size=len(data),
    )


def _text(value: Any) -> str | None:
    if value is None or type(value) is str:
        return value
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return str(value)


_TIMES = struct.Struct(">q")
# Annotations that nearly every delivery has: the key, and the constructor of its value.
_SEQUENCE_KEY = encode(Symbol("x-opt-sequence-number")) + b"\x81"
_ENQUEUED_KEY = encode(Symbol("x-opt-enqueued-time")) + b"\x83"
_LOCKED_KEY = encode(Symbol("x-opt-locked-until")) + b"\x83"
_STATES = {"active": 0, "deferred": 1, "scheduled": 2}


def delivered(stored: Stored, *, delivery_count: int, locked_until: float | None, peeked: bool = False) -> bytes:
    """A message as it goes to who receives or peeks it: with the service's header and annotations before it."""
    data = stored.incoming.encoded
    cut = sections(data)
    header = [*cut.header, *[None] * (5 - len(cut.header))]
    header[4] = UInt(delivery_count)
    out = bytearray(b"\x00\x53\x70")
    out += encode(header)
    extra = {key: value for key, value in cut.annotations.items() if key not in _OURS}
    if stored.dead_letter_source:
        extra[Symbol("x-opt-deadletter-source")] = stored.dead_letter_source
    if stored.enqueued_sequence != stored.sequence_number:
        extra[Symbol("x-opt-enqueue-sequence-number")] = int(stored.enqueued_sequence)
    if peeked:
        extra[Symbol("x-opt-message-state")] = Int(_STATES[stored.state])
    fields = bytearray()
    for key, value in extra.items():
        fields += encode(key)
        fields += encode(value)
    count = len(extra) + 2
    fields += _SEQUENCE_KEY
    fields += _TIMES.pack(stored.sequence_number)
    fields += _ENQUEUED_KEY
    fields += _TIMES.pack(round(stored.enqueued * 1000))
    if locked_until is not None:
        count += 1
        fields += _LOCKED_KEY
        fields += _TIMES.pack(round(locked_until * 1000))
    out += b"\x00\x53\x72\xd1"
    out += (len(fields) + 4).to_bytes(4, "big")
    out += (2 * count).to_bytes(4, "big")
    out += fields
    if stored.properties:
        begin, end = cut.application
        out += data[cut.bare : begin]
        out += _section(_APPLICATION, stored.application_properties)
        out += data[end:]
    else:
        out += data[cut.bare :]
    return bytes(out)


# What the service writes itself: what a client sent under these names is not passed on.
_OURS = frozenset(
    f"x-opt-{name}"
    for name in (
        "sequence-number", "enqueued-time", "locked-until", "enqueue-sequence-number", "deadletter-source",
        "message-state", "lock-token",
    )
)  # fmt: skip


def _section(code: int, value: Any) -> bytes:
    return encode(Described(ULong(code), value))


def message(value: Any, application: Mapping[str, Any], *, correlation_id: Any, to: str | None = None) -> bytes:
    """An answer to a request, as a message of one value."""
    properties = [None, None, to, None, None, correlation_id]
    return _section(_PROPERTIES, properties) + _section(_APPLICATION, dict(application)) + _section(_VALUE, value)


@attrs.frozen
class Request:
    """A message as a request ("AMQP management, working draft 9"): its value and what stands with it."""

    message_id: Any
    reply_to: str | None
    application: dict[str, Any]
    value: Any


def read_request(data: bytes) -> Request:
    """Read a request. Raises `DecodeError`."""
    cut = sections(data)
    properties = [*cut.properties, *[None] * (5 - len(cut.properties))]
    begin, end = cut.application
    application = decode(data, begin + 3)[0] if end > begin else {}
    value = decode(data, cut.body + 3)[0] if cut.body < len(data) else None
    return Request(properties[0], _text(properties[4]), application, value)


def milliseconds(seconds: float) -> Timestamp:
    """A time as AMQP has it."""
    return Timestamp(round(seconds * 1000))


def lock_token(tag: bytes) -> uuid.UUID:
    """The lock of a delivery-tag: 16 bytes in the order of a GUID ("protocol guide": delivery-tag)."""
    return uuid.UUID(bytes_le=tag)
