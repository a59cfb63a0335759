"""The emulator's codec of AMQP 1.0: what is written is read as it was, and what is no AMQP is refused."""

from __future__ import annotations

import math
import struct
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.servers.servicebus.amqp.frames import Frames, frame
from tests.servers.servicebus.amqp.performatives import Attach, Disposition, Flow, Open, Transfer, error, read
from tests.servers.servicebus.amqp.types import (
    Array,
    Byte,
    Char,
    Decimal,
    DecodeError,
    Described,
    Float,
    Int,
    Short,
    Symbol,
    Timestamp,
    UByte,
    UInt,
    ULong,
    UShort,
    decode,
    encode,
    value_end,
)
from tests.servers.servicebus.entities import Incoming, InvalidArgument, Namespace, NotFound, Stored
from tests.servers.servicebus.message import delivered, read_message, sections
from tests.servers.servicebus.rules import add_rule, enumerate_rules, remove_rule


def _bits(number: int, kind: Any, *, signed: bool = False) -> st.SearchStrategy[Any]:
    low, high = (-(1 << number - 1), (1 << number - 1) - 1) if signed else (0, (1 << number) - 1)
    return st.integers(low, high).map(kind)


_characters = st.characters(exclude_categories=["Cs"])
_symbols = st.text(st.characters(max_codepoint=127), max_size=300).map(Symbol)
_simple = st.one_of(
    st.none(),
    st.booleans(),
    _bits(8, UByte),
    _bits(16, UShort),
    _bits(32, UInt),
    _bits(64, ULong),
    _bits(8, Byte, signed=True),
    _bits(16, Short, signed=True),
    _bits(32, Int, signed=True),
    _bits(64, int, signed=True),
    _bits(64, Timestamp, signed=True),
    st.floats(allow_nan=False),
    st.floats(width=32, allow_nan=False).map(Float),
    st.binary(min_size=4, max_size=4).map(Decimal),
    st.binary(min_size=8, max_size=8).map(Decimal),
    st.binary(min_size=16, max_size=16).map(Decimal),
    st.text(_characters, max_size=300),
    _symbols,
    _characters.map(Char),
    st.binary(max_size=300),
    st.uuids(),
)
_arrays = st.one_of(
    st.lists(_bits(64, int, signed=True)).map(lambda values: Array(0x81, values)),
    st.lists(_bits(32, UInt)).map(lambda values: Array(0x70, values)),
    st.lists(_bits(8, UByte)).map(lambda values: Array(0x50, values)),
    st.lists(st.booleans()).map(lambda values: Array(0x56, values)),
    st.lists(st.uuids()).map(lambda values: Array(0x98, values)),
    st.lists(_symbols).map(lambda values: Array(0xB3, values)),
    st.lists(st.text(_characters)).map(lambda values: Array(0xB1, values)),
    st.lists(st.binary()).map(lambda values: Array(0xB0, values)),
    st.lists(st.lists(st.integers(-5, 5), min_size=1)).map(lambda values: Array(0xD0, values)),
    st.lists(_bits(16, Short, signed=True), min_size=1).map(
        lambda values: Array(0x61, [Described(Symbol("x"), value) for value in values])
    ),
)
_values = st.recursive(
    st.one_of(_simple, _arrays),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.one_of(st.text(_characters, max_size=9), _symbols, _bits(64, ULong)), inner, max_size=5),
        st.builds(Described, st.one_of(_bits(64, ULong), _symbols), inner),
    ),
    max_leaves=20,
)


def _same(one: Any, other: Any) -> bool:
    """Whether values are equal and of the same types, all through."""
    if type(one) is not type(other) or one != other:
        return False
    match one:
        case Described():
            return _same(one.descriptor, other.descriptor) and _same(one.value, other.value)
        case list():
            return all(_same(*pair) for pair in zip(one, other, strict=True))
        case dict():
            return all(_same(*pair) for pair in zip(one.items(), other.items(), strict=True))
        case tuple():
            return all(_same(*pair) for pair in zip(one, other, strict=True))
    return True


@given(_values, st.binary(max_size=5), st.binary(max_size=5))
def test_what_is_written_is_read_as_it_was(value: Any, before: bytes, after: bytes) -> None:
    data = before + encode(value) + after

    found, at = decode(data, len(before))

    assert _same(found, value)
    assert at == len(data) - len(after)
    assert value_end(data, len(before)) == at


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        _, at = decode(data)
    except DecodeError:
        return
    assert at <= len(data)


@given(_values, st.data())
def test_what_is_cut_short_is_refused(value: Any, draw: st.DataObject) -> None:
    data = encode(value)
    cut = data[: draw.draw(st.integers(0, len(data) - 1))]

    with pytest.raises(DecodeError):
        decode(cut)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        # The examples and the rules of width that stand in part 1 of the specification.
        (b"\x40", None),
        (b"\x56\x01", True),
        (b"\x43", 0),
        (b"\x70\x00\x00\x00\x07", 7),
        (b"\x54\xff", -1),
        (b"\x83\x00\x00\x01\x2a\x05\xf2\x00\x00", 0x12A05F20000),
        (b"\xa1\x1e" + b"Hello Glorious Messaging World", "Hello Glorious Messaging World"),
        (b"\xc0\x03\x02\x55\x01", None),
        (b"\xe0\x04\x02\x55\x01\x02", Array(0x81, [1, 2])),
        (b"\xd1\x00\x00\x00\x08\x00\x00\x00\x02\xa3\x01a\x41", {"a": True}),
        (b"\x00\xa1\x03URL\xa1\x01x", Described("URL", "x")),
    ],
)
def test_encodings_of_the_specification(data: bytes, value: Any) -> None:
    if data[0] == 0xC0:
        with pytest.raises(DecodeError):  # two values are said, and one is there
            decode(data)
    else:
        assert decode(data) == (value, len(data))


def test_a_small_frame_cannot_ask_for_much_memory() -> None:
    for code in (0xD0, 0xD1, 0xF0):
        with pytest.raises(DecodeError):
            decode(bytes([code]) + struct.pack(">II", 0xFFFFFFF0, 0xFFFFFFFF) + b"\x40")


@pytest.mark.parametrize(
    "said",
    [
        Open(container_id="c", max_frame_size=65536, channel_max=4999, idle_time_out=60000),
        Attach("l", 3, True, 0, 1, Described(ULong(0x28), ["q"]), Described(ULong(0x29), [None]), properties={}),
        Flow(1, 2, 3, 4, 5, 6, 7, drain=True),
        Transfer(1, 2, b"tag", 0, False, True),
        Disposition(True, 4, 9, True, Described(ULong(0x25), [error("amqp:not-found", "none", entity="q")])),
    ],
)
def test_performatives_are_read_as_they_were(said: Any) -> None:
    assert read(said.encode() + b"rest") == (said, len(said.encode()))


@given(st.lists(st.binary(max_size=200), max_size=8), st.data())
def test_frames_arrive_in_any_pieces(bodies: list[bytes], draw: st.DataObject) -> None:
    stream = b"".join(frame(index, body) for index, body in enumerate(bodies))
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    frames = Frames(1024)
    found = []

    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        frames.feed(stream[begin:end])
        while one := frames.next():
            found.append(one)

    assert found == [(0, index, body) for index, body in enumerate(bodies)]


def test_a_frame_that_is_too_large_is_refused() -> None:
    frames = Frames(512)
    frames.feed(frame(0, b"x" * 600)[:20])

    with pytest.raises(DecodeError, match="608 bytes, of at most 512"):
        frames.next()


def _message(*, application: dict[str, Any] | None = None) -> bytes:
    parts = [
        Described(ULong(0x70), [True, UByte(7), UInt(5000)]),
        Described(ULong(0x72), {Symbol("x-opt-partition-key"): "p", Symbol("mine"): 1}),
        Described(ULong(0x73), ["id", None, None, "label", None, uuid.UUID(int=5)]),
        *([Described(ULong(0x74), application)] if application else []),
        Described(ULong(0x75), b"body"),
        Described(ULong(0x78), {Symbol("foot"): True}),
    ]
    return b"".join(encode(part) for part in parts)


def test_a_message_is_read_and_delivered_with_its_body_untouched() -> None:
    data = _message(application={"n": Int(4)})
    incoming = read_message(data)

    assert (incoming.message_id, incoming.subject, incoming.partition_key) == ("id", "label", "p")
    assert incoming.correlation_id == str(uuid.UUID(int=5))
    assert incoming.time_to_live == 5
    assert incoming.application_properties == {"n": 4}

    sent = delivered(Stored(9, incoming, 100.5, 9), delivery_count=2, locked_until=160.25)
    cut = sections(sent)
    assert cut.header == [True, 7, 5000, None, 2]
    assert cut.annotations == {
        "x-opt-partition-key": "p", "mine": 1, "x-opt-sequence-number": 9, "x-opt-enqueued-time": 100_500,
        "x-opt-locked-until": 160_250,
    }  # fmt: skip
    assert sent[cut.bare :] == data[sections(data).bare :]


@pytest.mark.parametrize("application", [None, {"n": Int(4), "DeadLetterReason": "old"}])
def test_what_settlements_change_stands_in_the_application_properties(application: dict[str, Any] | None) -> None:
    stored = Stored(1, read_message(_message(application=application)), 1.0, 1)
    stored.properties = {"DeadLetterReason": "new"}

    sent = delivered(stored, delivery_count=0, locked_until=None)
    cut = sections(sent)

    properties = decode(sent, cut.application[0] + 3)[0]
    assert properties == {**(application or {}), "DeadLetterReason": "new"}
    assert not application or type(properties["n"]) is Int
    assert sent.endswith(
        encode(Described(ULong(0x75), b"body")) + encode(Described(ULong(0x78), {Symbol("foot"): True}))
    )


def test_a_message_may_be_empty_and_may_not_be_cut() -> None:
    assert read_message(b"") == Incoming(b"", size=0)
    with pytest.raises(DecodeError):
        read_message(_message()[:-1])
    assert math.isinf(Stored(1, read_message(b""), 1.0, 1).expires)


def test_rules_as_amqp_describes_them() -> None:
    namespace = Namespace()
    namespace.create_topic("topic")
    namespace.create_subscription("topic", "one")
    path = "topic/Subscriptions/one"

    remove_rule(namespace, path, "$Default")
    add_rule(namespace, path, "sql", {"sql-filter": {"expression": "colour = 'red'"}})
    wanted = {"correlation-id": "c", "properties": {Symbol("colour"): "blue"}}
    add_rule(namespace, path, "correlated", {Symbol("correlation-filter"): wanted})

    rules = [decode(encode(rule))[0] for rule in enumerate_rules(namespace, path, 0, 10)]
    assert [rule.value[2] for rule in rules] == ["sql", "correlated"]
    assert rules[0].value[0] == Described(0x137000000006, ["colour = 'red'"])
    correlated = ["c", None, None, None, None, None, None, None, {"colour": "blue"}]
    assert rules[1].value[0] == Described(0x137000000009, correlated)
    assert enumerate_rules(namespace, path, 1, 1)[0].value[2] == "correlated"

    for colour in ("red", "blue"):
        properties = encode(Described(ULong(0x73), [None, None, None, None, None, "c"]))
        application = encode(Described(ULong(0x74), {"colour": colour}))
        namespace.target("topic").send([read_message(properties + application)])
    assert namespace.entity(path).counts().active == 2

    with pytest.raises(InvalidArgument):
        add_rule(namespace, path, "bad", {"sql-filter": {"expression": "colour = = 1"}})
    with pytest.raises(NotFound, match="only subscriptions have rules"):
        enumerate_rules(namespace, "topic", 0, 1)
