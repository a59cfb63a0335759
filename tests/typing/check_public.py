"""What type checkers see; this file is checked by mypy and pyright, and never run."""

from __future__ import annotations

from typing import Any, assert_type

from camora import BaseTask, Camora, Context, Job, Queue, Signature, Task
from camora.dispatchable import Dispatchable, Partial
from camora.task import AsyncTask, SyncTask

app = Camora()


@app.task
async def add(x: int, y: int) -> int:
    return x + y


@app.task(queue="mail", timeout=30)
def send(recipient: str, *, urgent: bool = False) -> str:
    return recipient


def existing(x: float) -> bool:
    return x > 0


@app.task(queue=Queue("reports", concurrency=2))
async def report(day: str) -> bytes:
    return day.encode()


@app.fallback(queue=Queue("lost"))
def strangers() -> None: ...


OWNED: dict[str, Any] = {"copies": 2}
"""Type checkers do not know the options of plugins, so they are unpacked."""


@app.task(timeout=30, **OWNED)
async def copied(x: int) -> int:
    return x


registered = app.register(existing, queue="mail")


@app.register
class SendEmail(BaseTask):
    recipient: str
    content: str = ""

    async def execute(self, ctx: Context) -> None: ...


async def use_any(one: AsyncTask[..., int], other: SyncTask[..., bool]) -> None:
    both: list[Task[..., Any]] = [one, other]
    assert_type(await both[0].dispatch(), Job[Any])


async def use() -> None:
    assert_type(await add(1, 2), int)
    assert_type(send("a", urgent=True), str)
    assert_type(await add.dispatch(1, y=2), Job[int])
    assert_type(await (await add.dispatch(1, 2)).result(), int)
    assert_type((await send.dispatch("a")).result_sync(), str)
    assert_type(send.dispatch_sync("a"), Job[str])
    assert_type(await add.options(delay=10, queue="slow").dispatch(1, 2), Job[int])
    assert_type(add.s(1, 2), Signature[int])
    assert_type(await add.s(1, 2).dispatch(), Job[int])
    assert_type(await app.run_now(add.s(1, 2)), int)
    assert_type(SendEmail(recipient="a").recipient, str)
    assert_type(await report.options(queue=Queue("other")).dispatch("today"), Job[bytes])
    assert_type(await copied.options(**OWNED).dispatch(1), Job[int])
    assert_type(await registered.dispatch(x=1.0), Job[bool])
    await use_any(add, registered)

    await add.dispatch(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await add.dispatch(1, "2")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await add.options(dealy=1).dispatch(1, 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await add.options(queue=3).dispatch(1, 2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    SendEmail(recipient=1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@app.task
async def double(x: int) -> int:
    return 2 * x


@app.task
def shout(text: str, times: int = 1) -> str:
    return text * times


@app.task
async def total(numbers: list[int]) -> int:
    return sum(numbers)


def compose() -> None:
    assert_type(double.s(), Partial[int, int])
    assert_type(add.s(1), Partial[int, int])
    assert_type(add.s(1, 2) >> double.s(), Dispatchable[int])
    assert_type(add.s(1, 2) >> double.s() >> add.s(1) >> shout.si("done"), Dispatchable[str])
    assert_type(double.map([1, 2]), Dispatchable[list[int]])
    assert_type(double.map([1, 2]) >> total.s(), Dispatchable[int])
    assert_type(double.options(delay=1).s(), Partial[int, int])

    add.s(1, 2) >> shout.s()  # type: ignore[operator]  # pyright: ignore[reportOperatorIssue]
    double.map(["a"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
