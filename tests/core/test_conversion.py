"""Arguments out and in: what is sent arrives as its annotated type, and what does not fit is named."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict
from uuid import UUID, uuid4

import attrs
import pytest
from camora.builtin.json_codec import JsonCodec
from camora.builtin.msgpack_codec import MsgpackCodec
from camora.convert import Conversion
from camora.errors import EncodeError, PayloadError
from camora.message import Message
from camora.parameters import Parameters


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@attrs.define
class Item:
    name: str
    price: Decimal
    tags: set[str] = attrs.field(factory=set)


@dataclass
class Order:
    id: UUID
    items: list[Item]
    at: datetime
    note: str | None = None


class Point(NamedTuple):
    x: int
    y: int


class Options(TypedDict):
    size: int


VALUES: list[tuple[Any, Any]] = [
    (int, -(2**63)),
    (float, 1.5),
    (bool, True),
    (str, "grüße \U0001f600\x00"),
    (bytes, b"\x00\xff"),
    (datetime, datetime(2026, 3, 29, 1, 30, tzinfo=UTC)),
    (datetime, datetime(2026, 3, 29, 1, 30)),  # noqa: DTZ001 -- naive values travel as what they are
    (date, date(2024, 2, 29)),
    (time, time(23, 59)),
    (timedelta, timedelta(days=3, microseconds=5)),
    (UUID, uuid4()),
    (Decimal, Decimal("1.10")),
    (Path, Path("a/b.txt")),
    (Colour, Colour.BLUE),
    (Item, Item("pen", Decimal("2.50"), {"a", "b"})),
    (Order, Order(uuid4(), [Item("pen", Decimal(1))], datetime.now(UTC))),
    (Point, Point(1, 2)),
    (Options, {"size": 3}),
    (list[int], [1, 2]),
    (set[int], {1, 2}),
    (frozenset[str], frozenset({"a"})),
    (tuple[int, ...], (1, 2, 3)),
    (tuple[int, str], (1, "a")),
    (dict[str, Item], {"a": Item("x", Decimal(1))}),
    (dict[int, str], {1: "one"}),
    (dict[UUID, int], {uuid4(): 1}),
    (Sequence[int], [1, 2]),
    (int | None, None),
    (int | None, 4),
    (int | str, "4"),
    (datetime | int, datetime(2026, 1, 1, tzinfo=UTC)),
    (UUID | str, "0" * 32),
    (str | UUID, uuid4()),
    (Item | Order, Item("pen", Decimal(1))),
    (Item | Colour | None, None),
    (list[Item | UUID], [Item("pen", Decimal(1)), uuid4()]),
    (Literal["a", "b"], "a"),
    (Any, {"a": [1, None, "x"]}),
]


def compiled(annotation: Any) -> Parameters:
    def task(value: Any) -> None: ...

    task.__annotations__ = {"value": annotation}
    return Parameters.of_function("task", task, Conversion(), lambda _: False)


@pytest.mark.parametrize("codec", [JsonCodec(), MsgpackCodec()], ids=lambda codec: codec.name)
@pytest.mark.parametrize(("annotation", "value"), VALUES, ids=range(len(VALUES)))
def test_a_value_arrives_as_its_annotated_type(annotation: Any, value: Any, codec: Any) -> None:
    parameters = compiled(annotation)
    args, kwargs = parameters.out((value,), {})
    message = codec.decode(codec.encode(Message(id="1", task="task", args=args, kwargs=kwargs)))
    _, arrived = parameters.into(message.args, message.kwargs)
    assert arrived == {"value": value}
    assert type(arrived["value"]) is type(value)


WRONG: list[tuple[Any, Any, str]] = [
    (int, "5", "task: value: expected int, got '5' (str)"),
    (int, True, "task: value: expected int, got True (bool)"),
    (str, 5, "task: value: expected str, got 5 (int)"),
    (float, "1", "task: value: expected float, got '1' (str)"),
    (list[int], [1, "a"], "task: value[1]: expected int, got 'a' (str)"),
    (dict[str, int], {"a": "b"}, "task: value['a']: expected int, got 'b' (str)"),
    (Item, Order, "task: value: expected Item, got type"),
    (Colour, "green", "task: value: expected Colour, got str"),
    (UUID, 7, "task: value: "),
]


@pytest.mark.parametrize(("annotation", "value", "text"), WRONG, ids=range(len(WRONG)))
def test_a_value_that_does_not_fit_is_refused_at_dispatch(annotation: Any, value: Any, text: str) -> None:
    with pytest.raises(PayloadError) as error:
        compiled(annotation).out((value,), {})
    assert str(error.value).startswith(text)
    assert error.value.field.startswith("value")


ARRIVED: list[tuple[Any, Any, str, str]] = [
    (int, "5", "value", "expected int, got '5' (str)"),
    (Item, {"name": 1, "price": "1"}, "value.name", "expected str, got 1 (int)"),
    (Item, {"name": "a"}, "value.price", "is missing"),
    (Item, {"name": "a", "price": "1", "colour": 2}, "value", "has unknown fields 'colour'"),
    (Order, {"id": "x", "items": [], "at": "2026-01-01"}, "value.id", "expected a UUID, got 'x' (str)"),
    (list[Item], [{"name": "a", "price": "x"}], "value[0].price", "expected a decimal number as text, got 'x' (str)"),
    (Colour, "green", "value", "expected one of 'red', 'blue', got 'green' (str)"),
    (datetime, "yesterday", "value", "expected an ISO 8601 datetime, got 'yesterday' (str)"),
    (bytes, "!!", "value", "expected bytes in base64, got '!!' (str)"),
    (Literal["a"], "b", "value", ""),
]


@pytest.mark.parametrize(("annotation", "data", "field", "why"), ARRIVED, ids=lambda value: str(value)[:30])
def test_data_that_does_not_fit_is_refused_where_it_arrives(annotation: Any, data: Any, field: str, why: str) -> None:
    with pytest.raises(PayloadError) as error:
        compiled(annotation).into([], {"value": data})
    assert error.value.field == field
    assert why in str(error.value)


def shop(order: int, /, amount: float, *rest: int, note: str = "none", **extra: str) -> None: ...


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((1, 2.0), {}), ((1,), {"amount": 2.0}), ((1, 2.0, 3, 4), {"note": "x"}), ((1, 2.0), {"colour": "red"})],
)
def test_every_kind_of_parameter_is_bound(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    parameters = Parameters.of_function("shop", shop, Conversion(), lambda _: False)
    sent = parameters.out(args, kwargs)
    positional, named = parameters.into(*sent)
    seen: list[Any] = []

    def spy(order: int, /, amount: float, *rest: int, note: str = "none", **extra: str) -> None:
        seen.append((order, amount, rest, note, extra))

    spy(*positional, **named)
    spy(*args, **kwargs)
    assert seen[0] == seen[1]


@pytest.mark.parametrize(
    ("args", "kwargs", "text"),
    [
        ((), {}, "add: x: is missing (takes x: int, y: int)"),
        ((1,), {}, "add: y: is missing (takes x: int, y: int)"),
        ((1, 2, 3), {}, "add: takes 2 positional arguments, got 3 (takes x: int, y: int)"),
        ((1,), {"x": 2}, "add: x: given twice"),
        ((1, 2), {"z": 3}, "add: z: unknown argument (takes x: int, y: int)"),
    ],
)
def test_missing_and_extra_arguments_are_named(args: tuple[Any, ...], kwargs: dict[str, Any], text: str) -> None:
    def add(x: int, y: int) -> int:
        return x + y

    parameters = Parameters.of_function("add", add, Conversion(), lambda _: False)
    with pytest.raises(PayloadError) as error:
        parameters.out(args, kwargs)
    assert str(error.value) == text
    if "twice" not in text:
        with pytest.raises(PayloadError):
            parameters.into(list(args), kwargs)


class Plain:
    """No type that travels."""


@pytest.mark.parametrize(("args", "kwargs"), [((1, Plain()), {}), ((1,), {"x": Plain()})], ids=["position", "name"])
def test_an_argument_whose_type_does_not_travel_says_what_to_do(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    def send(to: int, x: Plain) -> None: ...

    parameters = Parameters.of_function("t:send", send, Conversion(), lambda kind: False)
    with pytest.raises(PayloadError) as caught:
        parameters.out(args, kwargs)
    assert str(caught.value) == (
        "t:send: x: Plain is no type that travels, so it is taken for a dependency; "
        "make it an attrs class or a dataclass, or provide it"
    )
    assert caught.value.field == "x"


def test_too_many_arguments_name_those_that_are_injected() -> None:
    def send(to: int, x: Plain) -> None: ...

    parameters = Parameters.of_function("t:send", send, Conversion(), lambda kind: kind is Plain)
    with pytest.raises(PayloadError) as caught:
        parameters.out((1, Plain()), {})
    assert str(caught.value) == (
        "t:send: takes 1 positional argument, got 2 (takes to: int); injected where the job runs: x"
    )


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "path", "why"),
    [
        (
            {"items": [1, {"callback": print}]},
            "value.items[1].callback",
            "builtin_function_or_method cannot be encoded",
        ),
        ({"x": float("nan")}, "value.x", "nan has no JSON form"),
        ([float("inf")], "value[0]", "inf has no JSON form"),
        ("\ud800", "value", "lone surrogate"),
        (nested(5_000), "value" + "[0]" * 31 + "[0…", "nested too deeply"),
    ],
    ids=["object", "nan", "inf", "surrogate", "deep"],
)
@pytest.mark.parametrize("codec", [JsonCodec(), MsgpackCodec()], ids=lambda codec: codec.name)
def test_what_cannot_be_encoded_is_named_by_its_path(value: Any, path: str, why: str, codec: Any) -> None:
    with pytest.raises(EncodeError) as error:
        codec.encode(Message(id="1", task="shop", kwargs={"value": value}))
    assert error.value.path == path
    assert why in str(error.value)
    assert str(error.value).startswith("shop: value")


def test_integers_beyond_64_bits_travel_where_the_format_has_them() -> None:
    message = Message(id="1", task="shop", kwargs={"value": 2**70})
    assert JsonCodec().decode(JsonCodec().encode(message)) == message
    with pytest.raises(EncodeError, match="shop: "):
        MsgpackCodec().encode(message)


def test_a_key_that_is_no_text_is_refused_by_json() -> None:
    with pytest.raises(EncodeError, match=r"shop: value\[\(1, 2\)\]: has a key of type tuple; keys are text"):
        JsonCodec().encode(Message(id="1", task="shop", kwargs={"value": {(1, 2): 3}}))


def test_none_is_not_taken_for_nan() -> None:
    assert b"null" in JsonCodec().encode(Message(id="1", task="shop", kwargs={"value": [None, {"a": None}]}))
