"""AMQP over WebSockets (RFC 6455; "AMQP WebSocket binding": the subprotocol), as clients speak it behind firewalls."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import struct
from typing import Any

__all__ = ["WebSocket", "asks_for"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SUBPROTOCOL = "AMQPWSB10"
_CONTINUED, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10


def asks_for(request: bytes) -> bool:
    """Whether a whole request over HTTP is for a WebSocket."""
    return b"\r\nupgrade: websocket" in request.lower()


class WebSocket(asyncio.Protocol):
    """Speaks WebSocket to the client, and hands what is in it to another protocol, as if there were none."""

    def __init__(self, inner: asyncio.Protocol) -> None:
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._outer: _Masked | None = None
        self._data = b""
        self._greeted = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._outer = _Masked(transport)
        self._inner.connection_made(self._outer)

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._greeted and not self._greet():
            return
        payload = b"".join(self._messages())
        if payload:
            self._inner.data_received(payload)

    def connection_lost(self, exc: Exception | None) -> None:
        self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def _greet(self) -> bool:
        head, end, rest = self._data.partition(b"\r\n\r\n")
        if not end:
            return False
        lines = head.decode("latin-1").split("\r\n")[1:]
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        accept = base64.b64encode(
            hashlib.sha1(headers.get("sec-websocket-key", "").encode() + _GUID, usedforsecurity=False).digest()
        )
        assert self._transport is not None
        self._transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\nSec-WebSocket-Protocol: " + _SUBPROTOCOL.encode() + b"\r\n\r\n"
        )
        self._data = rest
        self._greeted = True
        return True

    def _messages(self) -> list[bytes]:
        found = []
        while (one := _read(self._data)) is not None:
            code, payload, end = one
            self._data = self._data[end:]
            if code in (_BINARY, _CONTINUED):
                found.append(payload)
            elif code == _PING:
                self._say(_PONG, payload)
            elif code in (_CLOSE, _TEXT):
                self._say(_CLOSE, payload[:2] if code == _CLOSE else struct.pack(">H", 1003))
                assert self._transport is not None
                self._transport.close()
                break
        return found

    def _say(self, code: int, payload: bytes) -> None:
        assert self._transport is not None
        self._transport.write(_frame(code, payload))


class _Masked(asyncio.Transport):
    """A transport whose every write is one message of the WebSocket's."""

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport = transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data:
            self._transport.write(_frame(_BINARY, bytes(data)))

    def close(self) -> None:
        self._transport.write(_frame(_CLOSE, struct.pack(">H", 1000)))
        self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)


def _frame(code: int, payload: bytes) -> bytes:
    # A server's frames are not masked (RFC 6455, 5.1).
    length = len(payload)
    if length < 126:
        return struct.pack(">BB", 0x80 | code, length) + payload
    if length < 65536:
        return struct.pack(">BBH", 0x80 | code, 126, length) + payload
    return struct.pack(">BBQ", 0x80 | code, 127, length) + payload


def _read(data: bytes) -> tuple[int, bytes, int] | None:
    """The code and the payload of the first frame, and where it ends; None if it is not there whole."""
    if len(data) < 2:
        return None
    length, at = data[1] & 0x7F, 2
    if length > 125:
        layout = ">H" if length == 126 else ">Q"
        at += struct.calcsize(layout)
        if len(data) < at:
            return None
        length = struct.unpack_from(layout, data, 2)[0]
    mask = b"\0\0\0\0"
    if data[1] & 0x80:
        mask, at = data[at : at + 4], at + 4
    end = at + length
    if len(data) < end:
        return None
    return data[0] & 0x0F, _unmasked(data[at:end], mask), end


def _unmasked(data: bytes, mask: bytes) -> bytes:
    if mask == b"\0\0\0\0":
        return data
    whole = mask * (len(data) // 4 + 1)
    number = int.from_bytes(data, "big") ^ int.from_bytes(whole[: len(data)], "big")
    return number.to_bytes(len(data), "big")
