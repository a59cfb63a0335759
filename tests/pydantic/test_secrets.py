"""Secrets in models: the task gets them, nobody else sees them."""

from __future__ import annotations

from typing import Annotated, Any

import pydantic
import pytest
from camora import Camora, Secret
from camora.errors import PayloadError
from camora.message import Message
from camora.secrets import mask_arguments
from camora_pydantic import PydanticTask
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, field_validator
from pydantic.alias_generators import to_camel

KNOWN = "hunter2"


class Login(BaseModel):
    user: str
    password: Annotated[SecretStr, Secret]


class SignIn(PydanticTask):
    model_config = ConfigDict(alias_generator=to_camel, serialize_by_alias=True)
    first_login: Login
    more: list[Login] = Field(default_factory=list)
    pass_word: Annotated[str, Secret] = Field(min_length=3)

    async def execute(self) -> str:
        return self.first_login.password.get_secret_value() + self.pass_word


class Pin(PydanticTask):
    pin: Annotated[SecretStr, Secret]

    async def execute(self) -> int:
        raise ValueError(f"wrong pin {self.pin.get_secret_value()}")


def sign_in() -> SignIn:
    return SignIn(  # type: ignore[call-arg]
        firstLogin=Login(user="ada", password=SecretStr(KNOWN)),
        more=[Login(user="bob", password=SecretStr(KNOWN))],
        passWord=KNOWN,
    )


def payload(app: Camora, what: Any) -> Message:
    return app._dispatcher.build(app._signature(what, (), {}))


def test_arguments_are_masked_where_they_are_listed() -> None:
    app = Camora()
    app.register(SignIn)
    message = payload(app, sign_in())
    assert message.kwargs["firstLogin"] == {"user": "ada", "password": KNOWN}
    shown = mask_arguments(app.tasks.get("SignIn"), message)["kwargs"]
    assert shown == {
        "firstLogin": {"user": "ada", "password": "***"},
        "more": [{"user": "bob", "password": "***"}],
        "passWord": "***",
    }


async def test_a_task_gets_its_secrets_and_its_signature_does_not_show_them() -> None:
    app = Camora()
    app.register(SignIn)
    async with app, app.worker():
        assert await (await app.dispatch(sign_in())).result(60) == KNOWN * 2
    task = app.tasks.get("SignIn")
    assert task is not None
    assert KNOWN not in repr(task.s(passWord=KNOWN, firstLogin={"password": KNOWN}))


async def test_a_secret_in_an_error_is_masked(caplog: pytest.LogCaptureFixture) -> None:
    app = Camora()
    app.register(Pin)
    async with app, app.worker():
        job = await app.dispatch(Pin(pin=SecretStr(KNOWN)))
        with pytest.raises(Exception, match=r"wrong pin \*\*\*") as error:
            await job.result(60)
    assert KNOWN not in f"{error.value}{caplog.text}"


async def test_a_refusal_does_not_show_what_came() -> None:
    app = Camora()
    app.register(SignIn)
    async with app:
        with pytest.raises(PayloadError) as error:
            await app.dispatch("SignIn", firstLogin={"user": "ada", "password": [KNOWN]}, passWord=KNOWN)
    assert str(error.value) == "SignIn: firstLogin.password: input should be a valid string"


class Spelled(PydanticTask):
    word: Annotated[str, Secret]
    number: int

    @field_validator("word")
    @classmethod
    def spelled(cls, word: str) -> str:
        raise ValueError(f"cannot spell {word}")

    async def execute(self) -> None: ...


async def test_what_a_validator_says_is_not_shown_where_there_are_secrets() -> None:
    app = Camora()
    app.register(Spelled)
    async with app:
        with pytest.raises(PayloadError) as error:
            await app.dispatch("Spelled", word=KNOWN, number=1)
        assert (error.value.field, KNOWN in str(error.value)) == ("word", False)
        with pytest.raises(PayloadError) as error:
            await app.dispatch("Spelled", word=KNOWN, number="x")
        assert KNOWN not in str(error.value)


class Bare(PydanticTask):
    password: SecretStr
    other: pydantic.Secret[int] | None = None
    pin: SecretStr = Field(validation_alias=AliasChoices("pin", "code"), default=SecretStr(""))

    async def execute(self) -> None: ...


def test_a_secret_of_pydantics_is_masked_without_a_mark() -> None:
    app = Camora()
    app.register(Bare)
    message = payload(app, Bare(password=SecretStr(KNOWN), other=pydantic.Secret[int](1)))
    assert message.kwargs["password"] == KNOWN
    shown = mask_arguments(app.tasks.get("Bare"), message)["kwargs"]
    assert shown == {"password": "***", "other": "***", "pin": "***"}
    sent = Message(id="1", task="Bare", kwargs={"password": KNOWN, "code": KNOWN})
    assert KNOWN not in str(mask_arguments(app.tasks.get("Bare"), sent))
