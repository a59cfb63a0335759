"""What peers say to each other ("OASIS AMQP 1.0, part 2: transport" and "part 5: security")."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Self

import attrs

from tests.servers.servicebus.amqp.types import (
    DecodeError,
    Described,
    Symbol,
    UByte,
    UInt,
    ULong,
    UShort,
    decode,
    encode,
)

__all__ = [
    "Attach",
    "Begin",
    "Close",
    "Detach",
    "Disposition",
    "End",
    "Flow",
    "Open",
    "Performative",
    "SaslInit",
    "SaslMechanisms",
    "SaslOutcome",
    "Transfer",
    "error",
    "read",
]

# As what fields are written: Python has one integer where AMQP has eight.
_TYPES: dict[str, Callable[[Any], Any]] = {
    "max_frame_size": UInt,
    "idle_time_out": UInt,
    "next_outgoing_id": UInt,
    "incoming_window": UInt,
    "outgoing_window": UInt,
    "handle_max": UInt,
    "handle": UInt,
    "initial_delivery_count": UInt,
    "next_incoming_id": UInt,
    "delivery_count": UInt,
    "link_credit": UInt,
    "available": UInt,
    "delivery_id": UInt,
    "message_format": UInt,
    "first": UInt,
    "last": UInt,
    "channel_max": UShort,
    "remote_channel": UShort,
    "snd_settle_mode": UByte,
    "rcv_settle_mode": UByte,
    "outcome": UByte,
    "max_message_size": ULong,
    "mechanism": Symbol,
}


@attrs.define
class Performative:
    """One of them. A field that is None is not said."""

    code: ClassVar[int]

    @classmethod
    def of(cls, values: list[Any]) -> Self:
        """From what was read; more fields than there are is an error of the peer's."""
        try:
            return cls(*values)
        except TypeError:
            raise DecodeError(f"{len(values)} fields are too many for {cls.__name__}") from None

    def encode(self) -> bytes:
        """Its bytes, without the fields at the end that are not said."""
        values: list[Any] = []
        for field in attrs.fields(type(self)):
            value = getattr(self, field.name)
            kind = _TYPES.get(field.name)
            values.append(value if value is None or kind is None else kind(value))
        while values and values[-1] is None:
            values.pop()
        return encode(Described(ULong(self.code), values))


@attrs.define
class Open(Performative):
    """Begins a connection."""

    code = 0x10
    container_id: str | None = None
    hostname: str | None = None
    max_frame_size: int | None = None
    channel_max: int | None = None
    idle_time_out: int | None = None
    outgoing_locales: Any = None
    incoming_locales: Any = None
    offered_capabilities: Any = None
    desired_capabilities: Any = None
    properties: dict[Any, Any] | None = None


@attrs.define
class Begin(Performative):
    """Begins a session."""

    code = 0x11
    remote_channel: int | None = None
    next_outgoing_id: int | None = None
    incoming_window: int | None = None
    outgoing_window: int | None = None
    handle_max: int | None = None
    offered_capabilities: Any = None
    desired_capabilities: Any = None
    properties: dict[Any, Any] | None = None


@attrs.define
class Attach(Performative):
    """Begins a link. `role` is True for a receiver."""

    code = 0x12
    name: str | None = None
    handle: int | None = None
    role: bool | None = None
    snd_settle_mode: int | None = None
    rcv_settle_mode: int | None = None
    source: Any = None
    target: Any = None
    unsettled: Any = None
    incomplete_unsettled: bool | None = None
    initial_delivery_count: int | None = None
    max_message_size: int | None = None
    offered_capabilities: Any = None
    desired_capabilities: Any = None
    properties: dict[Any, Any] | None = None


@attrs.define
class Flow(Performative):
    """Says how much may be sent."""

    code = 0x13
    next_incoming_id: int | None = None
    incoming_window: int | None = None
    next_outgoing_id: int | None = None
    outgoing_window: int | None = None
    handle: int | None = None
    delivery_count: int | None = None
    link_credit: int | None = None
    available: int | None = None
    drain: bool | None = None
    echo: bool | None = None
    properties: dict[Any, Any] | None = None


@attrs.define
class Transfer(Performative):
    """Brings a message, or a part of one; the part itself comes after it in the frame."""

    code = 0x14
    handle: int | None = None
    delivery_id: int | None = None
    delivery_tag: bytes | None = None
    message_format: int | None = None
    settled: bool | None = None
    more: bool | None = None
    rcv_settle_mode: int | None = None
    state: Any = None
    resume: bool | None = None
    aborted: bool | None = None
    batchable: bool | None = None


@attrs.define
class Disposition(Performative):
    """Says what has become of deliveries. `role` is True from a receiver."""

    code = 0x15
    role: bool | None = None
    first: int | None = None
    last: int | None = None
    settled: bool | None = None
    state: Any = None
    batchable: bool | None = None


@attrs.define
class Detach(Performative):
    """Ends a link."""

    code = 0x16
    handle: int | None = None
    closed: bool | None = None
    error: Any = None


@attrs.define
class End(Performative):
    """Ends a session."""

    code = 0x17
    error: Any = None


@attrs.define
class Close(Performative):
    """Ends a connection."""

    code = 0x18
    error: Any = None


@attrs.define
class SaslMechanisms(Performative):
    """Which ways there are to say who one is."""

    code = 0x40
    mechanisms: Any = None


@attrs.define
class SaslInit(Performative):
    """Says who one is."""

    code = 0x41
    mechanism: str | None = None
    initial_response: bytes | None = None
    hostname: str | None = None


@attrs.define
class SaslOutcome(Performative):
    """Says whether that is believed: 0 is yes."""

    code = 0x44
    outcome: int | None = None
    additional_data: bytes | None = None


_KINDS: dict[int, type[Performative]] = {
    kind.code: kind
    for kind in (
        Open, Begin, Attach, Flow, Transfer, Disposition, Detach, End, Close, SaslMechanisms, SaslInit, SaslOutcome,
    )
}  # fmt: skip


def read(body: bytes, at: int = 0) -> tuple[Performative, int]:
    """What a frame's body says, and where the rest of it begins. Raises `DecodeError`."""
    if body[at : at + 2] == b"\x00\x53":  # nearly always: a descriptor of one byte
        code = body[at + 2]
        values, at = decode(body, at + 3)
    else:
        described, at = decode(body, at)
        if not isinstance(described, Described) or not isinstance(described.descriptor, int):
            raise DecodeError("a frame does not begin with a performative")
        code, values = described.descriptor, described.value
    kind = _KINDS.get(code)
    if kind is None or not isinstance(values, list):
        raise DecodeError(f"no performative has the code {code:#04x}")
    return kind.of(values), at


def error(condition: str, description: str = "", **info: Any) -> Described:
    """An error in all its three fields: clients have been seen to fail over one that ends after the second."""
    return Described(
        ULong(0x1D), [Symbol(condition), description, {Symbol(name): value for name, value in info.items()}]
    )
