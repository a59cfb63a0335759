"""Interleavings that a review found: each lost something, for a while or for good."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import attrs
import pytest
from camora import Camora, Queue, WorkerSettings, every
from camora.builtin.memory import consumer as memory_consumer
from camora.builtin.memory import limits as memory_limits
from camora.errors import BrokerUnavailable
from camora.interfaces import Ask, LeaseVerdict
from camora.interfaces.broker import ConsumerSettings
from camora.worker import desk, running
from camora.worker.process_health import ProcessHealth

SOON = WorkerSettings(lease=2, shutdown_timeout=5, concurrency=20)


async def until(what: object, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not what():  # type: ignore[operator]
            await asyncio.sleep(0.01)


async def test_an_outage_of_the_limits_store_speaks_for_nobodys_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lone job of a daily rate runs when the store is back, not a day later."""
    away = True
    asked = 0
    take = memory_limits.MemoryLimits.take

    async def failing(self: memory_limits.MemoryLimits, asks: Sequence[Ask], *, lease: float) -> Sequence[float]:
        nonlocal asked
        asked += 1
        if away:
            raise BrokerUnavailable("the store of limits is away")
        return await take(self, asks, lease=lease)

    monkeypatch.setattr(memory_limits.MemoryLimits, "take", failing)
    app = Camora()

    @app.task(rate_limit="1/d")
    async def daily() -> str:
        return "done"

    async with app, app.worker(settings=SOON):
        job = await daily.dispatch()
        await until(lambda: asked >= 2)
        away = False
        assert await job.result(60) == "done"


async def test_schedules_survive_a_job_that_cancels_all_it_can_find() -> None:
    app = Camora()
    ticks: list[int] = []
    ours: asyncio.Task[None] | None = asyncio.current_task()

    @app.task
    async def tick() -> None:
        ticks.append(1)

    @app.task
    async def bad() -> None:
        for task in asyncio.all_tasks():
            if task not in (ours, asyncio.current_task()):
                task.cancel()

    app.schedule("tick", tick.s(), every(seconds=0.2))
    async with app, app.worker(settings=SOON):
        scheduler = app.make_scheduler()
        await scheduler.start()
        await until(lambda: ticks)
        await bad.dispatch()
        await asyncio.sleep(0.5)  # what had been sent before
        before = len(ticks)
        await until(lambda: len(ticks) > before + 2)
        await scheduler.close()


async def test_a_run_that_lost_its_lease_leaves_the_slot_of_its_successor_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut = False
    extend = memory_consumer.MemoryLeases.extend

    def failing(self: memory_consumer.MemoryLeases, deliveries: Sequence[object]) -> Sequence[LeaseVerdict]:
        if cut:
            raise BrokerUnavailable("cut")
        return extend(self, deliveries)  # type: ignore[arg-type]

    monkeypatch.setattr(memory_consumer.MemoryLeases, "extend", failing)
    app = Camora()
    inside: set[str] = set()
    most: list[int] = []
    runs: list[str] = []
    release = asyncio.Event()

    @app.task(name="narrow", max_concurrency=1)
    async def narrow(name: str) -> None:
        me = f"{name}{len(runs)}"
        runs.append(me)
        inside.add(me)
        most.append(len(inside))
        try:
            await asyncio.wait_for(release.wait(), 30)
        finally:
            inside.discard(me)

    settings = attrs.evolve(SOON, lease=1.2, isolate_after=9, max_deliveries=9)
    async with app, app.worker(settings=settings):
        first = await narrow.dispatch("first")
        await until(lambda: runs == ["first0"])
        cut = True
        await until(lambda: not inside)  # it has lost its lease
        cut = False
        await until(lambda: len(runs) == 2)  # and runs again
        other = await narrow.dispatch("other")
        await asyncio.sleep(0.5)  # room for the mistake
        release.set()
        await first.result(60)
        await other.result(60)
    assert max(most) == 1


async def test_a_suspect_whose_task_is_cancelled_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Camora()
    ran: list[int] = []

    @app.task
    async def innocent() -> None:
        ran.append(1)

    isolate = running.Runner._isolate
    cancelled: list[int] = []

    def isolating(self: running.Runner, suspects: list[object]) -> None:
        isolate(self, suspects)  # type: ignore[arg-type]
        if not cancelled:
            # As a job does that runs at this moment, in the same turn of the loop.
            for task in asyncio.all_tasks():
                if "_start_alone" in repr(task):
                    task.cancel()
                    cancelled.append(1)

    monkeypatch.setattr(running.Runner, "_isolate", isolating)
    async with app:
        job = await innocent.dispatch()
        stranger = await app.broker.consumer(ConsumerSettings(queues=("default",), worker="x", lease=0.05, prefetch=1))
        [_] = await stranger.receive(1, 1.0)
        await stranger.close()
        async with app.worker(settings=attrs.evolve(SOON, isolate_after=1)):
            await job.result(60)
    assert cancelled == [1]
    assert ran == [1]


async def test_a_grant_in_the_moment_of_a_cancellation_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Camora()

    @app.task(name="narrow", max_concurrency=1)
    async def narrow() -> str:
        return "done"

    exchange = desk.LimitsDesk._exchange
    cancelled: list[int] = []
    async with app, app.worker(settings=attrs.evolve(SOON, lease=60)) as worker:
        [lane] = worker._lanes

        async def exchanging(self: desk.LimitsDesk, returning: Sequence[str], asks: Sequence[Ask]) -> Sequence[float]:
            answers = await exchange(self, returning, asks)
            if asks and not cancelled:
                cancelled.append(1)
                asyncio.get_running_loop().call_soon(lane._on_cancelled, next(iter(lane._hands)).delivery)
            return answers

        monkeypatch.setattr(desk.LimitsDesk, "_exchange", exchanging)
        await narrow.dispatch()
        await until(lambda: cancelled and not worker.busy)
        assert await (await narrow.dispatch()).result(60) == "done"  # long before the lease is over


async def test_a_worker_held_by_a_rate_is_well() -> None:
    app = Camora(queues=[Queue("mail", rate_limit="1/h", concurrency=1)])

    @app.task(queue="mail")
    async def mail() -> None: ...

    async with app, app.worker(settings=attrs.evolve(SOON, poll_interval=0.05)) as worker:
        await (await mail.dispatch()).result(60)
        await mail.dispatch()
        [lane] = [lane for lane in worker._lanes if lane.queues == ("mail",)]
        await until(lambda: lane.held)
        lane._taker.polled_at -= 1000  # as if the hour were nearly over
        health = ProcessHealth()
        health.attach(worker)
        assert (await asyncio.to_thread(health.look)).ready


async def test_resuming_what_is_not_paused_forgets_no_tick() -> None:
    app = Camora()

    @app.task
    async def tick() -> None: ...

    app.schedule("tick", tick.s(), every(seconds=0.2))
    async with app:
        await app.schedules.sync()
        before = (await app.schedules.get("tick")).next
        await asyncio.sleep(0.5)  # it owes some by now
        await app.schedules.resume("tick")
        assert (await app.schedules.get("tick")).next == before
