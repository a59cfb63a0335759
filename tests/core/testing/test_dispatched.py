"""Asserts on what was dispatched."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated, Any

import pytest
from camora import BaseTask, Camora, Secret
from camora.errors import PayloadError
from camora.testing import Dispatched, TestWorker, record

app = Camora()


@app.task(queue="mail")
async def send(recipient: str, day: date, copies: int = 1) -> None: ...


@app.task
def cleanup() -> None: ...


@app.task
def login(user: str, password: Annotated[str, Secret]) -> None: ...


@app.register
class Order(BaseTask):
    number: int

    async def execute(self) -> None: ...


async def fill() -> None:
    await send.options(delay=timedelta(minutes=1), key="k").dispatch("ann", day=date(2026, 2, 3))
    await send.dispatch("bob", date(2026, 2, 3), copies=2)
    await app.dispatch(Order(number=7))
    await app.dispatch("elsewhere", 1, two=2)


async def test_what_was_dispatched_is_found_by_its_arguments() -> None:
    async with TestWorker(app, run=False) as worker:
        await fill()
        found = worker.assert_dispatched(send, recipient="ann", day=date(2026, 2, 3))
        assert (found.queue, found.delay, found.options["key"]) == ("mail", 60.0, "k")
        assert worker.assert_dispatched(send, times=2).arguments["recipient"] == "ann"
        worker.assert_dispatched(send, copies=2, options={"delay": 0})
        worker.assert_dispatched(Order, number=7)
        assert worker.assert_dispatched("elsewhere", two=2).args == [1]
        worker.assert_not_dispatched(send, recipient="eve")
        worker.assert_not_dispatched(cleanup)
        assert [job.task for job in worker.dispatched] == [send.name, send.name, "Order", "elsewhere"]
        await worker.advance(hours=1)
        assert not worker.finished


_NEAREST = (
    r"(?s)dispatched 2 times, but never with recipient='bob', copies=3.*send\(recipient='bob'.*\n    copies: 2, not 3"
)
_OTHERS = (
    r"(?s)cleanup was not dispatched.*Dispatched were:\n.*send\(recipient='ann'.*with queue='mail', delay=60.0, key='k'"
)


@pytest.mark.parametrize(
    ("task", "wanted", "text"),
    [
        (send, {"recipient": "bob", "copies": 3}, _NEAREST),
        (send, {"to": "ann"}, r"to: no such argument"),
        (send, {"options": {"dely": 3}}, r"dely: no such option; there are queue, delay"),
        (send, {"times": 3}, r"was dispatched 2 times, not 3"),
        (cleanup, {}, _OTHERS),
        ("elsewere", {}, r"did you mean 'elsewhere'\?"),
    ],
)
async def test_failures_show_the_nearest(task: Any, wanted: dict[str, Any], text: str) -> None:
    async with TestWorker(app, run=False) as worker:
        await fill()
        with pytest.raises(AssertionError, match=text):
            worker.assert_dispatched(task, **wanted)


async def test_failures_of_the_negative_asserts() -> None:
    async with TestWorker(app, run=False) as worker:
        worker.dispatched.assert_nothing_dispatched()
        await fill()
        with pytest.raises(AssertionError, match=r"(?s)was dispatched with recipient='ann', 1 times:.*ann"):
            worker.assert_not_dispatched(send, recipient="ann")
        with pytest.raises(AssertionError, match="4 jobs were dispatched"):
            worker.dispatched.assert_nothing_dispatched()
        worker.dispatched.clear()
        worker.dispatched.assert_nothing_dispatched()


async def test_no_failure_shows_a_secret() -> None:
    async with TestWorker(app, run=False) as worker:
        await login.dispatch("ann", "hunter2")
        with pytest.raises(AssertionError) as caught:
            worker.assert_dispatched(login, password="sesame", user="bob")
        assert "hunter2" not in str(caught.value)
        assert "sesame" not in str(caught.value)


def test_recording_without_an_event_loop() -> None:
    with record(app) as dispatched:
        send.dispatch_sync("ann", date(2026, 1, 1))
        cleanup.dispatch_sync()
        with pytest.raises(PayloadError, match="day"):
            send.dispatch_sync("ann", "tomorrow")  # type: ignore[arg-type]
    assert isinstance(dispatched, Dispatched)
    assert len(dispatched) == 2
    dispatched.assert_dispatched(send, recipient="ann", day=date(2026, 1, 1))
    dispatched.assert_dispatched(cleanup, times=1)


async def test_what_the_broker_had_already_is_not_noted_again() -> None:
    async with TestWorker(app, run=False) as worker:
        first = await cleanup.options(key="once").dispatch()
        second = await cleanup.options(key="once").dispatch()
        assert first == second
        worker.assert_dispatched(cleanup, times=1)


async def test_a_dispatch_into_a_transaction_is_done_at_once() -> None:
    app = Camora()

    @app.task
    async def confirm(order: int) -> int:
        return order

    async with TestWorker(app) as worker:
        job = await confirm.options(connection=object()).dispatch(7)
        assert await job.result() == 7
        worker.assert_dispatched(confirm, order=7)
    with record(app) as dispatched:
        confirm.options(connection=object()).dispatch_sync(8)
        assert len(dispatched) == 1
