"""The tasks of a shop: what becomes of one order, from the shelf to the parcel."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
from camora import Camora, Context, Failure, RetryPolicy, inject
from camora_workflows import FailedStep, Graph, step, wait_for_signal

app = Camora(
    os.environ.get("ORDERS_BROKER", "sqlite:///orders.db"),
    retry_policy=RetryPolicy(max_tries=5, delay=0.1, jitter=False),
)
BANK = Path(os.environ.get("ORDERS_BANK", "bank"))
"""The world outside: a folder, in which each charge is a file."""


@attrs.frozen
class Order:
    """What somebody wants; `cents` is what it costs."""

    number: int
    items: list[str]
    cents: int

    @property
    def is_large(self) -> bool:
        """True if somebody has to look at it before it is paid."""
        return self.cents > 10_000


def fulfil(order: Order) -> Graph:
    """The shelf first; then the money and the label side by side; the parcel when both are there."""
    return (
        Graph(on_failure=apologize.s(order.number))
        .add("stock", reserve.map(order.items))
        .add("paid", pay.si(order), after=["stock"])
        .add("label", label.s(order.number), after=["stock"])
        .add("shipped", ship.s(order.number), after=["paid", "label"])
    )


@app.task
async def reserve(item: str) -> str | Failure:
    return Failure(f"there is no {item}") if item == "unicorn" else f"shelf {len(item)}"


def charge(order: Order, key: str) -> str:
    """A bank that knows a key again, and fails after it has done its work when it feels like it."""
    receipt = BANK / f"{order.number}-{key}"
    receipt.touch()
    return receipt.name


@app.task
async def pay(order: Order, ctx: Context = inject()) -> str | Failure:
    if order.is_large and not await wait_for_signal("approved", type=bool, timeout=timedelta(days=2)):
        return Failure("not approved")
    # A worker that dies after the charge and before it is entered charges again: under the same key.
    receipt = await step("charge", charge, order, ctx.id)
    if ctx.attempt == 1:
        raise ConnectionError("the mail server is away")  # what was charged is not charged again by the next attempt
    return receipt


@app.task
async def label(shelves: list[str], number: int) -> str:
    return f"order {number}, from {', '.join(sorted(shelves))}"


@app.task
async def ship(ready: list[Any], number: int) -> str:
    receipt, text = ready
    return f"{text}, paid with {receipt.partition('-')[0]}"


@app.task
async def apologize(failed: FailedStep, number: int) -> None:
    (BANK / f"{number}.sorry").write_text(failed.error_text)
