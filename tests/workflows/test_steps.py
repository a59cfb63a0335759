"""`step`: what was done is not done again, in no attempt and by no other worker."""

from __future__ import annotations

import asyncio
import functools
import gc
from dataclasses import dataclass
from typing import Any

import pytest
from camora import Camora, Context, RetryPolicy, WorkerSettings
from camora.errors import JobFailed, UnsupportedCapability
from camora.testing import TestWorker
from camora_workflows import durable_sleep, step
from camora_workflows.journaling import Running, StepError, running

QUICK = RetryPolicy(max_tries=4, delay=0)


@dataclass(frozen=True)
class Receipt:
    number: int
    items: tuple[str, ...]


class Till:
    """What steps have done."""

    def __init__(self) -> None:
        self.done: list[str] = []

    async def charge(self, order: int) -> Receipt:
        self.done.append(f"charge {order}")
        return Receipt(order, ("a", "b"))

    def ship(self, order: int, *, fast: bool = False) -> tuple[int, bool]:
        self.done.append(f"ship {order}")
        return order, fast


@pytest.fixture
def app() -> Camora:
    return Camora(retry_policy=QUICK)


@pytest.fixture
def till() -> Till:
    return Till()


async def test_a_retried_job_skips_what_is_done(app: Camora, till: Till) -> None:
    seen: list[Any] = []

    @app.task
    async def order(number: int) -> str:
        receipt = await step("charge", till.charge, number)
        parcel = await step("ship", till.ship, number, fast=True)
        seen.append((receipt, parcel))
        if len(seen) < 3:
            raise OSError("the mail server is away")
        return "ok"

    async with TestWorker(app) as worker:
        job = await order.dispatch(7)
        await worker.run_all()
        assert await job.result() == "ok"
    assert till.done == ["charge 7", "ship 7"]
    assert seen == [(Receipt(7, ("a", "b")), (7, True))] * 3


async def test_each_job_has_steps_of_its_own(app: Camora, till: Till) -> None:
    @app.task
    async def order(number: int) -> int:
        return (await step("charge", till.charge, number)).number

    async with TestWorker(app) as worker:
        jobs = [await order.dispatch(number) for number in range(3)]
        await worker.run_all()
        assert [await job.result() for job in jobs] == [0, 1, 2]
    assert sorted(till.done) == ["charge 0", "charge 1", "charge 2"]


async def test_a_step_that_raises_is_done_again(app: Camora, till: Till) -> None:
    tries: list[int] = []

    async def flaky() -> int:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("not yet")
        return len(tries)

    @app.task
    async def order() -> int:
        await step("charge", till.charge, 1)
        return await step("flaky", flaky)

    async with TestWorker(app) as worker:
        job = await order.dispatch()
        await worker.run_all()
        assert await job.result() == 3
    assert till.done == ["charge 1"]


async def test_a_job_whose_worker_died_skips_what_is_done(app: Camora, till: Till) -> None:
    @app.task
    async def order() -> int:
        await step("charge", till.charge, 1)
        await step("ship", till.ship, 1)
        return 1

    async with TestWorker(app) as worker:
        worker.crash(order, at="finished")
        worker.lose_ack(order)
        job = await order.dispatch()
        await worker.run_all()
        assert await job.result() == 1
    assert till.done == ["charge 1", "ship 1"]


async def test_a_dead_letter_that_is_put_back_goes_on_where_it_failed(till: Till) -> None:
    app = Camora()
    mended: list[bool] = []

    @app.task
    async def order() -> int:
        await step("charge", till.charge, 1)
        if not mended:
            raise OSError
        return 1

    async with TestWorker(app) as worker:
        job = await order.dispatch()
        await worker.run_all()
        with pytest.raises(JobFailed):
            await job.result()
        mended.append(True)
        assert await app.requeue(job.id)
        await worker.run_all()
        assert await job.result() == 1
    assert till.done == ["charge 1"]


async def test_how_long_a_journal_is_kept(till: Till) -> None:
    """For as long as the settings say after the last entry, and over every sleep."""
    app = Camora(extensions={"workflows": {"keep": "10d"}})
    seen: list[int] = []

    @app.task
    async def order() -> None:
        await step("charge", till.charge, 1)
        await durable_sleep(hours=10)
        seen.append(len(till.done))

    async with TestWorker(app) as worker:
        job = await order.dispatch()
        await worker.advance(hours=10)
        assert seen == [1]
        journal = await (await app._connections.get()).journal()
        assert journal is not None
        await worker.advance(days=9)
        assert set(await journal.read(job.id)) == {"step:charge", "sleep:#0"}
        await worker.advance(days=2)
        assert await journal.read(job.id) == {}


async def test_a_job_that_was_acknowledged_before_cannot_be_suspended(till: Till) -> None:
    app = Camora()

    @app.task(ack="before")
    async def order() -> None:
        await step("charge", till.charge, 1)
        await durable_sleep(hours=1)

    async with TestWorker(app) as worker:
        job = await order.dispatch()
        await worker.run_all()
        with pytest.raises(JobFailed, match="acknowledged"):
            await job.result()


async def test_steps_may_run_at_the_same_time(app: Camora, till: Till) -> None:
    runs: list[int] = []

    @app.task
    async def order() -> list[int]:
        runs.append(1)
        found = await asyncio.gather(*(step(f"charge-{number}", till.charge, number) for number in range(5)))
        if len(runs) == 1:
            raise OSError
        return [receipt.number for receipt in found]

    async with TestWorker(app) as worker:
        job = await order.dispatch()
        await worker.run_all()
        assert await job.result() == [0, 1, 2, 3, 4]
    assert sorted(till.done) == [f"charge {number}" for number in range(5)]


async def test_what_a_step_returns_is_the_same_in_all_runs(app: Camora) -> None:
    """A value without an annotation comes back as plain data, and that in the first run, too."""
    seen: list[Any] = []

    def loose():  # type: ignore[no-untyped-def]
        return {"pair": (1, 2), "when": Receipt(1, ())}

    def wrong() -> int:
        return "a text"  # type: ignore[return-value]

    async def later(number: int) -> Receipt:
        return Receipt(number, ())

    @app.task
    async def order() -> None:
        seen.append(
            (
                await step("loose", loose),
                await step("wrong", wrong),
                await step("lambda", lambda: later(3)),
                await step("partial", functools.partial(later, 4)),
                await step("nothing", lambda: None),
            )
        )
        if len(seen) < 2:
            raise OSError

    async with TestWorker(app) as worker:
        await order.dispatch()
        await worker.run_all()
    first, second = seen
    assert first == second
    assert first[0] == {"pair": [1, 2], "when": {"number": 1, "items": []}}
    assert first[1:] == ("a text", {"number": 3, "items": []}, Receipt(4, ()), None)


async def test_a_registered_task_is_a_step_like_any_function(app: Camora, till: Till) -> None:
    @app.task
    async def charge(number: int) -> Receipt:
        return await till.charge(number)

    @app.task
    def ship(number: int) -> tuple[int, bool]:
        return till.ship(number)

    @app.task
    async def order() -> list[Any]:
        return [(await step("charge", charge, 2)).number, await step("ship", ship, 2)]

    async with TestWorker(app) as worker:
        job = await order.dispatch()
        await worker.run_all()
        assert await job.result() == [2, [2, False]]
    assert till.done == ["charge 2", "ship 2"]


async def _failed(app: Camora, task: Any) -> str:
    async with TestWorker(app) as worker:
        job = await task.dispatch()
        await worker.run_all()
        with pytest.raises(JobFailed) as failed:
            await job.result()
        assert (await job.info()).attempts == 1, "a mistake in the program is not tried again"
    return str(failed.value)


async def test_two_steps_of_one_name(app: Camora, till: Till) -> None:
    @app.task
    async def order() -> None:
        for number in range(2):
            await step("charge", till.charge, number)

    text = await _failed(app, order)
    assert "there are two steps 'charge' in one run of the job" in text
    assert 'in a loop f"charge-{index}"' in text
    assert till.done == ["charge 0"]


async def test_a_value_that_cannot_be_kept(app: Camora) -> None:
    async def opened() -> Any:
        return object()

    @app.task
    async def order() -> None:
        await step("open", opened)

    assert "the step 'open' was done, and what it returned cannot be kept" in await _failed(app, order)


async def test_what_is_no_function(app: Camora, till: Till) -> None:
    @app.task
    async def order() -> None:
        await step("charge", till.charge(1))  # type: ignore[call-overload]

    text = await _failed(app, order)
    assert "step('charge', …) takes a function, and what to call it with; it got <coroutine object" in text


async def test_outside_of_a_job(till: Till) -> None:
    with pytest.raises(StepError, match=r"step\(…\) was awaited outside of a job"):
        await step("charge", till.charge, 1)


async def test_in_a_task_that_outlives_the_job(app: Camora, till: Till) -> None:
    left: list[asyncio.Task[Any]] = []
    over = asyncio.Event()

    async def linger() -> None:
        await over.wait()
        await step("charge", till.charge, 1)

    @app.task
    async def order() -> None:
        left.append(asyncio.create_task(linger()))

    async with TestWorker(app) as worker:
        await order.dispatch()
        await worker.run_all()
        over.set()
        with pytest.raises(StepError, match="in a task that it left running"):
            await left[0]
    assert till.done == []


async def test_run_now_does_steps_too(app: Camora, till: Till) -> None:
    runs: list[int] = []

    @app.task
    async def order() -> int:
        runs.append(1)
        await step("charge", till.charge, 1)
        if len(runs) < 3:
            raise OSError
        return len(runs)

    assert await app.run_now(order.s()) == 3
    assert till.done == ["charge 1"]
    with pytest.raises(StepError):
        running("step(…)")


async def test_in_threads(till: Till) -> None:
    """An async task in a thread has a loop of its own; the journal stays in the worker's."""
    app = Camora(retry_policy=QUICK)
    runs: list[int] = []

    @app.task(execution="thread")
    async def order() -> int:
        runs.append(1)
        await asyncio.gather(step("charge", till.charge, 1), step("ship", till.ship, 1))
        if len(runs) < 2:
            raise OSError
        return 1

    async with app, app.worker():
        assert await (await order.dispatch()).result(60) == 1
    assert sorted(till.done) == ["charge 1", "ship 1"]


async def in_a_process() -> None:
    await step("charge", str, 1)


async def test_in_a_pool_of_processes() -> None:
    app = Camora()
    task = app.task(execution="process")(in_a_process)
    async with app, app.worker():
        with pytest.raises(JobFailed, match="needs the worker's own process, where the journal is"):
            await (await task.dispatch()).result(60)


class NoJournal:
    def own_journal(self) -> None:
        return None


async def test_without_a_journal(till: Till, monkeypatch: pytest.MonkeyPatch) -> None:
    app = Camora()
    for store in (app.broker, app.results):
        monkeypatch.setattr(type(store), "own_journal", NoJournal.own_journal)

    @app.task
    async def order() -> None:
        await step("charge", till.charge, 1)

    async with app, app.worker():
        job = await order.dispatch()
        with pytest.raises(JobFailed, match=r"need a store that keeps a journal.*results=\"redis://…\"") as failed:
            await job.result(60)
        assert failed.value.error_type == "camora.errors.UnsupportedCapability"
        with pytest.raises(UnsupportedCapability, match="signals are kept in a journal"):
            await app.signal(job.id, "approved")
    assert till.done == []


async def test_an_attempt_that_was_overtaken_writes_nothing(till: Till, tmp_path: Any) -> None:
    """It stands still for longer than its lease; another one does the rest, and its own value never counts."""
    app = Camora(f"sqlite:///{tmp_path}/camora.db")
    claimed, go_on = asyncio.Event(), asyncio.Event()
    runs: list[Running] = []

    async def value(number: int) -> int:
        if number == 1:
            claimed.set()
            await go_on.wait()
        return number

    @app.task
    async def order(context: Context) -> int:
        run = running("test")
        assert isinstance(run, Running)
        runs.append(run)
        return await step("value", value, len(runs))

    async with app:
        stores = await app._connections.get()
        journal = await stores.journal()
        assert journal is not None
        async with app.worker(settings=WorkerSettings(lease=60)):
            job = await order.dispatch()
            await claimed.wait()
            # A later attempt, somewhere: it has claimed the journal, and entered what it came to.
            later = (1 << 40) | (1 << 20) | 1
            assert await journal.claim(job.id, later, 600) is not None
            assert await journal.write(job.id, later, "step:value", b"42", 600) == b"42"
            go_on.set()
            # The broker still lends it to this worker, so it may go on: in a new life, with what stands.
            assert await job.result(60) == 42
    assert len(runs) == 2


async def test_nothing_of_a_job_is_kept_when_it_has_ended(till: Till) -> None:
    """What a job starts and leaves running has a copy of its context variables; its arguments may be large."""
    app = Camora("memory://")
    left: list[asyncio.Task[None]] = []
    over = asyncio.Event()

    async def linger() -> None:
        await over.wait()

    @app.task
    async def order(text: str) -> None:
        await step("charge", till.charge, 1)
        left.append(asyncio.create_task(linger()))

    async with app, app.worker():
        await (await order.dispatch("a large text")).result(60)
        async with asyncio.timeout(60):
            while any(found.task is order for found in gc.get_objects() if isinstance(found, Context)):
                gc.collect()
                await asyncio.sleep(0.02)
        over.set()
        await left[0]
