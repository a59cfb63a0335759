"""What is written by hand, pamqp reads, and the other way round, however the bytes come apart."""

from __future__ import annotations

import asyncio
import datetime as dt
from typing import Any

from camora_amqp import frames
from camora_amqp.wire import Channel, Wire
from hypothesis import given
from hypothesis import strategies as st
from pamqp import body as pamqp_body
from pamqp import commands, frame, header
from pamqp import decode as pamqp_decode

SHORT = st.text(max_size=40).filter(lambda text: len(text.encode()) <= 255)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789-_.: ", max_size=100)
"""Names that pamqp lets through its own checks."""
TAGS = st.integers(1, 2**63 - 1)
CHANNELS = st.integers(1, 65_535)
VALUES: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.text(max_size=20)
    | st.floats(allow_nan=False, width=32),  # pamqp writes no others
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SHORT.filter(bool), inner, max_size=3),
    max_leaves=8,
)
HEADERS = st.dictionaries(SHORT.filter(bool), VALUES, max_size=4)


def whole(data: bytes) -> list[tuple[int, Any]]:
    """All frames of these bytes, read by pamqp: channel and content."""
    found = []
    while data:
        size, channel, one = frame.unmarshal(data)
        found.append((channel, one))
        data = data[size:]
    return found


@given(
    CHANNELS, NAMES, NAMES, st.binary(max_size=300), st.integers(1, 100), SHORT, SHORT, SHORT, SHORT,
    st.booleans(), st.none() | st.integers(0, 9), HEADERS,
)  # fmt: skip
def test_pamqp_reads_what_is_published(
    channel: int, exchange: str, key: str, body: bytes, largest: int, name: str, kind: str, reply_to: str,
    expiration: str, persistent: bool, priority: int | None, headers: dict[str, Any],
) -> None:  # fmt: skip
    made = frames.properties(
        message_id=name, type=kind, persistent=persistent, priority=priority, reply_to=reply_to,
        correlation=name[::-1], expiration=expiration, headers=headers,
    )  # fmt: skip
    (first, method), (second, content), *rest = whole(frames.publish(channel, exchange, key, made, body, largest))
    assert first == second == channel and all(number == channel for number, _ in rest)
    assert isinstance(method, commands.Basic.Publish) and isinstance(content, header.ContentHeader)
    assert (method.exchange, method.routing_key, method.mandatory, method.immediate) == (exchange, key, True, False)
    found = content.properties
    assert content.body_size == len(body)
    assert (found.message_id, found.message_type or "") == (name, kind)
    assert (found.reply_to or "", found.correlation_id or "") == (reply_to, name[::-1])
    assert (found.delivery_mode, found.priority) == (2 if persistent else 1, priority)
    assert (found.expiration or "", found.headers or {}) == (expiration, headers)
    pieces = [one.value for _, one in rest if isinstance(one, pamqp_body.ContentBody)]
    assert b"".join(pieces) == body and len(pieces) == len(rest) and all(len(piece) <= largest for piece in pieces)


@given(CHANNELS, TAGS, st.booleans())
def test_pamqp_reads_what_is_answered(channel: int, tag: int, flag: bool) -> None:
    [(number, ack)] = whole(frames.ack(channel, tag, multiple=flag))
    assert isinstance(ack, commands.Basic.Ack) and (number, ack.delivery_tag, ack.multiple) == (channel, tag, flag)
    [(number, nack)] = whole(frames.nack(channel, tag, requeue=flag))
    assert isinstance(nack, commands.Basic.Nack)
    assert (number, nack.delivery_tag, nack.multiple, nack.requeue) == (channel, tag, False, flag)


ALL_PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "content_type": SHORT, "content_encoding": SHORT, "headers": HEADERS, "delivery_mode": st.sampled_from([1, 2]),
        "priority": st.integers(0, 255), "correlation_id": SHORT, "reply_to": SHORT, "expiration": SHORT,
        "message_id": SHORT, "message_type": SHORT, "user_id": SHORT, "app_id": SHORT,
        "timestamp": st.integers(1, 2**32).map(lambda seconds: dt.datetime.fromtimestamp(seconds, dt.UTC)),
    },
)  # fmt: skip


def raw(options: dict[str, Any], size: int = 0) -> bytes:
    """Flags and properties, as pamqp writes them."""
    made = header.ContentHeader(0, size, commands.Basic.Properties(**options))
    return frame.marshal(made, 1)[7 + 12 : -1]


@given(ALL_PROPERTIES)
def test_what_pamqp_writes_is_read(options: dict[str, Any]) -> None:
    found = frames.read_properties(raw(options))
    assert (found.message_id, found.type) == (options.get("message_id", ""), options.get("message_type", ""))
    assert (found.reply_to, found.correlation) == (options.get("reply_to", ""), options.get("correlation_id", ""))
    assert found.headers == (options.get("headers") or {})


@given(ALL_PROPERTIES, HEADERS)
def test_other_headers_change_nothing_else(options: dict[str, Any], headers: dict[str, Any]) -> None:
    changed = frames.with_headers(raw(options), headers)
    [(_, content)] = whole(
        frames.FRAME.pack(2, 1, 12 + len(changed)) + frames._CONTENT.pack(60, 0, 0) + changed + b"\xce"
    )
    [(_, before)] = whole(frame.marshal(header.ContentHeader(0, 0, commands.Basic.Properties(**options)), 1))
    assert (content.properties.headers or {}) == headers
    for name in commands.Basic.Properties.attributes():
        if name != "headers":
            assert getattr(content.properties, name) == getattr(before.properties, name)


class Deaf(asyncio.Transport):
    """A network that takes all, and keeps what it took."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.gone = False

    def write(self, data: Any) -> None:
        self.written += data

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None: ...

    def is_closing(self) -> bool:
        return self.gone

    def abort(self) -> None:
        self.gone = True

    close = abort


async def fed(
    chunks: list[bytes],
) -> tuple[list[frames.Deliver], list[tuple[int, bool, bool]], list[tuple[str, str, str, bytes, bytes]]]:
    """What a channel hears when these bytes come, one after the other."""
    wire = Wire("test", 1.0)
    wire._greeting = None
    wire.connection_made(Deaf())
    channel = wire.channels[1] = Channel(wire, 1)
    came: list[frames.Deliver] = []
    confirmed: list[tuple[int, bool, bool]] = []
    returned: list[tuple[str, str, str, bytes, bytes]] = []
    channel.on_deliver = came.append
    channel.on_confirm = lambda *answer: confirmed.append(answer)
    channel.on_return = lambda reason, one: returned.append(
        (reason, one.exchange, one.routing_key, one.body, one.properties)
    )
    for chunk in chunks:
        wire.data_received(chunk)
    assert wire.error is None and not wire._buffer
    return came, confirmed, returned


MESSAGES = st.tuples(TAGS, st.booleans(), NAMES, st.binary(max_size=60), ALL_PROPERTIES)


@given(
    st.lists(
        MESSAGES.map(lambda one: ("deliver", one))
        | MESSAGES.map(lambda one: ("return", one))
        | st.tuples(TAGS, st.booleans(), st.booleans()).map(lambda one: ("confirm", one))
        | st.just(("beat", ())),
        max_size=6,
    ),
    st.integers(1, 30),
    st.data(),
)
def test_it_may_come_apart_anywhere(what: list[tuple[str, Any]], piece: int, data: st.DataObject) -> None:
    stream = b""
    for kind, one in what:
        match kind:
            case "confirm":
                tag, multiple, stored = one
                answer = commands.Basic.Ack(tag, multiple) if stored else commands.Basic.Nack(tag, multiple)
                stream += frame.marshal(answer, 1)
            case "beat":
                stream += frames.HEARTBEAT
            case _:
                tag, again, name, body, options = one
                method: Any = commands.Basic.Deliver("tag", tag, again, name, name)
                if kind == "return":
                    method = commands.Basic.Return(312, "NO_ROUTE", name, name)
                stream += frame.marshal(method, 1)
                stream += frame.marshal(header.ContentHeader(0, len(body), commands.Basic.Properties(**options)), 1)
                for start in range(0, len(body), piece):
                    stream += frame.marshal(pamqp_body.ContentBody(body[start : start + piece]), 1)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8), label="cuts"))
    chunks = [stream[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    came, confirmed, returned = asyncio.run(fed(chunks))
    wanted = [one for kind, one in what if kind == "deliver"]
    assert [(m.tag, m.redelivered, m.exchange, m.routing_key, m.body, m.properties, m.consumer) for m in came] == [
        (tag, again, name, name, body, raw(options), b"tag") for tag, again, name, body, options in wanted
    ]
    assert confirmed == [one for kind, one in what if kind == "confirm"]
    assert returned == [
        ("NO_ROUTE", name, name, body, raw(options))
        for kind, (_, _, name, body, options) in ((kind, one) for kind, one in what if kind == "return")
    ]


@given(st.binary(min_size=1, max_size=200), st.booleans())
def test_bytes_that_are_none_end_it_or_wait_for_more(garbage: bytes, greeting: bool) -> None:
    async def main() -> None:
        wire = Wire("test", 1.0)
        if not greeting:
            wire._greeting = None
        transport = Deaf()
        wire.connection_made(transport)
        wire.channels[1] = Channel(wire, 1)
        for _ in range(3):
            wire.data_received(garbage)
        assert transport.gone == (wire.error is not None)

    asyncio.run(main())


def test_headers_as_pamqp_reads_them() -> None:
    _, found = pamqp_decode.field_table(frames.properties(message_id="", headers={"a": [1, {"b": None}]})[2:])
    assert found == {"a": [1, {"b": None}]}
