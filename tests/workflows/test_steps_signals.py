"""`wait_for_signal` and `app.signal`: none is lost, whenever it comes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from camora import Camora, CancelResult, RetryPolicy, Status
from camora.errors import JobFailed
from camora.testing import TestWorker
from camora_workflows import durable_sleep, step, wait_for_signal


@dataclass(frozen=True)
class Approval:
    by: str
    amount: int = 0


@pytest.fixture
def app() -> Camora:
    return Camora()


def approving(app: Camora, **given: Any) -> Any:
    @app.task
    async def approve() -> str:
        approval = await wait_for_signal("approved", type=Approval, **given)
        return f"by {approval.by}"

    return approve


async def test_before_the_wait(app: Camora) -> None:
    """Even before the job is there at all."""
    approve = approving(app)
    async with TestWorker(app) as worker:
        assert not await app.signal("the-order", "approved", Approval("ada"))
        job = await approve.options(job_id="the-order").dispatch()
        await worker.run_due()
        assert await job.result() == "by ada"


async def test_while_it_waits(app: Camora) -> None:
    approve = approving(app)
    async with TestWorker(app) as worker:
        job = await approve.dispatch()
        await worker.advance(hours=3)
        assert await job.status() is Status.SCHEDULED
        assert await app.signal(job.id, "approved", Approval("bob", 3))
        await worker.run_due()
        assert await job.result() == "by bob"
        assert (await job.info()).attempts == 1


async def test_while_the_function_is_on_its_way_to_wait(app: Camora) -> None:
    """It looked before the signal came, and is suspended after that: it finds it by itself, soon."""
    about_to_wait, signalled = asyncio.Event(), asyncio.Event()
    runs: list[int] = []

    @app.task
    async def approve() -> str:
        runs.append(1)
        if len(runs) == 1:
            about_to_wait.set()
            await signalled.wait()
        return str(await wait_for_signal("approved"))

    async with app, app.worker():
        job = await approve.dispatch()
        await about_to_wait.wait()
        waking = asyncio.create_task(app.signal(job.id, "approved", "yes"))
        signalled.set()
        assert await job.result(60) == "yes"
        await waking


async def test_a_wake_up_that_is_lost(app: Camora, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever signals dies after posting: the job looks by itself, after growing pauses."""
    approve = approving(app)

    async def dies(*_: object) -> bool:
        return False

    monkeypatch.setattr(app._posting, "_wake", dies)
    async with TestWorker(app) as worker:
        job = await approve.dispatch()
        await worker.advance(hours=2)
        monkeypatch.setattr(app._posting, "_wake", dies)
        await app.signal(job.id, "approved", Approval("ada"))
        await worker.advance(minutes=10)
        assert await job.result() == "by ada"
    looks = [line for line in worker.log if "started" in line]
    assert 10 < len(looks) < 40, "soon at first, then rarely"


async def test_in_order_of_arrival(app: Camora) -> None:
    @app.task
    async def collect(count: int) -> list[int]:
        return [await wait_for_signal("part", type=int) for _ in range(count)]

    async with TestWorker(app) as worker:
        job = await collect.dispatch(4)
        await app.signal(job.id, "part", 1)
        await worker.run_due()
        await app.signal(job.id, "part", 2)
        await app.signal(job.id, "part", 3)
        await worker.run_due()
        assert await job.status() is Status.SCHEDULED
        await app.signal(job.id, "part", 4)
        await worker.run_due()
        assert await job.result() == [1, 2, 3, 4]


async def test_signals_of_other_names_and_jobs_are_others(app: Camora) -> None:
    @app.task
    async def wait() -> list[str]:
        return [await wait_for_signal("b"), await wait_for_signal("a/0"), await wait_for_signal("a")]

    async with TestWorker(app) as worker:
        one, two = await wait.dispatch(), await wait.dispatch()
        for name in ("a", "a/0", "b"):
            await app.signal(one.id, name, f"{name} of one")
            await app.signal(two.id, name, f"{name} of two")
        await worker.run_due()
        assert await one.result() == ["b of one", "a/0 of one", "a of one"]
        assert await two.result() == ["b of two", "a/0 of two", "a of two"]


async def test_in_vain(app: Camora) -> None:
    @app.task
    async def wait() -> list[str]:
        found = []
        for _ in range(2):
            try:
                found.append(await wait_for_signal("approved", timeout=timedelta(hours=1)))
            except TimeoutError as error:
                found.append(str(error))
            await durable_sleep(minutes=1)
        return found

    async with TestWorker(app) as worker:
        job = await wait.dispatch()
        await worker.advance(minutes=59)
        assert await job.status() is Status.SCHEDULED
        await worker.advance(minutes=1)
        await app.signal(job.id, "approved", "late")  # for the second wait: the first one has ended in vain, for ever
        await worker.run_all()
        first, second = await job.result()
    assert "no signal 'approved' has come in time" in first
    assert second == "late"


async def test_no_timeout_at_all_is_a_look(app: Camora) -> None:
    @app.task
    async def look() -> str:
        try:
            return str(await wait_for_signal("approved", timeout=0))
        except TimeoutError:
            return "not yet"

    async with TestWorker(app) as worker:
        one = await look.dispatch()
        await app.signal("other", "approved", "yes")
        other = await look.options(job_id="other").dispatch()
        await worker.run_due()
        assert await one.result() == "not yet"
        assert await other.result() == "yes"


async def test_a_payload_of_another_type(app: Camora) -> None:
    approve = approving(app)
    async with TestWorker(app) as worker:
        job = await approve.dispatch()
        await app.signal(job.id, "approved", {"by": "ada", "amount": "much"})
        await worker.run_due()
        with pytest.raises(JobFailed, match=r"what came with the signal 'approved' is no Approval: amount") as failed:
            await job.result()
        assert failed.value.error_type == "camora.errors.PayloadError"


async def test_steps_around_a_wait_are_done_once(app: Camora) -> None:
    done: list[str] = []

    @app.task
    async def order() -> str:
        await step("ask", done.append, "asked")
        answer = await wait_for_signal("answer", type=str)
        await step("act", done.append, answer)
        return answer

    async with TestWorker(app) as worker:
        job = await order.dispatch()
        await worker.advance(hours=1)
        await app.signal(job.id, "answer", "do it")
        await worker.run_due()
        assert await job.result() == "do it"
    assert done == ["asked", "do it"]


async def test_a_signal_wakes_nobody_who_waits_for_something_else(app: Camora) -> None:
    """A delay, a pause before a retry and a sleep last as long as they were to."""
    done: list[str] = []

    @app.task(retry_policy=RetryPolicy(max_tries=2, delay=3600, jitter=False))
    async def order() -> str:
        found = await wait_for_signal("approved", type=str)
        await step("note", done.append, found)
        await durable_sleep(hours=1, name="rest")
        if len(done) == 1:
            done.append("failed")
            raise OSError
        return str(await wait_for_signal("approved"))

    async with TestWorker(app) as worker:
        job = await order.options(delay=3600).dispatch()
        assert not await app.signal(job.id, "approved", "one")
        await worker.advance(minutes=59)
        assert done == []
        await worker.advance(minutes=1)
        assert done == ["one"]
        assert not await app.signal(job.id, "approved", "two")
        await worker.advance(minutes=59)
        assert done == ["one"]
        await worker.advance(minutes=1)
        assert done == ["one", "failed"]
        assert not await app.signal(job.id, "approved", "three")
        await worker.advance(minutes=59)
        assert await job.status() is Status.RETRYING
        await worker.advance(minutes=1)
        assert await job.result() == "two"


async def test_a_job_that_waits_can_be_cancelled(app: Camora) -> None:
    approve = approving(app)
    async with TestWorker(app) as worker:
        job = await approve.dispatch()
        await worker.advance(hours=1)
        assert await job.cancel() is CancelResult.REMOVED
        assert not await app.signal(job.id, "approved", Approval("ada"))
        await worker.run_all()
        assert await job.status() is Status.CANCELLED


async def test_repeated_posts_are_one(app: Camora) -> None:
    """An answer that is lost does not double a signal."""
    seen: list[Any] = []

    @app.task
    async def collect() -> list[int]:
        return [await wait_for_signal("part", type=int) for _ in range(2)]

    async with TestWorker(app) as worker:
        job = await collect.dispatch()
        stores = await app._connections.get()
        journal = await stores.journal()
        assert journal is not None
        real = type(journal).post

        async def post(self: Any, *given: Any) -> int:
            number = await real(self, *given)
            seen.append(number)
            if len(seen) == 1:
                from camora.errors import BrokerUnavailable

                raise BrokerUnavailable("the answer is lost")
            return number

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(journal), "post", post)
            await app.signal(job.id, "part", 1)
        await app.signal(job.id, "part", 2)
        await worker.run_all()
        assert await job.result() == [1, 2]
    assert seen == [0, 0]


async def test_names(app: Camora) -> None:
    @app.task
    async def wait() -> None:
        await wait_for_signal("")

    async with TestWorker(app) as worker:
        job = await wait.dispatch()
        await worker.run_due()
        with pytest.raises(JobFailed, match="the name of a signal is a text that is not empty; it got ''"):
            await job.result()


async def test_with_real_workers(broker_url: str) -> None:
    """Two workers, a signal before, one during and one after a wait, from an app of its own where that can be."""
    app = Camora(broker_url)
    runs: list[str] = []

    @app.task
    async def collect() -> list[str]:
        found = []
        for number in range(3):
            await step(f"note-{number}", runs.append, f"note-{number}")
            found.append(await wait_for_signal("part", timeout=60, type=str))
        return found

    async with app, app.worker(concurrency=1), app.worker(concurrency=1):
        job = await collect.options(job_id="collector").dispatch()
        await app.signal("collector", "part", "first")
        while "note-1" not in runs:
            await asyncio.sleep(0.02)
        await app.signal("collector", "part", "second")
        while "note-2" not in runs:
            await asyncio.sleep(0.02)
        while await job.status() is not Status.SCHEDULED:
            await asyncio.sleep(0.02)
        assert await app.signal("collector", "part", "third")
        assert await job.result(60) == ["first", "second", "third"]
    assert runs == ["note-0", "note-1", "note-2"]


def test_from_code_without_a_loop(app: Camora) -> None:
    assert app.signal_sync("somebody", "approved", 1) is False
    app.close_sync()
