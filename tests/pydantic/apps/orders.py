"""Tasks with models: imported by tests, by worker processes, and by the processes of a pool."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated, Self

import attrs
from camora import Camora, Context, Discard
from camora_pydantic import PydanticTask
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr, model_validator


class Item(BaseModel):
    sku: str
    price: float = Field(gt=0)


class Order(BaseModel):
    id: int
    items: list[Item]


@attrs.define
class Address:
    street: str


class Receipt(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    order: Order
    total: float
    process: int
    address: Address | None = None


class Clerk:
    """A dependency."""

    name = "Ada"


def get_clerk() -> Clerk:
    return Clerk()


async def total(order: Order, discount: Annotated[float, Field(ge=0, le=1)] = 0) -> Receipt:
    return Receipt(order=order, total=sum(item.price for item in order.items) * (1 - discount), process=os.getpid())


def split(orders: list[Order]) -> dict[str, list[Item]]:
    return {str(order.id): order.items for order in orders}


def pack(order: Order) -> Receipt:
    return Receipt(order=order, total=0, process=os.getpid())


class Ship(PydanticTask):
    """Ships an order."""

    order: Order
    to: Address = Address("at home")
    times: int = Field(default=1, ge=1)
    password: SecretStr = SecretStr("")

    model_config = ConfigDict(arbitrary_types_allowed=True)

    async def execute(self, clerk: Clerk, context: Context) -> Receipt:
        assert context.task.name == "Ship"
        assert (clerk.name, self.password.get_secret_value()) == ("Ada", "hunter2")
        return Receipt(order=self.order, total=self.times, process=os.getpid(), address=self.to)


class Count(PydanticTask):
    """Runs in another process, with a dependency."""

    numbers: frozenset[int]

    def execute(self, clerk: Clerk) -> tuple[int, int, str]:
        return sum(self.numbers), os.getpid(), clerk.name


class Booking(PydanticTask):
    """All that a model may say about itself."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    user_id: int = Field(alias="userId")
    since: datetime
    until: datetime
    names: tuple[str, ...] = ()
    _checks: int = PrivateAttr(default=0)

    @model_validator(mode="after")
    def in_order(self) -> Self:
        self._checks += 1
        if self.since > self.until:
            raise ValueError("since is after until")
        return self

    async def execute(self) -> tuple[int, float, int]:
        return self.user_id, (self.until - self.since).total_seconds(), self._checks


class Refuse(PydanticTask):
    why: str

    async def execute(self) -> None:
        if os.environ.get("ORDERS_LOG"):
            Path(os.environ["ORDERS_LOG"]).write_text(self.why)
        raise Discard(self.why)


def make_app(broker: str, codec: str = "json") -> Camora:
    app = Camora(broker, codec=codec, dependencies=[get_clerk])
    for function in (total, split):
        app.register(function, name=function.__name__)
    app.register(pack, name="pack", execution="process")
    for kind in (Ship, Booking, Refuse):
        app.register(kind)
    app.register(Count, execution="process")
    return app


app = make_app(os.environ.get("ORDERS_BROKER", "memory://"))
