"""The MessagePack codec: the same messages, smaller and faster."""

from __future__ import annotations

import msgspec

from camora.builtin.struct_codec import StructCodec
from camora.message import Message

__all__ = ["MsgpackCodec"]


class MsgpackCodec(StructCodec):
    """MessagePack by msgspec; field names as in JSON, see `docs/wire-format.md`."""

    name = "msgpack"
    # The first bytes of infinities and NaNs as MessagePack writes them: refused, as in JSON, so codecs can be changed.
    suspicious = (b"\xcb\x7f\xf0", b"\xcb\xff\xf0", b"\xcb\x7f\xf8", b"\xcb\xff\xf8")

    def __init__(self) -> None:
        super().__init__(msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(Message), msgspec.msgpack.Decoder())
