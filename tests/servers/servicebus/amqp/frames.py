"""Frames ("OASIS AMQP 1.0, part 2: transport", 2.3)."""

from __future__ import annotations

import struct

from tests.servers.servicebus.amqp.types import DecodeError

__all__ = ["AMQP", "AMQP_HEADER", "EMPTY", "SASL", "SASL_HEADER", "Frames", "frame"]

AMQP_HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"
AMQP, SASL = 0, 1

_header = struct.Struct(">IBBH")
EMPTY = _header.pack(8, 2, AMQP, 0)
"""Says nothing but that one is there."""


def frame(channel: int, body: bytes, kind: int = AMQP) -> bytes:
    """A frame of a body."""
    return _header.pack(len(body) + 8, 2, kind, channel) + body


class Frames:
    """Cuts what arrives into frames."""

    def __init__(self, max_size: int) -> None:
        self.max_size = max_size
        self._data = b""
        self._at = 0

    def feed(self, data: bytes) -> None:
        """More has arrived."""
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def next(self) -> tuple[int, int, bytes] | None:
        """The kind, the channel and the body of the next frame, None if it is not complete. Raises `DecodeError`."""
        at, left = self._at, len(self._data) - self._at
        if left < 8:
            return None
        size, offset, kind, channel = _header.unpack_from(self._data, at)
        if size < 8 or offset < 2 or offset * 4 > size or kind > SASL or size > self.max_size:
            raise DecodeError(f"no frame: {size} bytes, of at most {self.max_size}, of kind {kind}")
        if left < size:
            return None
        self._at = at + size
        return kind, channel, self._data[at + offset * 4 : at + size]

    def take_rest(self) -> bytes:
        """What came after the last frame: it belongs to another layer."""
        rest, self._data, self._at = self._data[self._at :], b"", 0
        return rest
