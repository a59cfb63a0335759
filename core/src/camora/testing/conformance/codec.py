"""The exam of a codec."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from camora.errors import DecodeError, EncodeError
from camora.interfaces.codec import Codec
from camora.message import WIRE_VERSION, Message, RetrySettings

__all__ = ["CodecConformance"]

_TEXT = st.characters(codec="utf-8")
_PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(_TEXT),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(_TEXT, max_size=8), inner, max_size=5),
    max_leaves=25,
)
_VALUES: list[Any] = [
    None, True, False, 0, -1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63), 0.0, -0.5, 1e-300, 1.7976931348623157e308, 0.1,
    "", "text", "ünïcödé 文字 🎈", "\x00\x01\x1f\x7f\u2028", '"\\/', "x" * 100_000, [], {}, [[]], [{}], {"": ""},
    {"a": [1, {"b": None}], "ключ": [True, 1.5]}, list(range(1000)), {f"k{number}": number for number in range(1000)},
]  # fmt: skip
_PROPERTY = settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))
_PLACES = settings(_PROPERTY, max_examples=50)  # of values that were tried by themselves


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def _same(one: Any, other: Any) -> bool:
    """Equal, and of the same types: True is not 1, and 1 is not 1.0."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


class CodecConformance:
    """Override `codec`."""

    carries_big_integers: bool = False
    """Whether integers beyond 64 bits travel; where they do not, they must be refused with `EncodeError`."""

    @pytest.fixture
    def codec(self) -> Codec:
        """The codec under test."""
        raise NotImplementedError(f"{type(self).__name__} must override the fixture codec")

    def written(self, codec: Codec, data: Any) -> bytes:
        """Plain data as the bytes of a message that somebody else has written, whatever the data is.

        Override it for a codec that writes messages otherwise than values.
        """
        return codec.encode_value(data)

    def read(self, codec: Codec, body: bytes) -> Any:
        """The opposite: the bytes of a message as plain data."""
        return codec.decode_value(body)

    # Round trips

    @pytest.mark.parametrize("value", _VALUES, ids=range(len(_VALUES)))
    def test_a_plain_value_comes_back_as_it_was(self, codec: Codec, value: Any) -> None:
        data = codec.encode_value(value)
        assert isinstance(data, bytes)
        assert _same(codec.decode_value(data), value)

    @_PROPERTY
    @given(value=_PLAIN)
    def test_any_nested_plain_value_comes_back_as_it_was(self, codec: Codec, value: Any) -> None:
        assert _same(codec.decode_value(codec.encode_value(value)), value)

    @_PLACES
    @given(args=st.lists(_PLAIN, max_size=3), kwargs=st.dictionaries(st.text("abc_", min_size=1), _PLAIN, max_size=3))
    def test_any_arguments_come_back_as_they_were(self, codec: Codec, args: list[Any], kwargs: dict[str, Any]) -> None:
        message = Message(id="i", task="t", args=args, kwargs=kwargs)
        decoded = codec.decode(codec.encode(message))
        assert _same(decoded.args, args)
        assert _same(decoded.kwargs, kwargs)

    def test_every_field_of_a_message_travels(self, codec: Codec) -> None:
        message = _full_message()
        assert codec.decode(codec.encode(message)) == message

    def test_a_message_of_defaults_travels(self, codec: Codec) -> None:
        message = Message(id="i", task="t")
        assert codec.decode(codec.encode(message)) == message

    def test_encoding_is_repeatable(self, codec: Codec) -> None:
        assert codec.encode(_full_message()) == codec.encode(_full_message())

    # What cannot travel is refused, and says where it is

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
    def test_not_a_number_and_infinity_are_refused(self, codec: Codec, value: float) -> None:
        for place in (value, [1, value], {"a": {"b": [value]}}):
            with pytest.raises(EncodeError):
                codec.encode_value(place)
            with pytest.raises(EncodeError):
                codec.encode(Message(id="i", task="t", args=[place]))
            with pytest.raises(EncodeError):
                codec.encode(Message(id="i", task="t", kwargs={"k": place}))

    @pytest.mark.parametrize(
        "value", [object(), {1, object()}, len, "\ud800", ["\udfff"], {"k": "\ud83d"}], ids=range(6)
    )
    def test_what_is_not_plain_data_is_refused(self, codec: Codec, value: Any) -> None:
        with pytest.raises(EncodeError):
            codec.encode_value(value)
        with pytest.raises(EncodeError):
            codec.encode(Message(id="i", task="t", kwargs={"k": value}))

    def test_a_refusal_names_the_place(self, codec: Codec) -> None:
        with pytest.raises(EncodeError) as refused:
            codec.encode(Message(id="i", task="t", kwargs={"order": {"items": [1, {"callback": object()}]}}))
        assert "callback" in refused.value.path
        assert "items[1]" in refused.value.path

    @pytest.mark.parametrize("value", [2**64, -(2**63) - 1, 2**200], ids=["2**64", "-2**63-1", "2**200"])
    def test_integers_beyond_64_bits_travel_or_are_refused(self, codec: Codec, value: int) -> None:
        if self.carries_big_integers:
            assert codec.decode_value(codec.encode_value(value)) == value
            return
        try:
            data = codec.encode_value(value)
        except EncodeError:
            return
        assert _same(codec.decode_value(data), value), "an integer was changed on its way"

    def test_what_is_nested_too_deeply_is_refused_and_never_a_crash(self, codec: Codec) -> None:
        with pytest.raises(EncodeError):
            codec.encode_value(_nested(100_000))
        with pytest.raises(EncodeError):
            codec.encode(Message(id="i", task="t", args=[_nested(100_000)]))

    def test_a_value_that_holds_itself_is_refused(self, codec: Codec) -> None:
        value: list[Any] = []
        value.append(value)
        with pytest.raises(EncodeError):
            codec.encode_value(value)

    def test_reasonable_nesting_travels(self, codec: Codec) -> None:
        value = _nested(50)
        assert codec.decode_value(codec.encode_value(value)) == value

    # Whatever the bytes are, the answer is a message or DecodeError

    @_PROPERTY
    @given(body=st.binary(max_size=200))
    def test_arbitrary_bytes_raise_only_decode_error(self, codec: Codec, body: bytes) -> None:
        for decode in (codec.decode, codec.decode_value):
            with contextlib.suppress(DecodeError):
                decode(body)

    @_PROPERTY
    @given(data=st.data())
    def test_damaged_messages_raise_only_decode_error(self, codec: Codec, data: st.DataObject) -> None:
        body = bytearray(codec.encode(_full_message()))
        for _ in range(data.draw(st.integers(1, 4))):
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
        with contextlib.suppress(DecodeError):
            codec.decode(bytes(body))

    def test_truncated_messages_raise_decode_error(self, codec: Codec) -> None:
        body = codec.encode(_full_message())
        for length in range(len(body)):
            with pytest.raises(DecodeError):
                codec.decode(body[:length])

    def test_a_message_with_a_tail_raises_decode_error(self, codec: Codec) -> None:
        body = codec.encode(_full_message())
        with pytest.raises(DecodeError):
            codec.decode(body + body)

    @pytest.mark.parametrize(
        "value",
        [
            None,
            7,
            "text",
            [],
            [1, 2],
            {},
            {"id": "i"},
            {"task": "t"},
            {"id": 1, "task": "t"},
            {"id": "i", "task": None},
        ],
        ids=str,
    )
    def test_data_that_is_no_message_raises_decode_error(self, codec: Codec, value: Any) -> None:
        with pytest.raises(DecodeError):
            codec.decode(self.written(codec, value))

    @pytest.mark.parametrize(
        ("field", "wrong"),
        [("args", 5), ("kwargs", [1]), ("headers", {"a": 1}), ("due", "soon"), ("attempt", None), ("retry", [1])],
    )
    def test_a_field_of_the_wrong_type_raises_decode_error(self, codec: Codec, field: str, wrong: Any) -> None:
        with pytest.raises(DecodeError):
            codec.decode(self.written(codec, {"v": 1, "id": "i", "task": "t", field: wrong}))

    @pytest.mark.parametrize("version", [0, -1, WIRE_VERSION + 1, 10**6, "1", None])
    def test_a_version_it_does_not_read_raises_decode_error(self, codec: Codec, version: Any) -> None:
        with pytest.raises(DecodeError):
            codec.decode(self.written(codec, {"v": version, "id": "i", "task": "t"}))

    def test_deeply_nested_bytes_raise_only_decode_error(self, codec: Codec) -> None:
        for body in (b"[" * 200_000, b'{"a":' * 200_000, b"\x91" * 200_000, b"\x81\xa1a" * 200_000):
            with pytest.raises(DecodeError):
                codec.decode(body)
            with pytest.raises(DecodeError):
                codec.decode_value(body)

    # Rolling deploys

    def test_fields_of_a_later_version_are_ignored_on_reading(self, codec: Codec) -> None:
        body = self.written(codec, {"v": 1, "id": "i", "task": "t", "x-new": {"deep": [1]}, "args": [1]})
        message = codec.decode(body)
        assert (message.id, message.task, message.args) == ("i", "t", [1])

    def test_evolving_changes_what_it_is_told_and_keeps_the_rest(self, codec: Codec) -> None:
        original = _full_message()
        changed = codec.decode(codec.evolve(codec.encode(original), {"attempt": 9, "misses": 2, "due": 5}))
        assert (changed.attempt, changed.misses, changed.due) == (9, 2, 5)
        again = codec.evolve(codec.encode(changed), {"attempt": 3, "misses": 1, "due": 1_700_000_000_100})
        assert codec.decode(again) == original

    def test_evolving_keeps_fields_it_does_not_know(self, codec: Codec) -> None:
        body = self.written(codec, {"v": 1, "id": "i", "task": "t", "x-new": {"deep": [1, None]}})
        data = self.read(codec, codec.evolve(codec.evolve(body, {"attempt": 2}), {"attempt": 3}))
        assert data["x-new"] == {"deep": [1, None]}
        assert data["attempt"] == 3

    @pytest.mark.parametrize("body", [b"", b"\xff\xfe\x00", b"[1,2]", b"nonsense"], ids=range(4))
    def test_evolving_what_is_no_message_raises_decode_error(self, codec: Codec, body: bytes) -> None:
        with pytest.raises(DecodeError):
            codec.evolve(body, {"attempt": 2})

    def test_it_has_a_name(self, codec: Codec) -> None:
        assert isinstance(codec.name, str)
        assert codec.name


def _full_message() -> Message:
    return Message(
        id="0190a3c0ffee7000800000000000000a",
        task="shop.tasks:charge",
        queue="möney",
        args=[1, "zwei", None, [3.5, {"vier": True}]],
        kwargs={"amount": 12, "note": 'a "quote"', "nested": {"list": [1, [2, [3]]]}},
        headers={"traceparent": "00-abc", "x": ""},
        created=1_700_000_000_000,
        due=1_700_000_000_100,
        expires=1_800_000_000_000,
        priority=-3,
        timeout=1.5,
        retry=RetrySettings(max_tries=5, delay=0.5, delay_max=60.0, mode="exponential", jitter=True, on=("a.E", "b.F")),
        key="once",
        key_ttl=60.0,
        keep_result=False,
        attempt=3,
        misses=1,
    )
