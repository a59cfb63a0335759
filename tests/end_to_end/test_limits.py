"""Flow control: rates and slots over all workers, whatever happens to those who hold them."""

from __future__ import annotations

import asyncio
import itertools
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs
import pytest
from camora import Camora, Context, Queue, RetryPolicy, Status, WorkerSettings
from camora.builtin.memory import MemoryBroker
from camora.errors import ConfigurationError, JobExpired, JobFailed, UnsupportedCapability
from camora.interfaces import Ask, Event, JobReceived, Limits, Observer
from camora.limits import Limit
from camora.testing import TestWorker
from processes import WorkerProcess, started, until, workers

SOON = WorkerSettings(lease=2, shutdown_timeout=5, concurrency=20)


class Gauge:
    """How many are inside at once, now and at most."""

    def __init__(self) -> None:
        self.now = 0
        self.most = 0

    def __enter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        self.now -= 1


class Received(Observer):
    """Counts how often each job was taken."""

    def __init__(self) -> None:
        self.times: dict[str, int] = {}

    async def observe(self, events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, JobReceived):
                self.times[event.job_id] = self.times.get(event.job_id, 0) + 1


def most_in_a_window(moments: Sequence[float], length: float) -> int:
    ordered = sorted(moments)
    return max(sum(1 for other in ordered if moment <= other < moment + length) for moment in ordered)


def none_too_early(moments: Sequence[float], since: float, per_second: int) -> bool:
    """Whether each call came when its grant can have been given at the earliest, of which the first came after `since`.

    The store counts when it grants; a function is called after that, on a busy machine long after.
    """
    granted = (since + number // per_second - 0.01 for number in range(len(moments)))  # clocks of stores are coarse
    return all(moment >= earliest for moment, earliest in zip(sorted(moments), granted, strict=True))


async def limits_of(app: Camora) -> Limits:
    limits = app.broker.own_limits()
    assert limits is not None
    await limits.open()
    return limits


async def test_a_tasks_rate_holds_over_all_workers(broker_url: str) -> None:
    app = Camora(broker_url)
    moments: list[float] = []

    @app.task(rate_limit="10/s")
    async def call() -> None:
        moments.append(time.monotonic())

    @app.task
    async def other(x: int) -> int:
        return x

    async with app:
        jobs = [await call.dispatch() for _ in range(25)]
        since = time.monotonic()
        async with app.worker(settings=SOON), app.worker(settings=SOON):
            # Those who wait for their rate hold nobody back.
            others = await app.dispatch_many(other.s(number) for number in range(100))
            assert [await job.result(60) for job in others] == list(range(100))
            for job in jobs:
                await job.result(30)
    assert len(moments) == 25
    assert none_too_early(moments, since, 10)


async def test_a_queues_rate_holds_and_holds_no_other_queue_back(broker_url: str) -> None:
    app = Camora(broker_url, queues=[Queue("mail", rate_limit="10/s"), "default"])
    moments: list[float] = []

    @app.task(queue="mail")
    async def mail(number: int) -> None:
        moments.append(time.monotonic())

    @app.task
    async def other() -> str:
        return "done"

    async with app:
        jobs = await app.dispatch_many(mail.s(number) for number in range(25))
        since = time.monotonic()
        async with app.worker(settings=attrs.evolve(SOON, concurrency=2)):
            assert await (await other.dispatch()).result(60) == "done"
            assert len(moments) < 25
            for job in jobs:
                await job.result(30)
    assert len(moments) == 25
    assert none_too_early(moments, since, 10)


async def test_slots_hold_over_workers_and_by_the_arguments(broker_url: str) -> None:
    app = Camora(broker_url)
    of_all, of_each = Gauge(), {"a": Gauge(), "b": Gauge()}
    together = asyncio.Event()

    @app.task(max_concurrency=1, limit_by="{customer}")
    async def charge(customer: str, number: int) -> None:
        with of_all, of_each[customer]:
            if of_all.now == 2:
                together.set()
            await asyncio.wait_for(together.wait(), 60)  # the one of the other customer runs beside it
            await asyncio.sleep(0)

    async with app:
        jobs = await app.dispatch_many(charge.s(customer, number) for number in range(10) for customer in "ab")
        async with app.worker(settings=SOON), app.worker(settings=SOON):
            for job in jobs:
                await job.result(30)
    assert {customer: gauge.most for customer, gauge in of_each.items()} == {"a": 1, "b": 1}
    assert of_all.most == 2


async def test_waiting_for_a_slot_is_no_attempt_no_miss_and_no_suspicion(broker_url: str) -> None:
    seen = Received()
    app = Camora(broker_url, observers=[seen])
    attempts: list[int] = []

    @app.task(name="narrow", max_concurrency=1)
    async def narrow(ctx: Context) -> None:
        attempts.append(ctx.attempt)

    async with app:
        limits = await limits_of(app)
        stranger = Ask(holder="stranger", limits=(Limit(name="slots:narrow", most=1),))
        assert await limits.take([stranger], lease=60) == [0.0]
        jobs = [await narrow.dispatch() for _ in range(3)]
        # One may wait here, the others go back and come again.
        async with app.worker(settings=attrs.evolve(SOON, concurrency=1)):
            async with asyncio.timeout(30):
                while max(seen.times.values(), default=0) <= SOON.max_deliveries + 1:
                    await asyncio.sleep(0.01)
            assert attempts == []
            await limits.give_back(["stranger"])
            for job in jobs:
                await job.result(30)
        await limits.close()
    assert attempts == [1, 1, 1]


@pytest.mark.parametrize("ending", ["returns", "raises", "times out", "is retried", "is cancelled"])
async def test_however_a_job_ends_its_slot_is_free(broker_url: str, ending: str) -> None:
    app = Camora(broker_url)
    entered = asyncio.Event()

    @app.task(name="narrow", max_concurrency=1, timeout=0.2 if ending == "times out" else None)
    async def narrow(ctx: Context, how: str) -> str:
        entered.set()
        if how == "raises" or (how == "is retried" and ctx.attempt == 1):
            raise OSError(how)
        if how in ("times out", "is cancelled"):
            await asyncio.Event().wait()
        return how

    async with app:
        limits = await limits_of(app)
        async with app.worker(settings=attrs.evolve(SOON, lease=600)):
            policy = RetryPolicy(max_tries=2, delay=0.01, jitter=False) if ending == "is retried" else None
            options = narrow.options() if policy is None else narrow.options(retry_policy=policy)
            first = await options.dispatch(ending)
            await asyncio.wait_for(entered.wait(), 60)
            if ending == "is cancelled":
                await first.cancel()
            # Its lease is long: it runs only when the slot was given back.
            assert await (await narrow.dispatch("returns")).result(60) == "returns"
        [use] = await limits.usage(["slots:narrow"])
        assert use.used == 0
        await limits.close()


async def test_a_job_that_expires_while_it_waits_does_not_run(broker_url: str) -> None:
    app = Camora(broker_url)
    ran = []

    @app.task(name="narrow", max_concurrency=1)
    async def narrow() -> None:
        ran.append(1)

    async with app:
        limits = await limits_of(app)
        await limits.take([Ask(holder="stranger", limits=(Limit(name="slots:narrow", most=1),))], lease=60)
        async with app.worker(settings=SOON):
            job = await narrow.options(expires=0.3).dispatch()
            with pytest.raises(JobExpired):
                await job.result(60)
        await limits.close()
    assert ran == []


async def test_a_job_that_waits_can_be_cancelled_and_is_given_back_by_a_worker_that_stops(broker_url: str) -> None:
    seen = Received()
    app = Camora(broker_url, observers=[seen])

    @app.task(name="narrow", max_concurrency=1)
    async def narrow() -> None: ...

    async with app:
        limits = await limits_of(app)
        await limits.take([Ask(holder="stranger", limits=(Limit(name="slots:narrow", most=1),))], lease=60)
        jobs = [await narrow.dispatch(), await narrow.dispatch()]
        async with app.worker(settings=SOON):
            async with asyncio.timeout(60):
                while len(seen.times) < 2:
                    await asyncio.sleep(0.01)
            await jobs[0].cancel()
            async with asyncio.timeout(60):
                while await jobs[0].status() is not Status.CANCELLED:
                    await asyncio.sleep(0.01)
        assert await jobs[1].status() in (Status.QUEUED, Status.SCHEDULED)
        await limits.give_back(["stranger"])
        async with app.worker(settings=SOON):
            await jobs[1].result(60)
        await limits.close()


async def test_a_paused_queue_hands_out_nothing_and_then_everything(broker_url: str) -> None:
    app = Camora(broker_url)
    ran: list[int] = []

    @app.task(queue="mail")
    async def mail(number: int) -> None:
        ran.append(number)

    @app.task
    async def other() -> str:
        return "done"

    async with app:
        await app.queue_control.pause("mail")
        jobs = await app.dispatch_many(mail.s(number) for number in range(5))
        async with app.worker(settings=SOON):
            assert await (await other.dispatch()).result(60) == "done"
            assert ran == []
            assert list(await app.queue_control.paused()) == ["mail"]
            await app.queue_control.resume("mail")
            for job in jobs:
                await job.result(60)
    assert sorted(ran) == [0, 1, 2, 3, 4]


class Countless(MemoryBroker):
    """A broker that counts no limits."""

    def own_limits(self) -> None:
        return None

    def own_results(self) -> None:
        return None


async def test_limits_that_nobody_can_count_stop_the_worker_in_words() -> None:
    app = Camora(Countless())

    @app.task(name="call", rate_limit="10/s")
    async def call() -> None: ...

    async with app:
        with pytest.raises(UnsupportedCapability, match="task call has rate_limit='10/s': neither .* counts limits"):
            async with app.worker():
                pass


async def test_the_result_backend_counts_where_the_broker_cannot(tmp_path: Path) -> None:
    app = Camora(Countless(), results="memory://")
    gauge = Gauge()

    @app.task(max_concurrency=1)
    async def narrow() -> None:
        with gauge:
            await asyncio.sleep(0)

    async with app, app.worker(settings=SOON):
        for job in [await narrow.dispatch() for _ in range(10)]:
            await job.result(60)
    assert gauge.most == 1


async def test_a_limited_task_may_be_registered_while_the_worker_runs(broker_url: str) -> None:
    app = Camora(broker_url)
    gauge = Gauge()
    async with app, app.worker(queues=["default"], settings=SOON):

        @app.task(max_concurrency=1)
        async def late() -> None:
            with gauge:
                await asyncio.sleep(0)

        for job in [await late.dispatch() for _ in range(10)]:
            await job.result(60)
    assert gauge.most == 1


async def test_a_backlog_is_worked_off_at_its_rate() -> None:
    app = Camora()
    moments: list[float] = []

    @app.task(rate_limit="6/m")
    async def call() -> None:
        moments.append(app.clock.monotonic())

    async with TestWorker(app) as worker:
        for _ in range(30):
            await call.dispatch()
        await worker.advance(minutes=6)
    assert len(moments) == 30
    assert most_in_a_window(moments, 60) <= 6
    assert moments[-1] - moments[0] < 300  # five a minute would take longer


def test_format_strings_are_checked_when_the_task_is_registered() -> None:
    app = Camora()

    async def charge(customer: str, number: int) -> None: ...

    with pytest.raises(ConfigurationError, match=r"limit_by = '\{custmer\}': no parameter is called 'custmer': did"):
        app.register(charge, max_concurrency=1, limit_by="{custmer}")
    with pytest.raises(ConfigurationError, match=r"key = 'order-\{order\}': no parameter is called 'order': it has"):
        app.register(charge, key="order-{order}")
    with pytest.raises(ConfigurationError, match=r"key = '\{': "):
        app.register(charge, key="{")
    app.register(charge, key="{customer:>8}-{number!r}")


async def test_a_limit_that_cannot_be_made_from_the_arguments_ends_the_job() -> None:
    app = Camora()

    @app.task(max_concurrency=1, limit_by=lambda customer: customer["id"])
    async def charge(customer: dict[str, str]) -> None: ...

    async with app, app.worker(settings=SOON):
        job = await charge.dispatch({})
        with pytest.raises(JobFailed, match="limit_by cannot be made from the arguments"):
            await job.result(60)


# On real processes


@pytest.fixture
def start(tmp_path: Path) -> Iterator[object]:
    """Starts `camora worker narrow:app` on one database."""
    with workers() as make:
        yield lambda *arguments, **environment: make(
            tmp_path, f"sqlite:///{tmp_path}/camora.db", *arguments, app="narrow:app", **environment
        )


def intervals(folder: Path) -> list[tuple[float, float]]:
    return [
        tuple(float(part) for part in line.split())  # type: ignore[misc]
        for path in folder.glob("spans-*")
        for line in path.read_text().splitlines()
    ]


async def test_processes_share_slots(tmp_path: Path, start: object) -> None:
    app = Camora(f"sqlite:///{tmp_path}/camora.db")
    for _ in range(3):
        start()  # type: ignore[operator]
    async with app:
        jobs = [await app.dispatch("narrow", number=number) for number in range(60)]
        for job in jobs:
            await job.result(60)
    spans = intervals(tmp_path)
    assert len(spans) == 60
    edges = sorted([(begin, 1) for begin, _ in spans] + [(end, -1) for _, end in spans])
    assert max(itertools.accumulate(step for _, step in edges)) <= 2


async def test_the_slot_of_a_killed_worker_comes_free_with_its_lease(tmp_path: Path, start: object) -> None:
    app = Camora(f"sqlite:///{tmp_path}/camora.db")
    first: WorkerProcess = start().ready()  # type: ignore[operator]
    async with app:
        held = await app.dispatch("hold", name="one")
        await asyncio.to_thread(until, started(tmp_path, "one"), "the start")
        waiting = await app.dispatch("hold", name="two")
        (tmp_path / "release-two").touch()
        first.signal(signal.SIGKILL)
        start()  # type: ignore[operator]
        # Both run, the killed one again, although its holder never gave its slot back.
        (tmp_path / "release-one").touch()
        await waiting.result(30)
        await held.result(30)


async def test_a_long_job_keeps_its_slot_beyond_the_lease(tmp_path: Path, start: object) -> None:
    app = Camora(f"sqlite:///{tmp_path}/camora.db")
    start(CAMORA_WORKER__LEASE="0.5")  # type: ignore[operator]
    async with app:
        held = await app.dispatch("block", seconds=2.0)  # blocks the loop of its worker for four leases
        await asyncio.to_thread(until, started(tmp_path, "block"), "the start")
        start(CAMORA_WORKER__LEASE="0.5")  # type: ignore[operator]
        waiting = await app.dispatch("block", seconds=0.0)
        await held.result(30)
        await waiting.result(30)
    spans = sorted(intervals(tmp_path))
    assert len(spans) == 2
    assert spans[0][1] <= spans[1][0]
