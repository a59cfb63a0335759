"""Secrets: the function gets them, and nothing that is shown has them."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, NamedTuple, TypedDict
from uuid import UUID

import attrs
import msgspec
import pytest
from camora import BaseTask, Camora, Message, Secret, Signature
from camora.errors import PayloadError
from camora.failures import describe
from camora.secrets import hide, marked_in, mask_arguments, secrets_of, texts_of

PASSWORD = "hunter2-and-more"


@attrs.frozen
class Login:
    user: str
    password: Annotated[str, Secret]


@dataclasses.dataclass
class Account:
    login: Login
    note: str = ""


class Keys(TypedDict):
    name: str
    key: Annotated[str, Secret]


class Pair(NamedTuple):
    name: str
    pin: Annotated[int, Secret]


class Struct(msgspec.Struct):
    token: Annotated[str, Secret()]


@attrs.define
class Node:
    value: str
    inner: Node | None = None
    secret: Annotated[str, Secret] = ""


@attrs.define
class Harmless:
    value: str
    inner: Harmless | None = None


async def plain(a: int, b: str = "x") -> None: ...
async def one(user: str, password: Annotated[str, Secret]) -> None: ...
async def by_position(password: Annotated[str, Secret], /, user: str, *more: Annotated[str, Secret]) -> None: ...
async def by_any_name(user: str, **more: Annotated[str, Secret]) -> None: ...
async def nested(account: Account, others: list[Login] | None = None) -> None: ...
async def records(keys: Keys, pair: Pair, struct: Struct, by_name: dict[str, Login]) -> None: ...
async def recursive(node: Node) -> None: ...
async def mixed(value: Annotated[str, Secret] | int, card: Login | Harmless | None = None) -> None: ...


def task_of(function: Any) -> Any:
    return Camora().task(function)


@pytest.mark.parametrize(
    ("annotation", "marked"),
    [
        (int, False),
        (Any, False),
        (Annotated[str, "something else"], False),
        (Harmless, False),
        (list[Harmless], False),
        (typing.Literal["Secret"], False),
        (datetime, False),
        (Annotated[str, Secret], True),
        (Annotated[str, Secret()], True),
        (Annotated[str, "something", Secret], True),
        (Annotated[str, Secret] | None, True),
        (list[Annotated[str, Secret]], True),
        (dict[str, Annotated[str, Secret]], True),
        (Mapping[Annotated[str, Secret], int], True),
        (tuple[int, Annotated[str, Secret]], True),
        (Sequence[tuple[int, Login]], True),
        (Login, True),
        (Account, True),
        (Keys, True),
        (Pair, True),
        (Struct, True),
        (Node, True),
        (list[Account | Harmless], True),
    ],
    ids=range(23),  # an object's text has its address in it
)
def test_what_an_annotation_marks(annotation: Any, marked: bool) -> None:
    assert (marked_in(annotation) is not None) is marked


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "masked_args", "masked_kwargs"),
    [
        (plain, [1], {"b": "y"}, [1], {"b": "y"}),
        (one, [], {"user": "me", "password": PASSWORD}, [], {"user": "me", "password": "***"}),
        (one, ["me", PASSWORD], {}, ["me", "***"], {}),
        (one, [PASSWORD], {"user": "me"}, ["***"], {"user": "me"}),
        (by_position, [PASSWORD, "me", "a", "b"], {}, ["***", "me", "***", "***"], {}),
        (by_any_name, [], {"user": "me", "a": "b"}, [], {"user": "me", "a": "***"}),
        (
            nested,
            [],
            {"account": {"login": {"user": "me", "password": PASSWORD}, "note": "n"}, "others": [{"password": "p"}]},
            [],
            {"account": {"login": {"user": "me", "password": "***"}, "note": "n"}, "others": [{"password": "***"}]},
        ),
        (
            records,
            [],
            {
                "keys": {"name": "n", "key": "k"},
                "pair": ["n", 5],
                "struct": {"token": "t"},
                "by_name": {"a": {"user": "u", "password": "p"}},
            },
            [],
            {
                "keys": {"name": "n", "key": "***"},
                "pair": ["n", "***"],
                "struct": {"token": "***"},
                "by_name": {"a": {"user": "u", "password": "***"}},
            },
        ),
        (
            recursive,
            [],
            {"node": {"value": "v", "inner": {"value": "w", "inner": {"secret": "s"}}}},
            [],
            {"node": {"value": "v", "inner": {"value": "w", "inner": {"secret": "***"}}}},
        ),
        (mixed, [], {"value": 5, "card": {"$type": "Login", "$value": {}}}, [], {"value": "***", "card": "***"}),
        (nested, [], {"account": "not even an object"}, [], {"account": "***"}),
        (one, [], {"password": None, "unknown": 1}, [], {"password": None, "unknown": 1}),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_listing_hides_them_and_shows_the_rest(
    function: Any, args: list[Any], kwargs: dict[str, Any], masked_args: list[Any], masked_kwargs: dict[str, Any]
) -> None:
    message = Message(id="i", task="t", args=args, kwargs=kwargs)
    before = msgspec.json.encode(message)
    assert mask_arguments(task_of(function), message) == {"args": masked_args, "kwargs": masked_kwargs}
    assert msgspec.json.encode(message) == before


def test_of_an_unknown_task_everything_is_hidden() -> None:
    message = Message(id="i", task="t", args=[1], kwargs={"a": {"b": 2}})
    assert mask_arguments(None, message) == {"args": ["***"], "kwargs": {"a": "***"}}


def test_annotations_that_cannot_be_read_hide_rather_too_much() -> None:
    async def local(a: Unknown, b: Annotated[str, Secret], c: int) -> None: ...  # type: ignore[name-defined] # noqa: F821

    masked = mask_arguments(task_of(local), Message(id="i", task="t", kwargs={"a": 1, "b": 2, "c": 3}))
    assert masked["kwargs"] == {"a": 1, "b": "***", "c": 3}


def test_a_signature_does_not_show_them() -> None:
    assert repr(task_of(one).s("me", PASSWORD)).endswith("one.s('me', ***)")
    assert repr(task_of(one).si(user="me", password=PASSWORD)).endswith("one.si(user='me', password=***)")
    assert repr(task_of(plain).s(1, b="y")).endswith("plain.s(1, b='y')")
    assert PASSWORD not in repr(task_of(nested).s(Account(Login("me", PASSWORD))))
    assert repr(Signature(type("Named", (), {"name": "n"})(), ["a"], {"b": 1})) == "n.s('a', b=1)"


class SendEmail(BaseTask):
    recipient: str
    password: Annotated[str, Secret]
    login: Login | None = None
    _inner: Annotated[str, Secret] = ""
    quiet: str = attrs.field(default="q", repr=False)
    shown: int = attrs.field(default=255, repr=hex)

    async def execute(self) -> None: ...


class Described(SendEmail):
    def __repr__(self) -> str:
        return "my own"


def test_a_task_object_does_not_show_them() -> None:
    shown = repr(SendEmail("you", PASSWORD, Login("me", PASSWORD), PASSWORD))
    assert shown == "SendEmail(recipient='you', password=***, login=***, _inner=***, shown=0xff)"
    assert repr(Described("you", PASSWORD)) == "my own"


def test_a_task_object_without_secrets_looks_as_ever() -> None:
    class Plain(BaseTask):
        a: int
        b: str = "x"

        async def execute(self) -> None: ...

    assert repr(Plain(1)) == "Plain(a=1, b='x')"
    assert Plain(1) == Plain(1)


def test_messages_show_no_arguments_at_all() -> None:
    message = Message(id="i", task="t", args=[PASSWORD], kwargs={"a": PASSWORD})
    assert PASSWORD not in repr(message)
    assert "2 arguments" in repr(message)


@pytest.mark.parametrize(
    ("function", "kwargs", "field"),
    [
        (one, {"user": "me", "password": [PASSWORD]}, "password"),
        (nested, {"account": {"login": {"user": "me", "password": {"x": PASSWORD}}}}, "account.login.password"),
        (nested, {"account": {"login": {}}, "others": [{"user": "me", "password": [PASSWORD]}]}, "account.login"),
        (recursive, {"node": {"value": 5, "secret": PASSWORD}}, "node.value"),
    ],
    ids=["whole", "nested", "missing", "beside"],
)
def test_an_error_names_the_place_and_not_the_value(function: Any, kwargs: dict[str, Any], field: str) -> None:
    app = Camora()
    parameters = app._binding.parameters_of(app.task(function))
    with pytest.raises(PayloadError) as refused:
        parameters.into([], kwargs)
    assert PASSWORD not in str(refused.value)
    assert refused.value.field.startswith(field)
    told = describe(refused.value)
    assert PASSWORD not in told.text + told.traceback


async def test_a_wrong_value_is_not_quoted_at_dispatch_either() -> None:
    async with Camora() as app:
        task = app.task(one)
        with pytest.raises(PayloadError) as refused:
            await task.dispatch("me", 12345678)  # type: ignore[arg-type]
    assert "12345678" not in str(refused.value)
    assert "password" in str(refused.value)
    assert "***" not in str(refused.value) or "Secret" in str(refused.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (PASSWORD, f"login as {PASSWORD} failed"),
        (123456, "pin 123456 is wrong"),
        (UUID(int=5), f"no such {UUID(int=5)}"),
        (Decimal("12.345"), f"{Decimal('12.345')!r}"),
        (b"\x00raw bytes", repr(b"\x00raw bytes")),
        ("two\nlines", repr("two\nlines")),
        ("gr\u00fcn und", ascii("gr\u00fcn und")),
        ({"deep": [PASSWORD]}, f"in {PASSWORD}"),
        ([["nested"]], "so nested"),
    ],
    ids=range(9),
)
def test_texts_that_quote_them_are_cleaned(value: Any, text: str) -> None:
    cleaned = hide(text, texts_of(value))
    assert "***" in cleaned
    for form in texts_of(value):
        assert form not in cleaned


def test_what_is_too_short_to_be_found_is_left() -> None:
    assert hide("a cat sat", texts_of("a")) == "a cat sat"
    assert list(texts_of([None, True, "abc", 999])) == []


def test_the_longest_is_hidden_first() -> None:
    assert hide("secret-secret", {"secret", "secret-secret"}) == "***"


def test_a_description_hides_text_and_traceback() -> None:
    try:
        raise ValueError(f"cannot log in with {PASSWORD}")
    except ValueError as error:
        error.add_note(f"tried {PASSWORD}")
        told = describe(error, secrets={PASSWORD})
    assert told.text == "cannot log in with ***"
    assert PASSWORD not in told.traceback
    assert "tried ***" in told.traceback


def test_a_secret_at_the_cut_of_a_long_text_is_hidden() -> None:
    told = describe(ValueError("x" * 1990 + PASSWORD + "y" * 5000), secrets={PASSWORD})
    assert PASSWORD[:6] not in told.text


def test_tasks_without_secrets_have_none() -> None:
    assert not secrets_of(plain)
    assert not secrets_of(Harmless)
    assert not secrets_of(print)
    assert not secrets_of(5)
    assert secrets_of(SendEmail)


def test_functions_get_what_was_sent() -> None:
    app = Camora()
    parameters = app._binding.parameters_of(app.task(nested))
    args, kwargs = parameters.out([Account(Login("me", PASSWORD))], {})
    assert parameters.into(args, kwargs)[1]["account"] == Account(Login("me", PASSWORD))
