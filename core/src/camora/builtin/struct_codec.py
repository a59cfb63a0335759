"""What the built-in codecs share: msgspec encoders and decoders, and errors that name the place."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from camora.errors import DecodeError, EncodeError
from camora.interfaces.codec import Codec
from camora.message import WIRE_VERSION, Message
from camora.plain import find_unencodable

__all__ = ["StructCodec"]

_BAD_BYTES = (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError)
_BAD_VALUES = (TypeError, ValueError, RecursionError, OverflowError)
_LONGEST_PATH = 100


class _Encoder(Protocol):
    def encode(self, value: Any, /) -> bytes: ...


class _Decoder(Protocol):
    def decode(self, data: bytes, /) -> Any: ...


class StructCodec(Codec):
    """A codec over msgspec's encoder and decoders for one format.

    `suspicious` are byte strings whose presence in encoded data is a reason to look closer at the value: JSON has no
    NaN, and msgspec writes null for it, silently. A null is rare enough that looking then costs nothing.
    """

    suspicious: tuple[bytes, ...] = ()

    def __init__(self, encoder: _Encoder, messages: _Decoder, values: _Decoder) -> None:
        self._encode = encoder.encode
        self._nothing = encoder.encode(None)
        self._decode_message = messages.decode
        self._decode_value = values.decode

    def encode(self, message: Message) -> bytes:
        """One object with the message's fields; defaults are left out."""
        try:
            body = self._encode(message)
        except _BAD_VALUES as error:
            raise _refused(message.task, _payload(message), error) from None
        for sign in self.suspicious:
            if sign in body and find_unencodable(_payload(message), ""):
                raise _refused(message.task, _payload(message))
        return body

    def decode(self, body: bytes) -> Message:
        """A message of this wire version or an older one."""
        try:
            message: Message = self._decode_message(body)
        except _BAD_BYTES as error:
            raise self._undecodable(body, error) from None
        if not 1 <= message.v <= WIRE_VERSION:
            raise DecodeError(
                f"message {message.id} has wire version {message.v}; this worker reads 1 to {WIRE_VERSION}"
            )
        return message

    def evolve(self, body: bytes, changes: dict[str, Any]) -> bytes:
        """Change fields; all others stay as they are."""
        data = self.decode_value(body)
        if not isinstance(data, dict):
            raise self._undecodable(body, "not an object")
        return self._encode({**data, **changes})

    def encode_value(self, value: Any) -> bytes:
        """Any plain value."""
        if value is None:
            return self._nothing
        try:
            data = self._encode(value)
        except _BAD_VALUES as error:
            raise _refused("result", value, error) from None
        for sign in self.suspicious:
            if sign in data and find_unencodable(value, ""):
                raise _refused("result", value)
        return data

    def decode_value(self, data: bytes) -> Any:
        """Plain data."""
        try:
            return self._decode_value(data)
        except _BAD_BYTES as error:
            raise self._undecodable(data, error) from None

    def _undecodable(self, data: bytes, why: object) -> DecodeError:
        return DecodeError(f"these {len(data)} bytes are not {self.name}: {why}")


def _payload(message: Message) -> dict[str, Any]:
    return {**message.kwargs, "args": message.args} if message.args else message.kwargs


def _refused(where: str, value: Any, error: Exception | None = None) -> EncodeError:
    path, why = find_unencodable(value, "") or ("", str(error))
    path = path.removeprefix(".")
    path = path if len(path) <= _LONGEST_PATH else f"{path[:_LONGEST_PATH]}…"
    return EncodeError(": ".join(part for part in (where, path, why) if part), path=path)
