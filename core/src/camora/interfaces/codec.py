"""The codec: messages and results as bytes, and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from camora.message import Message

__all__ = ["Codec"]


class Codec(ABC):
    """Turns messages and values into bytes. No I/O, no state, safe from any thread.

    Values arrive as plain data (None, bool, int, float, str, list, dict with text keys), already unstructured by
    their annotations, and leave as such: rich types are not a codec's business. A codec never builds an object that
    the bytes name, so it can be pointed at untrusted bytes.
    """

    name: str
    """What it is called in settings."""

    authenticated: bool = False
    """True when what `decode` accepts was made by somebody who holds a key, and is unchanged since.

    A worker then refuses a message that its broker hands out under another id, or from another queue, than the message
    itself says: a genuine one that was copied elsewhere.
    """

    @abstractmethod
    def encode(self, message: Message) -> bytes:
        """The message as bytes. Raises `EncodeError` for what cannot travel, NaN and infinities included."""

    @abstractmethod
    def decode(self, body: bytes) -> Message:
        """The message in these bytes. Raises `DecodeError`, and nothing else, whatever the bytes are.

        The error's `reason` becomes the dead letter's.
        """

    def admit(self, body: bytes) -> Message:
        """As `decode`, for a message that is about to be run: one that is too old for that may be refused."""
        return self.decode(body)

    @abstractmethod
    def evolve(self, body: bytes, changes: dict[str, Any]) -> bytes:
        """The same message with these fields changed, and every other one kept, known to this version or not."""

    @abstractmethod
    def encode_value(self, value: Any) -> bytes:
        """A result as bytes. Raises `EncodeError`."""

    @abstractmethod
    def decode_value(self, data: bytes) -> Any:
        """The result in these bytes, as plain data. Raises `DecodeError`."""
