"""Reading a connection of the client's in large pieces, and its messages only as far as somebody looks at them.

The client reads each frame in two steps under a lock and a timer, and copies every part of each message into objects of
its own: that is most of what receiving costs. Here one read brings many frames, and a message is looked at where it
lies.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

__all__ = ["Received", "read_in_pieces"]

_PIECE = 128 * 1024
_HEAD = 8
_EMPTY = (1, b"EMPTY")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_in_pieces(transport: Any) -> None:
    """Let this transport read many frames at a time. One that is not of TCP, or knows other parts, stays as it is.

    The end of the connection is an error here; the client takes it for silence.
    """
    reader = getattr(transport, "reader", None)
    left = getattr(transport, "_read_buffer", None)
    if isinstance(reader, asyncio.StreamReader) and left is not None and hasattr(transport, "receive_frame"):
        transport.receive_frame = _Frames(reader, left.read()).receive


class _Frames:
    """What comes in, cut into frames."""

    def __init__(self, reader: asyncio.StreamReader, begun: bytes) -> None:
        from azure.servicebus._pyamqp._decode import decode_frame

        self._decode: Callable[[memoryview], Any] = decode_frame
        self._reader = reader
        self._lock = asyncio.Lock()
        self._data = bytearray(begun)
        self._found: deque[tuple[int, Any]] = deque()

    async def receive(self, timeout: float | None = None, **_: Any) -> tuple[int | None, Any]:
        """The next one's channel and what it says; None for both if none comes within so many seconds.

        Raises `OSError` when there are no more.
        """
        if not self._found:
            self._cut()
        while not self._found:
            try:
                # The client's requests read, too, while they wait for their answers.
                async with asyncio.timeout(timeout), self._lock:
                    if not self._found:
                        await self._read()
            except TimeoutError:
                return None, None
        return self._found.popleft()

    async def _read(self) -> None:
        piece = await self._reader.read(_PIECE)
        if not piece:
            raise ConnectionResetError("the service has closed the connection")
        self._data += piece
        self._cut()

    def _cut(self) -> None:
        """A frame is a length of four bytes, where its body begins in words of four, its kind, a channel, and its body.

        AMQP 1.0, part 2, section 2.3.1.
        """
        whole, at = memoryview(bytes(self._data)), 0
        while len(whole) - at >= _HEAD:
            end = at + int.from_bytes(whole[at : at + 4], "big")
            if end - at < _HEAD:
                raise OSError("what the service sends is no AMQP")
            if end > len(whole):
                break
            body = whole[at + whole[at + 4] * 4 : end]
            channel = int.from_bytes(whole[at + 6 : at + _HEAD], "big")
            self._found.append((channel, self._decode(body) if body else _EMPTY))
            at = end
        del self._data[:at]


class Received:
    """A message as the client read it from the wire.

    What is asked of each one is here. All else is as the client's own `ServiceBusReceivedMessage` has it, which is made
    when it is needed.
    """

    __slots__ = ("_build", "_built", "_message")

    def __init__(self, message: Any, build: Callable[[], Any]) -> None:
        self._message = message
        self._build = build
        self._built: Any = None

    def __getattr__(self, name: str) -> Any:
        if self._built is None:
            self._built = self._build()
        return getattr(self._built, name)

    def _note(self, name: bytes) -> Any:
        notes = self._message.message_annotations
        return None if notes is None else notes.get(name)

    @property
    def correlation_id(self) -> Any:
        """As its sender gave it."""
        properties = self._message.properties
        found = None if properties is None else properties.correlation_id
        try:
            return found.decode() if isinstance(found, bytes) else found
        except UnicodeDecodeError:
            return found

    @property
    def application_properties(self) -> Any:
        """As its sender gave them, with names and texts as bytes."""
        return self._message.application_properties

    @property
    def delivery_count(self) -> int | None:
        """How often it was delivered before."""
        header = self._message.header
        count: int | None = None if header is None else header.delivery_count
        return count

    @property
    def sequence_number(self) -> int | None:
        """Its number in the entity."""
        number: int | None = self._note(b"x-opt-sequence-number")
        return number

    @property
    def locked_until_utc(self) -> datetime | None:
        """When its lock ends, by the service's clock."""
        return _moment(self._note(b"x-opt-locked-until"))

    @property
    def enqueued_time_utc(self) -> datetime | None:
        """When the service got it, by its own clock."""
        return _moment(self._note(b"x-opt-enqueued-time"))

    @property
    def body(self) -> Any:
        """Bytes at once, where it is bytes; else as the client has it."""
        found = self._message.data
        if not found:
            return self.__getattr__("body")
        return bytes(found[0]) if len(found) == 1 else b"".join(found)


def _moment(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else _EPOCH + timedelta(milliseconds=milliseconds)
