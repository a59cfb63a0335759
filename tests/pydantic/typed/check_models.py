"""What type checkers see of models; this file is checked by mypy and pyright, and never run."""

from __future__ import annotations

from typing import assert_type

from camora import Camora, Context, Job
from camora_pydantic import PydanticTask
from pydantic import BaseModel, Field

app = Camora()


class Order(BaseModel):
    id: int
    note: str | None = None


@app.task
async def ship(order: Order, *, times: int = 1) -> list[Order]:
    return [order] * times


@app.register
class Send(PydanticTask):
    to: str
    order: Order
    times: int = Field(default=1, ge=1)
    tags: list[str] = Field(default_factory=list)
    user_id: int = Field(default=0, alias="userId")

    async def execute(self, ctx: Context) -> None: ...


class Sub(Send):
    extra: bool


async def use() -> None:
    assert_type(await ship.dispatch(Order(id=1), times=2), Job[list[Order]])
    sent = Send(to="a", order=Order(id=1), times=2, userId=3)
    assert_type(sent.order.id, int)
    assert_type(sent.tags, list[str])
    assert_type(sent.user_id, int)
    assert_type(sent.model_copy(), Send)
    assert_type(Send.model_validate({}), Send)
    await app.dispatch(sent)
    await app.dispatch(Send, to="a", order=Order(id=1))
    await app.options(delay=1).dispatch(Sub(to="a", order=Order(id=1), extra=True))

    await ship.dispatch(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Send(to="a")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Send(to=1, order=Order(id=1))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    Send("a", Order(id=1))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Sub(to="a", order=Order(id=1))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    _ = sent.nothing  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
