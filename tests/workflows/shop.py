"""An app with tasks for workflows, made anew for each test."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Any

import attrs
from camora import Camora, Context, Discard, Failure, RetryPolicy
from camora_workflows import FailedStep


@attrs.frozen
class Order:
    number: int
    day: date


class Shop:
    """`ran` is what has run, in order, as texts."""

    def __init__(self, broker: Any, **options: Any) -> None:  # noqa: C901 -- one small task after the other
        self.app = app = Camora(broker, name="shop", **options)
        self.ran: list[Any] = []
        self.told: list[FailedStep] = []
        self.failing = True
        self.hold = asyncio.Event()
        self.held = asyncio.Event()
        note = self.ran.append

        @app.task(name="add")
        async def add(x: int, y: int) -> int:
            return x + y

        @app.task(name="double")
        async def double(x: int) -> int:
            note(f"double {x}")
            return 2 * x

        @app.task(name="total")
        def total(numbers: list[int]) -> int:
            note(f"total of {len(numbers)}")
            return sum(numbers)

        @app.task(name="notify")
        async def notify(text: str) -> str:
            note(f"notify {text}")
            return text

        @app.task(name="fail")
        async def fail(x: int = 0) -> int:
            note(f"fail {x}")
            if self.failing:
                raise ValueError(f"no {x}")
            return x

        @app.task(name="flaky", retry_policy=RetryPolicy(max_tries=3, delay=0.001, on=(ValueError,)))
        async def flaky(context: Context, good: int = 3) -> int:
            note(f"flaky {context.attempt}")
            if context.attempt < good:
                raise ValueError("not yet")
            return context.attempt

        @app.task(name="refuse")
        async def refuse() -> Any:
            return Failure("no such user")

        @app.task(name="discard")
        async def discard() -> int:
            raise Discard("not wanted")

        @app.task(name="alert")
        async def alert(failed: FailedStep) -> None:
            note("alert")
            self.told.append(failed)

        @app.task(name="order")
        async def order(number: int) -> Order:
            return Order(number, date(2030, 1, number))

        @app.task(name="numbers")
        async def numbers(orders: list[Order]) -> list[int]:
            return [one.number + one.day.day for one in orders]

        @app.task(name="wait")
        async def wait(x: int = 0) -> int:
            note(f"wait {x}")
            self.held.set()
            await self.hold.wait()
            return x

        self.add, self.double, self.total, self.notify, self.fail = add, double, total, notify, fail
        self.flaky, self.refuse, self.discard, self.alert = flaky, refuse, discard, alert
        self.order, self.numbers, self.wait = order, numbers, wait
