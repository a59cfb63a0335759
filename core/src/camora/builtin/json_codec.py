"""The JSON codec: messages that people and other languages can read."""

from __future__ import annotations

import msgspec

from camora.builtin.struct_codec import StructCodec
from camora.message import Message

__all__ = ["JsonCodec"]


class JsonCodec(StructCodec):
    """UTF-8 JSON by msgspec; see `docs/wire-format.md`."""

    name = "json"
    suspicious = (b"null",)

    def __init__(self) -> None:
        super().__init__(msgspec.json.Encoder(), msgspec.json.Decoder(Message), msgspec.json.Decoder())
