"""`TestWorker` and time: everything at its own moment, and the same under the same seed."""

from __future__ import annotations

import asyncio
import random
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from camora import Camora, Context, Queue, Retry, RetryPolicy, cron, every, inject
from camora.outcome import Status
from camora.testing import TestWorker


def moments(worker: TestWorker, word: str) -> list[str]:
    return [line.split()[0] for line in worker.log if line.split()[1] == word]


async def test_the_example_of_the_documentation() -> None:
    app = Camora()

    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    async with TestWorker(app) as worker:
        job = await add.options(delay=3600).dispatch(1, 2)
        await worker.advance(minutes=59)
        assert await job.status() == "scheduled"
        assert await worker.advance(minutes=1) == 1
        assert await job.result() == 3
        assert worker.now == datetime(2026, 1, 1, 1, tzinfo=UTC)


async def test_what_is_due_runs_while_the_test_waits() -> None:
    app = Camora()

    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    async with TestWorker(app):
        assert await (await add.dispatch(1, 2)).result(timeout=30) == 3


async def test_the_app_gets_its_own_parts_back() -> None:
    app = Camora("memory://own")

    @app.task
    async def nothing() -> None: ...

    before = app.broker, app.results, app.clock, app.settings, [link.name for link in app.chain()]
    async with TestWorker(app) as worker:
        await nothing.dispatch()
        await worker.run_due()
    assert (app.broker, app.results, app.clock, app.settings, [link.name for link in app.chain()]) == before
    # Its own broker has heard nothing of all that, and works.
    async with app:
        job = await nothing.dispatch()
        assert await job.status() == "queued"
    with pytest.raises(RuntimeError, match="make another one"):
        async with worker:
            pass


async def test_retries_come_at_their_moments() -> None:
    app = Camora(retry_policy=RetryPolicy(max_tries=4, delay=60, jitter=False))

    @app.task
    async def flaky(context: Context = inject()) -> int:
        if context.attempt < 4:
            raise OSError("not yet")
        return context.attempt

    async with TestWorker(app) as worker:
        job = await flaky.dispatch()
        await worker.run_all()
        assert await job.result() == 4
        assert worker.now - worker_start() == timedelta(seconds=60 + 120 + 240)
        assert [line[11:19] for line in worker.log if " started " in line] == [
            "00:00:00",
            "00:01:00",
            "00:03:00",
            "00:07:00",
        ]


def worker_start() -> datetime:
    return datetime(2026, 1, 1, tzinfo=UTC)


async def test_jobs_run_in_the_order_in_which_they_come_due() -> None:
    app = Camora()
    seen: list[tuple[int, datetime]] = []

    @app.task
    async def note(number: int) -> None:
        seen.append((number, worker.now))

    async with TestWorker(app) as worker:
        for number, delay in enumerate((50, 10, 30, 20, 40)):
            await note.options(delay=delay).dispatch(number)
        await worker.advance(hours=1)
    assert [number for number, _ in seen] == [1, 3, 2, 4, 0]
    assert [(moment - worker_start()).total_seconds() for _, moment in seen] == [10, 20, 30, 40, 50]


async def test_jobs_that_expire_do_so_in_virtual_time() -> None:
    app = Camora()

    @app.task
    async def late() -> None: ...

    async with TestWorker(app) as worker:
        job = await late.options(delay=60, expires=30).dispatch()
        await worker.advance(minutes=2)
        assert await job.status() == Status.EXPIRED


async def test_schedules_fire_at_every_tick() -> None:
    app = Camora()

    @app.task
    async def report() -> None: ...

    @app.task
    async def ping() -> None: ...

    app.schedule("report", report.s(), cron("0 9 * * 1-5"))
    app.schedule("ping", ping.s(), every(minutes=5))
    async with TestWorker(app) as worker:  # the first of January 2026 is a Thursday
        await worker.advance(days=7)
        assert len(worker.dispatched.of(report)) == 5
        assert len(worker.finished.of(ping)) == 7 * 24 * 12
        nines = {line[11:19] for line in worker.log if " started " in line and ".report " in line}
        assert nines == {"09:00:00"}


async def test_a_year_of_daily_jobs_with_retries() -> None:
    app = Camora(retry_policy=RetryPolicy(max_tries=5, delay=60))
    runs = 0

    @app.task
    async def nightly() -> None:
        nonlocal runs
        runs += 1
        if runs % 3 == 0:
            raise OSError("every third one")

    app.schedule("nightly", nightly.s(), cron("0 3 * * *"))
    async with TestWorker(app) as worker:
        assert await worker.advance(days=365) == 365
        worker.assert_all_succeeded()
        assert runs > 365


async def test_rates_let_jobs_run_at_their_pace() -> None:
    app = Camora()
    seen: list[float] = []

    @app.task(rate_limit="6/m")
    async def call() -> None:
        seen.append((worker.now - worker_start()).total_seconds())

    async with TestWorker(app) as worker:
        for _ in range(30):
            await call.dispatch()
        await worker.run_all()
        worker.assert_all_succeeded()
    assert len(seen) == 30
    # In no minute more than six. Those who were refused keep away for longer than they must, but not for ever.
    assert all(later - earlier >= 60 for earlier, later in zip(seen, seen[6:], strict=False))
    assert seen[-1] < 4 * (30 / 6 * 60)


async def test_functions_in_threads_are_waited_for() -> None:
    app = Camora()
    gate = threading.Event()

    @app.task
    def slow() -> str:
        assert gate.wait(30)
        return threading.current_thread().name

    async with TestWorker(app) as worker:
        job = await slow.dispatch()
        asyncio.get_running_loop().call_later(0.01, gate.set)
        assert await worker.advance(hours=1) == 1
        assert (await job.result()).startswith("camora-thread")
        assert (await job.info()).started == worker_start()


async def test_a_job_that_dispatches_from_a_thread() -> None:
    app = Camora()

    @app.task
    async def child(number: int) -> int:
        return number

    @app.task
    def parent() -> None:
        child.options(delay=60).dispatch_sync(7)

    async with TestWorker(app) as worker:
        await parent.dispatch()
        await worker.advance(minutes=1)
        assert [job.status for job in worker.finished.of(child)] == [Status.SUCCEEDED]
        worker.assert_dispatched(child, number=7, options={"delay": 60})


async def test_a_job_that_sleeps_in_virtual_time_keeps_its_lease_and_lets_others_work() -> None:
    app = Camora()
    order: list[str] = []

    @app.task(max_concurrency=1)
    async def long() -> None:
        await worker.sleep(3 * 3600)
        order.append("long")

    @app.task
    async def short() -> None:
        order.append("short")

    async with TestWorker(app) as worker:
        await long.dispatch()
        await short.options(delay=3600).dispatch()
        second = await long.options(delay=7200).dispatch()
        await worker.advance(hours=4)
        assert order == ["short", "long"]
        assert (await second.info()).deliveries <= 1
        await worker.run_all()
        assert order == ["short", "long", "long"]
        worker.assert_all_succeeded()
        assert len([line for line in worker.log if " started " in line and ".long " in line]) == 2


async def test_a_timeout_ends_a_virtual_sleep_at_its_moment() -> None:
    app = Camora()

    @app.task(timeout=30)
    async def long() -> None:
        await worker.sleep(3600)

    async with TestWorker(app) as worker:
        job = await long.dispatch()
        await worker.advance(seconds=30)
        info = await job.info()
        assert info.status == Status.FAILED
        assert info.error is not None
        assert info.error.timeout
        assert info.finished == worker_start() + timedelta(seconds=30)


async def test_a_job_that_never_ends_is_named_instead_of_waited_for() -> None:
    app = Camora()

    @app.task
    async def stuck() -> None:
        await asyncio.Event().wait()

    async with TestWorker(app, patience=0.05) as worker:
        job = await stuck.dispatch()
        with pytest.raises(TimeoutError, match=f"stuck {job.id}.*worker.sleep.*at_once"):
            await worker.advance(hours=1)


async def test_jobs_that_wait_for_each_other_need_room() -> None:
    app = Camora()

    @app.task
    async def child() -> int:
        return 1

    @app.task
    async def parent() -> int:
        return 1 + await (await child.dispatch()).result()

    async with TestWorker(app, at_once=2) as worker:
        job = await parent.dispatch()
        await worker.run_due()
        assert await job.result() == 2


async def busy_week(seed: int) -> list[str]:
    app = Camora(retry_policy=RetryPolicy(max_tries=6, delay=30))

    @app.task
    async def flaky() -> None:
        if random.random() < 0.5:
            raise Retry("again")

    @app.task(queue="threads")
    def threaded(number: int) -> None:
        if random.random() < 0.3:
            raise OSError(number)

    @app.task(rate_limit="10/h")
    async def limited() -> None: ...

    app.schedule("flaky", flaky.s(), every(hours=3))
    async with TestWorker(app, seed=seed) as worker:
        for number in range(20):
            await threaded.options(delay=random.uniform(0, 100)).dispatch(number)
            await limited.dispatch()
        worker.crash(threaded, at="started")
        worker.lose_ack(flaky)
        await worker.advance(days=7)
        return worker.log


async def test_the_same_seed_gives_the_same_log_and_another_another() -> None:
    first, again, other = await busy_week(1), await busy_week(1), await busy_week(2)
    assert "\n".join(first) == "\n".join(again)
    assert first != other
    assert len(first) > 200


async def test_chance_outside_is_left_alone() -> None:
    random.seed(5)
    expected = random.random()
    random.seed(5)
    async with TestWorker(Camora()):
        random.random()
    assert random.random() == expected


@pytest.mark.parametrize(
    ("options", "text"),
    [({"start": datetime(2026, 1, 1)}, "no time zone"), ({"at_once": 0}, "at_once=0")],  # noqa: DTZ001 -- the mistake
)
def test_impossible_options_are_refused_at_once(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        TestWorker(Camora(), **options)


async def test_time_does_not_run_backwards() -> None:
    async with TestWorker(Camora()) as worker:
        await worker.advance(hours=1)
        with pytest.raises(ValueError, match="backwards"):
            await worker.advance(-1)


async def test_it_says_when_it_is_not_running() -> None:
    worker = TestWorker(Camora())
    with pytest.raises(RuntimeError, match="async with"):
        await worker.advance(1)


async def test_a_queue_with_a_rate_and_a_lane_of_its_own() -> None:
    app = Camora(queues=[Queue("mail", rate_limit="10/s", concurrency=2)])

    @app.task(queue="mail")
    async def send() -> None: ...

    async with TestWorker(app) as worker:
        for _ in range(20):
            await send.dispatch()
        await worker.run_all()
        worker.assert_all_succeeded()
        assert worker.now >= worker_start() + timedelta(seconds=1)


@pytest.mark.parametrize("works", [True, False])
async def test_a_job_that_is_acknowledged_before_it_runs(works: bool) -> None:
    app = Camora()

    @app.task(ack="before")
    async def once() -> int:
        await asyncio.sleep(0.001)
        if not works:
            raise OSError("no")
        return 1

    async with TestWorker(app) as worker:
        job = await once.dispatch()
        assert await worker.advance(hours=1) == 1
        [ended] = worker.finished.of(once)
        assert (ended.id, ended.status) == (job.id, Status.SUCCEEDED if works else Status.FAILED)
        assert ended.at == int(worker_start().timestamp() * 1000)


async def test_a_function_in_a_process() -> None:
    app = Camora()
    app.register(divmod_of, execution="process")
    async with TestWorker(app) as worker:
        job = await app.dispatch(divmod_of.__module__ + ":divmod_of", 7, 2)
        assert await worker.advance(hours=1) == 1
        assert await job.result() == 3


def divmod_of(number: int, by: int) -> int:
    return number // by
