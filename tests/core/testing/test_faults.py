"""Faults on demand: what a test breaks is broken, and nothing is lost by it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from camora import Camora, Context, RetryPolicy, every, inject
from camora.errors import BrokerUnavailable, DispatchUncertain
from camora.outcome import Status
from camora.testing import TestWorker

START = datetime(2026, 1, 1, tzinfo=UTC)


class Shop:
    """An app whose runs are counted."""

    def __init__(self) -> None:
        self.app = Camora()
        self.runs: list[int] = []

        @self.app.task
        async def charge(amount: int, context: Context = inject()) -> int:
            self.runs.append(context.deliveries)
            return amount

        @self.app.task
        def bill(amount: int) -> int:
            self.runs.append(amount)
            return amount

        self.charge = charge
        self.bill = bill


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.mark.parametrize(("at", "runs"), [("received", [2]), ("started", [2]), ("finished", [1, 2]), ("settled", [1])])
async def test_a_crash_at_every_point(shop: Shop, at: str, runs: list[int]) -> None:
    async with TestWorker(shop.app) as worker:
        worker.crash(shop.charge, at=at)  # type: ignore[arg-type]
        job = await shop.charge.dispatch(7)
        await worker.run_due()
        if at != "settled":
            assert await job.status() == Status.RUNNING
            assert await worker.advance(seconds=29.9) == 0
        await worker.advance(seconds=30)
        assert await job.result() == 7
        assert shop.runs == runs
        assert worker.pending_faults == ()
        assert sum(" crashed " in line for line in worker.log) == 1


async def test_a_crash_takes_all_that_the_worker_held(shop: Shop) -> None:
    async with TestWorker(shop.app, at_once=3) as worker:
        worker.crash(shop.bill)
        jobs = [await shop.charge.dispatch(number) for number in range(2)] + [await shop.bill.dispatch(9)]
        await worker.run_all()
        assert [await job.result() for job in jobs] == [0, 1, 9]
        # What the dead one held came back with its leases, and not before.
        assert worker.now >= START + timedelta(seconds=30)


async def test_a_job_that_kills_every_worker_is_poison(shop: Shop) -> None:
    async with TestWorker(shop.app) as worker:
        worker.crash(shop.charge, times=5)
        await shop.charge.dispatch(1)
        other = await shop.bill.dispatch(2)
        await worker.run_all()
        [letter] = worker.dead_letters
        assert letter.reason == "poison"
        assert shop.runs == [2]
        assert await other.result() == 2
        with pytest.raises(AssertionError, match=r"(?s)not all jobs have succeeded.*PoisonMessage"):
            worker.assert_all_succeeded()


async def test_a_job_that_is_delivered_twice_runs_twice(shop: Shop) -> None:
    async with TestWorker(shop.app) as worker:
        worker.deliver_twice(shop.charge)
        job = await shop.charge.dispatch(7)
        await worker.run_due()
        assert await job.result() == 7
        assert shop.runs == [1, 2]
        assert worker.now == START


async def test_a_lost_acknowledgement_brings_the_job_again(shop: Shop) -> None:
    async with TestWorker(shop.app) as worker:
        worker.lose_ack()
        job = await shop.charge.dispatch(7)
        await worker.advance(seconds=29)
        assert shop.runs == [1]
        await worker.advance(seconds=1)
        assert shop.runs == [1, 2]
        assert await job.result() == 7


async def test_a_dispatch_that_fails_once_is_repeated(shop: Shop) -> None:
    async with TestWorker(shop.app) as worker:
        worker.fail_dispatch(shop.charge)
        job = await shop.charge.dispatch(7)
        await worker.run_due()
        assert await job.result() == 7
        worker.assert_dispatched(shop.charge, times=1)


async def test_a_dispatch_whose_answer_is_lost_is_not_doubled(shop: Shop) -> None:
    async with TestWorker(shop.app) as worker:
        worker.lose_dispatch_answer(shop.charge)
        await shop.charge.dispatch(7)
        await worker.run_due()
        assert shop.runs == [1]
        worker.lose_dispatch_answer(shop.charge, times=1_000_000)
        with pytest.raises(DispatchUncertain) as caught:
            await shop.charge.dispatch(8)
        await worker.run_due()
        assert [job.id for job in worker.finished][1:] == [caught.value.job_id]


async def test_a_broker_that_is_down(shop: Shop) -> None:
    async with TestWorker(shop.app) as worker:
        waiting = await shop.charge.options(delay=60).dispatch(1)
        worker.broker_down(timedelta(minutes=10))
        with pytest.raises(BrokerUnavailable):
            await shop.charge.dispatch(2)
        await worker.advance(minutes=9)
        assert shop.runs == []
        await worker.advance(minutes=1)
        assert await waiting.result() == 1
        assert (await waiting.info()).finished == START + timedelta(minutes=10)


async def test_a_broker_that_goes_away_under_a_running_job() -> None:
    app = Camora()

    @app.task
    async def work() -> int:
        worker.broker_down(120)
        return 1

    async with TestWorker(app) as worker:
        job = await work.dispatch()
        await worker.advance(minutes=1)
        assert await job.status() == Status.RUNNING
        await worker.advance(minutes=1)
        # It ran once: its end was settled when the broker was back, and its lease was kept meanwhile.
        assert await job.result() == 1
        assert len([line for line in worker.log if " started " in line]) == 1


async def test_schedules_wait_for_the_broker() -> None:
    app = Camora()

    @app.task
    async def ping() -> None: ...

    app.schedule("ping", ping.s(), every(minutes=5))
    async with TestWorker(app) as worker:
        await worker.advance(minutes=12)
        before = len(worker.dispatched)
        worker.broker_down(timedelta(hours=1))
        await worker.advance(minutes=59)
        assert len(worker.dispatched) == before
        await worker.advance(minutes=20)
        # One for all that were missed, then as ever.
        assert before + 4 <= len(worker.dispatched) <= before + 6
        worker.assert_all_succeeded()


async def test_crashes_and_retries_together_lose_nothing() -> None:
    app = Camora(retry_policy=RetryPolicy(max_tries=10, delay=5))
    done: set[int] = set()

    @app.task
    async def work(number: int, context: Context = inject()) -> None:
        if (number + context.attempt) % 3 == 0:
            raise OSError(number)
        done.add(number)

    async with TestWorker(app, seed=3, at_once=4) as worker:
        for number in range(50):
            await work.options(delay=number % 7).dispatch(number)
        worker.crash(at="finished", times=2)
        worker.crash(at="received", times=2)
        worker.lose_ack(times=3)
        worker.deliver_twice(times=3)
        await worker.run_all()
        worker.assert_all_succeeded()
        assert worker.pending_faults == ()
    assert done == set(range(50))


@pytest.mark.parametrize("times", [0, -1])
async def test_impossible_faults_are_refused(shop: Shop, times: int) -> None:
    async with TestWorker(shop.app) as worker:
        with pytest.raises(ValueError, match="1 or more"):
            worker.crash(times=times)
        with pytest.raises(TypeError, match="is no task"):
            worker.crash(7)
