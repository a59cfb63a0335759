"""Whose message some bytes are: what is read of a body that others have written, without trusting it."""

from __future__ import annotations

import msgspec
from camora.ids import IdSource

__all__ = ["Head", "head_of"]

_SIGNED = b"camora-signed "
_LONGEST = 200
_EXACT = 2**53
"""The numbers of a server's scripts are exact up to this one."""
_new_id = IdSource()


class Head(msgspec.Struct, gc=False, frozen=True):
    """The fields of the wire format that a broker needs."""

    id: str
    task: str = ""
    due: int = 0
    expires: int | None = None
    priority: int = 0
    key: str | None = None
    key_ttl: float = 0.0


_of_json = msgspec.json.Decoder(Head).decode
_of_msgpack = msgspec.msgpack.Decoder(Head).decode


def head_of(body: bytes) -> Head:
    """What a message in JSON or MessagePack, signed or not, says of itself; where it cannot be read, a new id."""
    inner = body
    if body.startswith(_SIGNED):
        _, _, inner = body.partition(b"\n")
    decode = _of_json if inner.lstrip()[:1] == b"{" else _of_msgpack
    try:
        head = decode(inner)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return Head(_new_id())
    return head if _usable(head) else Head(_new_id())


def _usable(head: Head) -> bool:
    return (
        0 < len(head.id) <= _LONGEST
        and 0 <= head.priority <= 9
        and 0 <= head.due <= _EXACT
        and -_EXACT <= (head.expires or 0) <= _EXACT
        and 0 <= head.key_ttl * 1000 <= _EXACT
    )
