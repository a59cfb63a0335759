"""The types of AMQP 1.0 on the wire ("OASIS AMQP 1.0, part 1: types").

What Python has a type for is that type: None, bool, int (long), float (double), str, bytes, UUID, list, dict. The other
types are subclasses, so that a value that is read and written again stays what it was.
"""

from __future__ import annotations

import struct
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import attrs

__all__ = [
    "Array",
    "Byte",
    "Char",
    "Decimal",
    "DecodeError",
    "Described",
    "Float",
    "Int",
    "Short",
    "Symbol",
    "Timestamp",
    "UByte",
    "UInt",
    "ULong",
    "UShort",
    "decode",
    "encode",
    "value_end",
]


class DecodeError(ValueError):
    """The bytes are no value of AMQP."""


class Symbol(str):
    """A name out of a constrained set, in ASCII."""

    __slots__ = ()


class Char(str):
    """One character."""

    __slots__ = ()


class UByte(int):
    """8 bits without a sign."""


class UShort(int):
    """16 bits without a sign."""


class UInt(int):
    """32 bits without a sign."""


class ULong(int):
    """64 bits without a sign."""


class Byte(int):
    """8 bits with a sign."""


class Short(int):
    """16 bits with a sign."""


class Int(int):
    """32 bits with a sign. A plain `int` is a long of 64."""


class Timestamp(int):
    """Milliseconds since 1970."""


class Float(float):
    """32 bits. A plain `float` is a double of 64."""


class Decimal(bytes):
    """A decimal number of 4, 8 or 16 bytes, as it came: nobody here counts with it."""


@attrs.frozen
class Described:
    """A value and what it means."""

    descriptor: Any
    value: Any


class Array(list[Any]):
    """Values of one type; `code` is the constructor that all of them share, a wide one."""

    def __init__(self, code: int, values: Iterable[Any] = ()) -> None:
        super().__init__(values)
        self.code = code

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Array) and self.code == other.code and list.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = None  # type: ignore[assignment]


_u8, _i8 = struct.Struct(">B"), struct.Struct(">b")
_u16, _i16 = struct.Struct(">H"), struct.Struct(">h")
_u32, _i32 = struct.Struct(">I"), struct.Struct(">i")
_u64, _i64 = struct.Struct(">Q"), struct.Struct(">q")
_f32, _f64 = struct.Struct(">f"), struct.Struct(">d")
_u8u8 = struct.Struct(">BB")
_u32u32 = struct.Struct(">II")

# --- reading

Reader = Callable[[bytes, int], tuple[Any, int]]
_readers: list[Reader] = []


def decode(data: bytes, at: int = 0) -> tuple[Any, int]:
    """The value that begins at `at`, and where it ends. Raises `DecodeError`."""
    try:
        return _readers[data[at]](data, at + 1)
    except (IndexError, struct.error, UnicodeDecodeError, RecursionError, TypeError) as error:
        raise DecodeError(f"no value of AMQP at byte {at} of {len(data)}: {error}") from None


def value_end(data: bytes, at: int) -> int:
    """Where the value that begins at `at` ends, without reading what is in it. Raises `DecodeError`."""
    try:
        code = data[at]
        if code == 0:
            return value_end(data, value_end(data, at + 1))
        # The upper half of the code says how wide it is ("1.2.2 constructors").
        width = _WIDTHS.get(code >> 4)
        if width is None:
            raise DecodeError(f"no constructor of AMQP: {code:#04x} at byte {at}")
        if width >= 0:
            return at + 1 + width
        return at + 2 + data[at + 1] if width == -1 else at + 5 + _u32.unpack_from(data, at + 1)[0]
    except (IndexError, struct.error) as error:
        raise DecodeError(f"a value of AMQP is cut short at byte {at} of {len(data)}: {error}") from None


_WIDTHS = {4: 0, 5: 1, 6: 2, 7: 4, 8: 8, 9: 16, 0xA: -1, 0xB: -4, 0xC: -1, 0xD: -4, 0xE: -1, 0xF: -4}


def _constant(value: Any) -> Reader:
    return lambda _, at: (value, at)


def _number(layout: struct.Struct, kind: Callable[[Any], Any] | None = None) -> Reader:
    unpack, size = layout.unpack_from, layout.size
    if kind is None:
        return lambda data, at: (unpack(data, at)[0], at + size)
    return lambda data, at: (kind(unpack(data, at)[0]), at + size)


def _variable(layout: struct.Struct, convert: Callable[[bytes], Any]) -> Reader:
    unpack, width = layout.unpack_from, layout.size

    def read(data: bytes, at: int) -> tuple[Any, int]:
        at += width
        end = at + unpack(data, at - width)[0]
        if end > len(data):
            raise DecodeError(f"a value of AMQP ends at byte {end} of {len(data)}")
        return convert(data[at:end]), end

    return read


def _fixed(size: int, convert: Callable[[bytes], Any]) -> Reader:
    def read(data: bytes, at: int) -> tuple[Any, int]:
        if at + size > len(data):
            raise DecodeError(f"a value of AMQP ends at byte {at + size} of {len(data)}")
        return convert(data[at : at + size]), at + size

    return read


def _list(layout: struct.Struct) -> Reader:
    unpack, width = layout.unpack_from, layout.size

    def read(data: bytes, at: int) -> tuple[list[Any], int]:
        _, count = unpack(data, at)
        at += width
        _check_count(count, data, at)
        values = []
        readers = _readers
        for _ in range(count):
            value, at = readers[data[at]](data, at + 1)
            values.append(value)
        return values, at

    return read


def _map(layout: struct.Struct) -> Reader:
    read_list = _list(layout)

    def read(data: bytes, at: int) -> tuple[dict[Any, Any], int]:
        values, at = read_list(data, at)
        if len(values) % 2:
            raise DecodeError(f"a map of AMQP has a key without a value before byte {at}")
        return dict(zip(values[::2], values[1::2], strict=True)), at

    return read


def _array(layout: struct.Struct) -> Reader:
    unpack, width = layout.unpack_from, layout.size

    def read(data: bytes, at: int) -> tuple[Array, int]:
        size, count = unpack(data, at)
        end = at + width // 2 + size
        at += width
        _check_count(count, data, at)
        code = data[at]
        at += 1
        descriptor = None
        if code == 0:
            descriptor, at = decode(data, at)
            code = data[at]
            at += 1
        if _WIDTHS.get(code >> 4) == 0 and count > len(data):
            raise DecodeError(f"an array of {count} values in {len(data)} bytes")
        reader = _readers[code]
        values = []
        for _ in range(count):
            value, at = reader(data, at)
            values.append(value if descriptor is None else Described(descriptor, value))
        return Array(_WIDE.get(code, code), values), end

    return read


def _described(data: bytes, at: int) -> tuple[Described, int]:
    descriptor, at = _readers[data[at]](data, at + 1)
    value, at = _readers[data[at]](data, at + 1)
    return Described(descriptor, value), at


def _check_count(count: int, data: bytes, at: int) -> None:
    if count > len(data) - at:  # each takes a byte at least; else a small frame could ask for much memory
        raise DecodeError(f"{count} values in {len(data) - at} bytes")


def _unknown(data: bytes, at: int) -> tuple[Any, int]:
    raise DecodeError(f"no constructor of AMQP: {data[at - 1]:#04x} at byte {at - 1}")


def _symbol(data: bytes) -> Symbol:
    return Symbol(data.decode("ascii"))


def _text(data: bytes) -> str:
    return data.decode()


def _uuid(data: bytes) -> uuid.UUID:
    return uuid.UUID(bytes=data)


_READERS: dict[int, Reader] = {
    0x00: _described,
    0x40: _constant(None),
    0x41: _constant(True),
    0x42: _constant(False),
    0x43: _constant(UInt(0)),
    0x44: _constant(ULong(0)),
    0x45: lambda _, at: ([], at),
    0x50: _number(_u8, UByte),
    0x51: _number(_i8, Byte),
    0x52: _number(_u8, UInt),
    0x53: _number(_u8, ULong),
    0x54: _number(_i8, Int),
    0x55: _number(_i8),
    0x56: _number(_u8, bool),
    0x60: _number(_u16, UShort),
    0x61: _number(_i16, Short),
    0x70: _number(_u32, UInt),
    0x71: _number(_i32, Int),
    0x72: _number(_f32, Float),
    0x73: _fixed(4, lambda data: Char(data.decode("utf-32-be"))),
    0x74: _fixed(4, Decimal),
    0x80: _number(_u64, ULong),
    0x81: _number(_i64),
    0x82: _number(_f64),
    0x83: _number(_i64, Timestamp),
    0x84: _fixed(8, Decimal),
    0x94: _fixed(16, Decimal),
    0x98: _fixed(16, _uuid),
    0xA0: _variable(_u8, bytes),
    0xA1: _variable(_u8, _text),
    0xA3: _variable(_u8, _symbol),
    0xB0: _variable(_u32, bytes),
    0xB1: _variable(_u32, _text),
    0xB3: _variable(_u32, _symbol),
    0xC0: _list(_u8u8),
    0xC1: _map(_u8u8),
    0xD0: _list(_u32u32),
    0xD1: _map(_u32u32),
    0xE0: _array(_u8u8),
    0xF0: _array(_u32u32),
}
_readers += [_READERS.get(code, _unknown) for code in range(256)]

# --- writing

_WIDE = {
    0x41: 0x56, 0x42: 0x56, 0x43: 0x70, 0x52: 0x70, 0x44: 0x80, 0x53: 0x80, 0x54: 0x71, 0x55: 0x81,
    0xA0: 0xB0, 0xA1: 0xB1, 0xA3: 0xB3, 0x45: 0xD0, 0xC0: 0xD0, 0xC1: 0xD1, 0xE0: 0xF0,
}  # fmt: skip

Writer = Callable[[bytearray, Any], None]


def encode(value: Any) -> bytes:
    """The bytes of a value. Raises `TypeError` for one that has no type in AMQP, `struct.error` for one too large."""
    out = bytearray()
    write(out, value)
    return bytes(out)


def write(out: bytearray, value: Any) -> None:
    """Add the bytes of a value."""
    writer = _writers.get(type(value)) or _writer_of(value)
    writer(out, value)


def _writer_of(value: Any) -> Writer:
    for kind in type(value).__mro__:
        if found := _writers.get(kind):
            return found
    raise TypeError(f"AMQP has no type for {type(value).__name__}")


def _small(code: int, small: tuple[int, range] | None, layout: struct.Struct, zero: int | None = None) -> Writer:
    def write_number(out: bytearray, value: int) -> None:
        if zero is not None and value == 0:
            out.append(zero)
        elif small is not None and value in small[1]:
            out.append(small[0])
            out.append(value & 0xFF)
        else:
            out.append(code)
            out += layout.pack(value)

    return write_number


def _bytes(small: int, large: int, convert: Callable[[Any], bytes]) -> Writer:
    def write_bytes(out: bytearray, value: Any) -> None:
        data = convert(value)
        if len(data) < 256:
            out.append(small)
            out.append(len(data))
        else:
            out.append(large)
            out += _u32.pack(len(data))
        out += data

    return write_bytes


def _compound(out: bytearray, small: int, large: int, count: int, body: bytes | bytearray) -> None:
    if len(body) < 255 and count < 256:
        out += bytes((small, len(body) + 1, count))
    else:
        out.append(large)
        out += _u32u32.pack(len(body) + 4, count)
    out += body


def _write_list(out: bytearray, values: list[Any]) -> None:
    if not values:
        out.append(0x45)
        return
    body = bytearray()
    for value in values:
        write(body, value)
    _compound(out, 0xC0, 0xD0, len(values), body)


def _write_map(out: bytearray, values: dict[Any, Any]) -> None:
    body = bytearray()
    for key, value in values.items():
        write(body, key)
        write(body, value)
    _compound(out, 0xC1, 0xD1, 2 * len(values), body)


def _write_array(out: bytearray, values: Array) -> None:
    body = bytearray()
    items = list(values)
    if items and isinstance(items[0], Described):
        body.append(0)
        write(body, items[0].descriptor)
        items = [item.value for item in items]
    body.append(values.code)
    for item in items:
        body += _bare(values.code, item)
    _compound(out, 0xE0, 0xF0, len(values), body)


def _bare(code: int, value: Any) -> bytes:
    # A value of an array: the constructor stands before all of them, so all are as wide.
    layout = _LAYOUTS.get(code)
    if layout is not None:
        return layout.pack(value)
    out = bytearray()
    match code:
        case 0xB0 | 0xB1 | 0xB3:
            data = value if code == 0xB0 else value.encode("utf-8" if code == 0xB1 else "ascii")
            return _u32.pack(len(data)) + data
        case 0xD0 | 0xD1:
            items = value if code == 0xD0 else [item for pair in value.items() for item in pair]
            for item in items:
                write(out, item)
            return _u32u32.pack(len(out) + 4, len(items)) + bytes(out)
        case 0xF0:
            out.append(value.code)
            for item in value:
                out += _bare(value.code, item)
            return _u32u32.pack(len(out) + 4, len(value)) + bytes(out)
        case 0x40:
            return b""
    write(out, value)
    return bytes(out[1:])


_LAYOUTS = {
    0x50: _u8, 0x51: _i8, 0x56: _u8, 0x60: _u16, 0x61: _i16, 0x70: _u32, 0x71: _i32, 0x72: _f32,
    0x80: _u64, 0x81: _i64, 0x82: _f64, 0x83: _i64,
}  # fmt: skip


def _write_described(out: bytearray, value: Described) -> None:
    out.append(0)
    write(out, value.descriptor)
    write(out, value.value)


def _write_float(code: int, layout: struct.Struct) -> Writer:
    def write_float(out: bytearray, value: float) -> None:
        out.append(code)
        out += layout.pack(value)

    return write_float


def _write_decimal(out: bytearray, value: Decimal) -> None:
    out.append({4: 0x74, 8: 0x84, 16: 0x94}[len(value)])
    out += value


def _write_uuid(out: bytearray, value: uuid.UUID) -> None:
    out.append(0x98)
    out += value.bytes


def _write_char(out: bytearray, value: Char) -> None:
    out.append(0x73)
    out += value.encode("utf-32-be")


_signed = range(-128, 128)
_unsigned = range(256)

_writers: dict[type, Writer] = {
    type(None): lambda out, _: out.append(0x40),
    bool: lambda out, value: out.append(0x41 if value else 0x42),
    int: _small(0x81, (0x55, _signed), _i64),
    UByte: _small(0x50, None, _u8),
    UShort: _small(0x60, None, _u16),
    UInt: _small(0x70, (0x52, _unsigned), _u32, 0x43),
    ULong: _small(0x80, (0x53, _unsigned), _u64, 0x44),
    Byte: _small(0x51, None, _i8),
    Short: _small(0x61, None, _i16),
    Int: _small(0x71, (0x54, _signed), _i32),
    Timestamp: _small(0x83, None, _i64),
    float: _write_float(0x82, _f64),
    Float: _write_float(0x72, _f32),
    Decimal: _write_decimal,
    str: _bytes(0xA1, 0xB1, str.encode),
    Symbol: _bytes(0xA3, 0xB3, lambda value: value.encode("ascii")),
    Char: _write_char,
    bytes: _bytes(0xA0, 0xB0, bytes),
    bytearray: _bytes(0xA0, 0xB0, bytes),
    memoryview: _bytes(0xA0, 0xB0, bytes),
    uuid.UUID: _write_uuid,
    list: _write_list,
    tuple: lambda out, value: _write_list(out, list(value)),
    dict: _write_map,
    Array: _write_array,
    Described: _write_described,
}
