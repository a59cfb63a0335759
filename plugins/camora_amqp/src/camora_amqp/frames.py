"""The frames of AMQP 0-9-1 on the path of a job, written and read by hand; pamqp knows all others.

Layouts are those of the specification, section 4.2 (frames) and 4.2.6 (content); classes and methods of its chapter
1.8 (basic).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from pamqp import decode, encode

__all__ = [
    "HEARTBEAT",
    "Deliver",
    "Properties",
    "ack",
    "nack",
    "properties",
    "publish",
    "read_deliver",
    "read_properties",
    "read_returned",
    "unsigned",
    "with_headers",
]

METHOD, HEADER, BODY, BEAT = 1, 2, 3, 8
END = 0xCE
_END = b"\xce"
HEARTBEAT = b"\x08\x00\x00\x00\x00\x00\x00\xce"

DELIVER = b"\x00\x3c\x00\x3c"
ACK = b"\x00\x3c\x00\x50"
NACK = b"\x00\x3c\x00\x78"
RETURN = b"\x00\x3c\x00\x32"

FRAME = struct.Struct(">BHI")
CONFIRM = struct.Struct(">QB")
"""A delivery tag, and whether it stands for all before it, too."""
_METHOD = struct.Struct(">BHIHH")
_CONTENT = struct.Struct(">HHQ")
_FLAGS = struct.Struct(">H")
_TAG = struct.Struct(">QB")

# In the order in which they stand in a header.
_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE = 1 << 15, 1 << 14, 1 << 13, 1 << 12
_PRIORITY, _CORRELATION, _REPLY_TO, _EXPIRATION = 1 << 11, 1 << 10, 1 << 9, 1 << 8
_MESSAGE_ID, _TIMESTAMP, _TYPE, _USER, _APP = 1 << 7, 1 << 6, 1 << 5, 1 << 4, 1 << 3

LONGEST = 255
"""Bytes of a short string: names, routing keys, and properties that are texts."""


class Properties:
    """What of a message's properties is read: `headers` only where there are any."""

    __slots__ = ("correlation", "headers", "message_id", "reply_to", "type")

    def __init__(self) -> None:
        self.headers: Mapping[str, Any] = {}
        self.correlation = ""
        self.reply_to = ""
        self.message_id = ""
        self.type = ""


class Deliver:
    """A message as it came: which consumer it is for, and the number under which it is answered."""

    __slots__ = ("body", "consumer", "exchange", "properties", "redelivered", "routing_key", "tag")

    def __init__(self, consumer: bytes, tag: int, redelivered: bool, exchange: str, routing_key: str) -> None:
        self.consumer = consumer
        self.tag = tag
        self.redelivered = redelivered
        self.exchange = exchange
        self.routing_key = routing_key
        self.properties = b""
        """Not read yet."""
        self.body = b""


def _short(text: str) -> bytes:
    raw = text.encode()
    return bytes((len(raw),)) + raw


def properties(
    *,
    message_id: str,
    type: str = "",  # noqa: A002 -- its name in the protocol
    persistent: bool = True,
    priority: int | None = None,
    reply_to: str = "",
    correlation: str = "",
    expiration: str = "",
    headers: Mapping[str, Any] | None = None,
) -> bytes:
    """The flags and properties of a content header."""
    flags = _DELIVERY_MODE | _MESSAGE_ID
    parts = [b""]
    if headers:
        flags |= _HEADERS
        parts.append(encode.field_table(dict(headers)))
    parts.append(b"\x02" if persistent else b"\x01")
    if priority is not None:
        flags |= _PRIORITY
        parts.append(bytes((priority,)))
    for text, flag in ((correlation, _CORRELATION), (reply_to, _REPLY_TO), (expiration, _EXPIRATION)):
        if text:
            flags |= flag
            parts.append(_short(text))
    parts.append(_short(message_id))
    if type:
        flags |= _TYPE
        parts.append(_short(type))
    parts[0] = _FLAGS.pack(flags)
    return b"".join(parts)


def publish(
    channel: int, exchange: str, routing_key: str, header: bytes, body: bytes, largest: int, *, mandatory: bool = True
) -> bytes:
    """Basic.Publish with its content; `largest` is the most bytes of a frame's payload."""
    method = b"\x00\x00" + _short(exchange) + _short(routing_key) + (b"\x01" if mandatory else b"\x00")
    size = len(body)
    parts = [
        _METHOD.pack(METHOD, channel, len(method) + 4, 60, 40),
        method,
        _END,
        FRAME.pack(HEADER, channel, 12 + len(header)),
        _CONTENT.pack(60, 0, size),
        header,
        _END,
    ]
    for start in range(0, size, largest):
        piece = body if size <= largest else body[start : start + largest]
        parts += (FRAME.pack(BODY, channel, len(piece)), piece, _END)
    return b"".join(parts)


def ack(channel: int, tag: int, *, multiple: bool = False) -> bytes:
    """Basic.Ack."""
    return _METHOD.pack(METHOD, channel, 13, 60, 80) + _TAG.pack(tag, multiple) + _END


def nack(channel: int, tag: int, *, requeue: bool) -> bytes:
    """Basic.Nack of one message."""
    return _METHOD.pack(METHOD, channel, 13, 60, 120) + _TAG.pack(tag, 2 if requeue else 0) + _END


def read_deliver(payload: bytes) -> Deliver:
    """Basic.Deliver, from behind the number of its method."""
    at = 1 + payload[0]
    consumer = payload[1:at]
    tag, redelivered = _TAG.unpack_from(payload, at)
    at += 9
    end = at + 1 + payload[at]
    exchange = payload[at + 1 : end].decode()
    routing_key = payload[end + 1 : end + 1 + payload[end]].decode()
    return Deliver(consumer, tag, bool(redelivered), exchange, routing_key)


def read_returned(payload: bytes) -> tuple[str, str, str]:
    """Basic.Return, from behind the number of its method: why, and the exchange and the routing key."""
    texts = []
    at = 2
    for _ in range(3):
        end = at + 1 + payload[at]
        texts.append(payload[at + 1 : end].decode(errors="replace"))
        at = end
    reason, exchange, routing_key = texts
    return reason, exchange, routing_key


def read_properties(raw: bytes) -> Properties:
    """The flags and properties of a content header. Raises `ValueError` and others for what is none."""
    found = Properties()
    [flags] = _FLAGS.unpack_from(raw)
    at = _behind_content(raw, flags)
    if flags & _HEADERS:
        size, found.headers = decode.field_table(raw[at:])
        at += size
    at += bool(flags & _DELIVERY_MODE) + bool(flags & _PRIORITY)
    for flag, name in _TEXTS:
        if flags & flag:
            end = at + 1 + raw[at]
            if name:
                setattr(found, name, raw[at + 1 : end].decode(errors="replace"))
            at = end
    if flags & _TIMESTAMP:
        at += 8
    if flags & _TYPE:
        found.type = raw[at + 1 : at + 1 + raw[at]].decode(errors="replace")
    return found


_TEXTS = (
    (_CORRELATION, "correlation"),
    (_REPLY_TO, "reply_to"),
    (_EXPIRATION, ""),
    (_MESSAGE_ID, "message_id"),
)


def _behind_content(raw: bytes, flags: int) -> int:
    """Where the headers begin."""
    at = 2
    for flag in (_CONTENT_TYPE, _CONTENT_ENCODING):
        if flags & flag:
            at += 1 + raw[at]
    return at


def with_headers(raw: bytes, headers: Mapping[str, Any]) -> bytes:
    """The same properties, with other headers."""
    [flags] = _FLAGS.unpack_from(raw)
    rest = at = _behind_content(raw, flags)
    if flags & _HEADERS:
        rest += 4 + int.from_bytes(raw[at : at + 4], "big")
    table = encode.field_table(dict(headers)) if headers else b""
    flags = flags | _HEADERS if headers else flags & ~_HEADERS
    return _FLAGS.pack(flags) + raw[2:at] + table + raw[rest:]


def unsigned(raw: bytes) -> bytes:
    """The same properties without the sender's name: a server takes no message under another one's."""
    [flags] = _FLAGS.unpack_from(raw)
    if not flags & _USER:
        return raw
    at = _behind_content(raw, flags)
    if flags & _HEADERS:
        at += 4 + int.from_bytes(raw[at : at + 4], "big")
    at += bool(flags & _DELIVERY_MODE) + bool(flags & _PRIORITY)
    for flag, _ in _TEXTS:
        if flags & flag:
            at += 1 + raw[at]
    if flags & _TIMESTAMP:
        at += 8
    if flags & _TYPE:
        at += 1 + raw[at]
    return _FLAGS.pack(flags & ~_USER) + raw[2:at] + raw[at + 1 + raw[at] :]
