"""A message as the bytes of AMQP 1.0.

The client's own encoding takes most of the time of a dispatch: every message is made into three objects, and encoded
twice. This knows the few types that a message of Camora's has, and those that strangers may give it.
https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-types-v1.0-os.html, section 1.6, and part 3, section 3.2.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

__all__ = ["encoded"]

_NULL = b"\x40"
_ANNOTATIONS, _PROPERTIES, _APPLICATION, _DATA = b"\x00\x53\x72", b"\x00\x53\x73", b"\x00\x53\x74", b"\x00\x53\x75"
_SMALL = 256
_INT, _LONG = 2**31, 2**63


def encoded(
    body: bytes,
    *,
    properties: Iterable[tuple[int, str]],
    application: Mapping[str, Any],
    annotations: Mapping[str, Any],
) -> bytes:
    """All sections of a message. `properties` are texts by their places in that section, in order.

    Moments among the `annotations` are whole milliseconds since the epoch. Values of application properties are texts,
    bytes, whole numbers, floats, truths, UUIDs and None; what is none of these goes as its text.
    """
    sections = []
    if annotations:
        pairs = ((_text(name, b"\xa3", b"\xb3"), _moment_or_text(value)) for name, value in annotations.items())
        sections.append(_ANNOTATIONS + _map(pairs))
    sections.append(_PROPERTIES + _listed(properties))
    if application:
        sections.append(_APPLICATION + _map((_text(name), _value(value)) for name, value in application.items()))
    sections.append(_DATA + _sized(body, b"\xa0", b"\xb0"))
    return b"".join(sections)


def _listed(fields: Iterable[tuple[int, str]]) -> bytes:
    """A list of which most places are empty; those at its end are left out."""
    parts: list[bytes] = []
    for place, text in fields:
        parts += [_NULL] * (place - len(parts))
        # Content types and encodings are symbols, all else texts.
        parts.append(_text(text, b"\xa3", b"\xb3") if place in _SYMBOLS else _text(text))
    return _compound(parts, b"\xc0", b"\xd0")


_SYMBOLS = (6, 7)


def _map(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    return _compound([part for pair in pairs for part in pair], b"\xc1", b"\xd1")


def _compound(parts: list[bytes], small: bytes, large: bytes) -> bytes:
    content = b"".join(parts)
    if len(content) + 1 < _SMALL and len(parts) < _SMALL:
        return small + bytes((len(content) + 1, len(parts))) + content
    return large + struct.pack(">II", len(content) + 4, len(parts)) + content


def _sized(raw: bytes, small: bytes, large: bytes) -> bytes:
    if len(raw) < _SMALL:
        return small + bytes((len(raw),)) + raw
    return large + struct.pack(">I", len(raw)) + raw


def _text(text: str, small: bytes = b"\xa1", large: bytes = b"\xb1") -> bytes:
    return _sized(text.encode(errors="replace"), small, large)


def _moment_or_text(value: int | str) -> bytes:
    return _text(value) if isinstance(value, str) else b"\x83" + struct.pack(">q", value)


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool):
        return {None: _NULL, True: b"\x41", False: b"\x42"}[value]
    if isinstance(value, int) and -_LONG <= value < _LONG:
        return b"\x71" + struct.pack(">i", value) if -_INT <= value < _INT else b"\x81" + struct.pack(">q", value)
    if isinstance(value, float):
        return b"\x82" + struct.pack(">d", value)
    if isinstance(value, (bytes, bytearray)):
        return _sized(bytes(value), b"\xa0", b"\xb0")
    return b"\x98" + value.bytes if isinstance(value, UUID) else _text(str(value))
