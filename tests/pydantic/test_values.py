"""Pydantic's types as arguments: what is sent arrives, and what does not fit is named by its path."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, TypeVar
from uuid import UUID, uuid4

import attrs
import pydantic
import pytest
from annotated_types import Gt
from camora.builtin.json_codec import JsonCodec
from camora.builtin.msgpack_codec import MsgpackCodec
from camora.convert import Conversion
from camora.errors import ConfigurationError, PayloadError
from camora.message import Message
from camora.parameters import Parameters
from camora_pydantic.support import PydanticSupport
from pydantic import (
    AfterValidator,
    AliasChoices,
    AnyUrl,
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyAddress,
    Json,
    RootModel,
    SecretBytes,
    SecretStr,
    SerializeAsAny,
    StringConstraints,
    computed_field,
    model_validator,
)
from pydantic.alias_generators import to_camel

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"


class Item(BaseModel):
    sku: str
    price: Decimal = Field(gt=0)
    tags: set[str] = set()


class Order(BaseModel):
    id: UUID
    items: list[Item]
    at: datetime
    colour: Colour = Colour.RED
    note: str | None = None


class Page(BaseModel, Generic[T]):
    items: list[T]
    total: int


class Numbers(RootModel[list[int]]): ...


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int = 9


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    lives: int = 1


def even(value: int) -> int:
    if value % 2:
        raise ValueError("is odd")
    return value


Even = Annotated[int, AfterValidator(even)]
Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


class Plain(BaseModel):
    lives: int


class Other(BaseModel):
    lives: int


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


@pydantic.dataclasses.dataclass
class Spot:
    x: int
    y: int = Field(ge=0)


@attrs.define
class Box:
    """An attrs class that holds models."""

    item: Item
    more: list[Item] = attrs.field(factory=list)


@dataclass
class Shelf:
    boxes: dict[str, Item]
    pet: Pet
    even: Even = 0


class Pair(NamedTuple):
    left: Item
    right: int


class Crate(BaseModel):
    """A model that holds attrs classes."""

    model_config = ConfigDict(arbitrary_types_allowed=True)
    box: Box
    boxes: list[Box] = []
    named: dict[str, Box | None] = {}


class Nested(BaseModel):
    crate: Crate
    trees: tuple[Tree, ...] = ()


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    number: int
    at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    pair: tuple[int, str] = (1, "a")
    ids: frozenset[UUID] = frozenset()


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    a: int


class Aliased(BaseModel):
    user_id: int = Field(alias="userId")
    name: str = Field(validation_alias=AliasChoices("name", "fullName"), serialization_alias="display")


class Camel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, serialize_by_alias=True)
    first_name: str
    inner: Cat = Cat()


class OneWay(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)
    first: str = Field(validation_alias="in", serialization_alias="out")


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)
    a: int


class Bytes(BaseModel):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")
    data: bytes


class Checked(BaseModel):
    low: int
    high: int

    @model_validator(mode="after")
    def ordered(self) -> Checked:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


class Counted(BaseModel):
    model_config = ConfigDict(extra="forbid")
    numbers: Json[list[int]]

    @computed_field
    def total(self) -> int:
        return sum(self.numbers)


Name = Annotated[str, StringConstraints(min_length=2, to_lower=True)]

PEN = Item(sku="pen", price=Decimal("2.50"), tags={"a"})
TREE = Tree(name="a", children=[Tree(name="b", children=[Tree(name="c")])])

VALUES: list[tuple[Any, Any]] = [
    (Item, PEN),
    (Order, Order(id=uuid4(), items=[PEN], at=datetime.now(UTC))),
    (list[Item], [PEN]),
    (dict[str, list[Item]], {"a": [PEN], "b": []}),
    (dict[UUID, Item], {uuid4(): PEN}),
    (tuple[Item, int], (PEN, 1)),
    (tuple[Item, ...], (PEN, PEN)),
    (Item | None, None),
    (Item | None, PEN),
    (Plain | Other, Other(lives=1)),
    (list[Plain | Other | Cat], [Plain(lives=1), Cat(), Other(lives=2)]),
    (Annotated[Plain, Field(description="one")] | Other | None, Plain(lives=1)),
    (Item | int | str, "x"),
    (Page[Item], Page[Item](items=[PEN], total=1)),
    (list[Page[int]], [Page[int](items=[1], total=1)]),
    (Numbers, Numbers([1, 2])),
    (Pet, Dog()),
    (list[Pet], [Dog(lives=2), Cat()]),
    (Tree, TREE),
    (Spot, Spot(1, 2)),
    (dict[str, Spot], {"a": Spot(1, 2)}),
    (Box, Box(PEN, [PEN])),
    (Shelf, Shelf({"a": PEN}, Cat(lives=3))),
    (Pair, Pair(PEN, 1)),
    (frozenset[Frozen], frozenset({Frozen(a=1)})),
    (Crate, Crate(box=Box(PEN), boxes=[Box(PEN, [PEN])], named={"a": Box(PEN), "b": None})),
    (list[Nested], [Nested(crate=Crate(box=Box(PEN)), trees=(TREE,))]),
    (Box | Crate, Crate(box=Box(PEN))),
    (Strict, Strict(number=1, pair=(2, "b"), ids=frozenset({uuid4()}))),
    (Open, Open(a=1, b=[1, 2])),  # type: ignore[call-arg]
    (Aliased, Aliased(userId=1, fullName="Ada")),  # type: ignore[call-arg]
    (Camel, Camel(firstName="Ada")),  # type: ignore[call-arg]
    (OneWay, OneWay(**{"in": "x"})),
    (Bytes, Bytes(data=b"\x00\xff")),
    (Counted, Counted(numbers="[1, 2]")),  # type: ignore[arg-type]
    (Even, 4),
    (list[Even], [2, 4]),
    (Name, "ada"),
    (Annotated[int, Gt(0)], 1),
    (AnyUrl, AnyUrl("https://example.org/")),
    (Checked, Checked(low=1, high=2)),
    (Annotated[Box, Field(description="an attrs class")], Box(PEN)),
    (Annotated[date | timedelta, Field(union_mode="left_to_right")], date(2026, 1, 1)),
    (SecretStr, SecretStr("hunter2")),
    (list[SecretBytes], [SecretBytes(b"hunter2")]),
]


def compiled(annotation: Any) -> Parameters:
    def task(value: Any) -> None: ...

    task.__annotations__ = {"value": annotation}
    return Parameters.of_function("task", task, Conversion([PydanticSupport()]), lambda _: False)


def arrived(annotation: Any, value: Any, codec: Any) -> Any:
    parameters = compiled(annotation)
    args, kwargs = parameters.out((value,), {})
    message = codec.decode(codec.encode(Message(id="1", task="task", args=args, kwargs=kwargs)))
    return parameters.into(message.args, message.kwargs)[1]["value"]


@pytest.mark.parametrize("codec", [JsonCodec(), MsgpackCodec()], ids=lambda codec: codec.name)
@pytest.mark.parametrize(("annotation", "value"), VALUES, ids=range(len(VALUES)))
def test_a_value_arrives_as_its_annotated_type(annotation: Any, value: Any, codec: Any) -> None:
    found = arrived(annotation, value, codec)
    assert found == value
    assert type(found) is type(value)


def test_which_fields_were_set_is_kept() -> None:
    found = arrived(Order, Order(id=uuid4(), items=[], at=datetime.now(UTC), note=None), JsonCodec())
    assert found.model_fields_set >= {"note"}


WRONG: list[tuple[Any, Callable[[], Any], str]] = [
    (Item, lambda: {"sku": "pen"}, "task: value: expected Item, got dict"),
    (Item, lambda: Cat(), "task: value: expected Item, got Cat"),
    (list[Item], lambda: [PEN, 3], "task: value[1]: expected Item, got int"),
    (dict[str, Item], lambda: {"a": 3}, "task: value['a']: expected Item, got int"),
    (
        dict[str, list[Order]],
        lambda: {"a": [Order.model_construct(id=uuid4(), items=[PEN, PEN.model_copy(update={"price": -1})], at=5)]},
        "task: value['a'][0].items[1].price: input should be greater than 0",
    ),
    (Even, lambda: 3, "task: value: is odd"),
    (list[Even], lambda: [2, 3], "task: value[1]: is odd"),
    (Name, lambda: "a", "task: value: string should have at least 2 characters"),
    (Annotated[int, Gt(0)], lambda: 0, "task: value: input should be greater than 0"),
    (Pet, lambda: Cat.model_construct(kind="cat", lives="x"), "task: value.cat.lives: input should be a valid integer"),
    (Checked, lambda: Checked.model_construct(low=2, high=1), "task: value: low is above high"),
    (Shelf, lambda: Shelf({}, Cat(), even=3), "task: value.even: is odd"),
    (Box, lambda: Box(PEN.model_copy(update={"sku": 7})), "task: value.item.sku: input should be a valid string"),
    (
        Crate,
        lambda: Crate(box=Box(PEN.model_copy(update={"price": Decimal(-1)}))),
        "task: value.box.item.price: input should be greater than 0",
    ),
    (Strict, lambda: Strict.model_construct(number="1"), "task: value.number: input should be a valid integer"),
]


@pytest.mark.parametrize(("annotation", "value", "text"), WRONG, ids=range(len(WRONG)))
def test_a_value_that_does_not_fit_is_refused_at_dispatch(annotation: Any, value: Callable[[], Any], text: str) -> None:
    with pytest.raises(PayloadError) as error:
        compiled(annotation).out((value(),), {})
    assert str(error.value).startswith(text)
    assert error.value.field == text.split(": ")[1]


ARRIVED: list[tuple[Any, Any, str, str]] = [
    (Item, {"sku": 1, "price": "1"}, "value.sku", "input should be a valid string"),
    (Item, {"sku": "a"}, "value.price", "field required"),
    (list[Item], [{"sku": "a", "price": "x"}], "value[0].price", "input should be a valid decimal"),
    (list[Item], {}, "value", "expected a list, got {} (dict)"),
    (Closed, {"a": 1, "b": 2}, "value.b", "extra inputs are not permitted"),
    (Strict, {"number": "1"}, "value.number", "input should be a valid integer"),
    (Pet, {"kind": "cow"}, "value", "input tag 'cow'"),
    (Page[int], {"items": [1, "x"], "total": 2}, "value.items[1]", "input should be a valid integer"),
    (Numbers, [1, "x"], "value[1]", "input should be a valid integer"),
    (Box, {"item": {"sku": "a", "price": "0"}}, "value.item.price", "input should be greater than 0"),
    (Crate, {"box": {"item": {"sku": "a", "price": "0"}}}, "value.box.item.price", "input should be greater than 0"),
    (Crate, {"box": 3}, "value.box", ""),
    (
        Shelf,
        {"boxes": {}, "pet": {"kind": "dog", "lives": []}},
        "value.pet.dog.lives",
        "input should be a valid integer",
    ),
    (Checked, {"low": 2, "high": 1}, "value", "low is above high"),
    (Aliased, {"userId": 1}, "value.name", "field required"),
    (IPvAnyAddress, "nowhere", "value", "not a valid IPv4 or IPv6 address"),
]


@pytest.mark.parametrize(("annotation", "data", "field", "why"), ARRIVED, ids=lambda value: str(value)[:30])
def test_data_that_does_not_fit_is_refused_where_it_arrives(annotation: Any, data: Any, field: str, why: str) -> None:
    with pytest.raises(PayloadError) as error:
        compiled(annotation).into([], {"value": data})
    assert error.value.field == field
    assert why in str(error.value)


def test_every_mistake_is_named_but_not_more_than_five() -> None:
    with pytest.raises(PayloadError) as error:
        compiled(Order).into([], {"value": {"id": "x", "items": [{}]}})
    for place in ("value.id: ", "; value.items[0].sku: ", "; value.items[0].price: ", "; value.at: "):
        assert place in str(error.value)
    with pytest.raises(PayloadError, match=r"and 3 more$"):
        compiled(Numbers).into([], {"value": ["x"] * 8})


def test_what_json_has_no_type_for_is_read_from_text_even_in_strict_mode() -> None:
    data = {"number": 1, "at": "2026-01-01T00:00:00Z", "pair": [1, "a"], "ids": [str(uuid4())]}
    [found] = compiled(Strict).into([], {"value": data})[1].values()
    assert (found.at, found.pair) == (datetime(2026, 1, 1, tzinfo=UTC), (1, "a"))


@pytest.mark.parametrize(
    ("data", "name"),
    [({"userId": 1, "name": "Ada"}, "Ada"), ({"user_id": 1, "fullName": "Ada"}, "Ada")],
)
def test_fields_are_read_by_any_alias_and_by_name(data: Any, name: str) -> None:
    [found] = compiled(Aliased).into([], {"value": data})[1].values()
    assert (found.user_id, found.name) == (1, name)


@pytest.mark.parametrize(
    ("annotation", "value", "keys"),
    [
        (Aliased, Aliased(userId=1, name="Ada"), {"user_id", "name"}),  # type: ignore[call-arg]
        (Camel, Camel(firstName="Ada"), {"firstName", "inner"}),  # type: ignore[call-arg]
        (OneWay, OneWay(**{"in": "x"}), {"first"}),
    ],
)
def test_fields_travel_under_the_names_that_the_model_asks_for_if_they_can_be_read_back(
    annotation: Any, value: Any, keys: set[str]
) -> None:
    assert set(compiled(annotation).out((value,), {})[1]["value"]) == keys


class Vault(BaseModel):
    password: SecretStr
    inner: list[SecretBytes] = []
    maybe: SecretStr | None = None
    day: pydantic.Secret[date] | None = None
    next: Vault | None = None


def test_secrets_travel_in_clear_at_any_depth() -> None:
    inside = Vault(
        password=SecretStr("two"), inner=[SecretBytes(b"three")], day=pydantic.Secret[date](date(2026, 1, 1))
    )
    vault = Vault(password=SecretStr("first"), next=inside)
    [data] = compiled(dict[str, Vault]).out(({"a": vault},), {})[1].values()
    assert data["a"]["password"] == "first"
    assert data["a"]["next"]["inner"] == ["three"]
    assert data["a"]["next"]["day"] == "2026-01-01"
    assert arrived(Vault, vault, JsonCodec()) == vault
    assert "first" not in repr(vault)


class Loose(BaseModel):
    anything: Any
    vault: SerializeAsAny[BaseModel]


def test_pydantic_hides_secrets_itself_where_a_field_does_not_say_what_is_in_it() -> None:
    vault = Vault(password=SecretStr("first"))
    [data] = compiled(Loose).out((Loose(anything=vault, vault=vault),), {})[1].values()
    assert data["anything"]["password"] == data["vault"]["password"] == "**********"


class Kitten(Cat):
    colour: str = "black"


def test_an_object_of_a_subclass_travels_as_the_annotated_class() -> None:
    assert arrived(Cat, Kitten(lives=3), JsonCodec()) == Cat(lives=3)
    assert arrived(Cat | Kitten, Kitten(lives=3), JsonCodec()) == Kitten(lives=3)


def test_data_of_a_union_that_does_not_say_which_class_is_the_first_that_fits() -> None:
    [found] = compiled(Item | Closed).into([], {"value": {"a": 1}})[1].values()
    assert found == Closed(a=1)
    with pytest.raises(PayloadError, match="value: expected Item or Closed"):
        compiled(Item | Closed).into([], {"value": {"b": 1}})


def test_errors_do_not_show_what_was_sent() -> None:
    with pytest.raises(PayloadError) as error:
        compiled(Vault).into([], {"value": {"password": ["hunter2"]}})
    assert "hunter2" not in str(error.value)


def test_a_value_without_an_annotation_travels_as_plain_data() -> None:
    parameters = compiled(Any)
    assert parameters.out((PEN,), {})[1] == {"value": {"sku": "pen", "price": "2.50", "tags": ["a"]}}
    assert parameters.out(([Box(PEN)],), {})[1]["value"][0]["item"]["sku"] == "pen"


def test_a_type_that_pydantic_cannot_read_is_a_mistake_of_the_set_up() -> None:
    class Later(BaseModel):
        other: Missing  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigurationError, match=r"Later.*not fully defined"):
        compiled(Later)


def test_types_that_are_not_pydantics_stay_with_the_core() -> None:
    support = PydanticSupport()
    mine = [Item, Page[Item], Spot, Even, Name, AnyUrl, SecretStr, Annotated[Item, "words"], Annotated[int, Gt(0)]]
    assert [kind for kind in mine if not support.knows(kind)] == []
    others = [int, Box, Shelf, Colour, list[Item], Item | None, Annotated[int, "words"], Any, None, T, "text"]
    assert [kind for kind in others if support.knows(kind)] == []
