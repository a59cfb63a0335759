"""Members that end in all the ways in which a job ends, with real workers; and what their jobs get."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import attrs
import pytest
from camora import Camora, Context, Failure, RetryPolicy, WorkerSettings
from camora.errors import JobCancelled, JobDiscarded, JobExpired, JobFailed
from camora.interfaces.broker import ConsumerSettings
from camora.interfaces.observer import Event, JobStarted, Observer
from camora.outcome import CancelResult
from camora_workflows.compose import Chain, Chord, Graph, Group
from camora_workflows.failed_step import FailedStep


@attrs.frozen
class Point:
    x: int
    y: int


class Starts(Observer):
    """Hears of jobs whose function is called."""

    def __init__(self, heard: list[JobStarted]) -> None:
        self._heard = heard

    async def observe(self, events: Sequence[Event]) -> None:
        """Remember them."""
        self._heard += [event for event in events if isinstance(event, JobStarted)]


class Shop:
    """An app with tasks of all sorts, and what they told."""

    def __init__(self, url: str) -> None:
        self.told: list[Any] = []
        self.gate = asyncio.Event()
        self.starts: list[JobStarted] = []
        self.app = app = Camora(url, name="endings", observers=[Starts(self.starts)])
        told = self.told

        @app.task(name="add")
        async def add(a: int, b: int = 0) -> int:
            told.append(("add", a, b))
            return a + b

        @app.task(name="total")
        async def total(values: list[int]) -> int:
            return sum(values)

        @app.task(name="move")
        def move(point: Point, by: int) -> Point:
            return Point(point.x + by, point.y + by)

        @app.task(name="bad")
        async def bad(value: Any = None) -> int:
            told.append("bad")
            raise ValueError("no")

        @app.task(name="fail")
        async def fail(value: Any = None) -> Any:
            return Failure("not possible")

        @app.task(name="twice", retry_policy=RetryPolicy(max_tries=3, delay=0.0, on=(KeyError,)))
        async def twice(value: int, context: Context) -> int:
            told.append(("twice", context.attempt))
            if context.attempt < 3:
                raise KeyError(value)
            return value

        @app.task(name="alert")
        async def alert(failed: FailedStep) -> str:
            told.append(failed)
            return "told"

        @app.task(name="wait")
        async def wait(value: Any = None) -> int:
            told.append("wait")
            await self.gate.wait()
            return 1

        self.add, self.total, self.move, self.bad, self.fail = add, total, move, bad, fail
        self.twice, self.alert, self.wait = twice, alert, wait

    async def heard(self, what: Any) -> None:
        await until(lambda: what in self.told, f"{what!r} among {self.told}")

    async def finished(self, job: Any) -> Any:
        store = await (await self.app.composer._host().stores()).workflows()  # type: ignore[attr-defined]

        async def is_finished() -> bool:
            record = await store.get(job.id)
            return record is not None and record.state == "finished"

        await until(is_finished, "the end of the workflow")
        return await store.get(job.id)


async def until(what: Callable[[], Any], text: str) -> None:
    for _ in range(6000):
        found = what()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"{text} did not come")


@pytest.fixture
async def shop(broker_url: str) -> AsyncIterator[Shop]:
    shop = Shop(broker_url)
    async with shop.app:
        yield shop


def worker(shop: Shop, **settings: Any) -> Any:
    return shop.app.worker(settings=WorkerSettings(**settings))


async def test_results_come_as_the_types_of_those_who_get_them(shop: Shop) -> None:
    async with worker(shop):
        job = await Chain([shop.move.s(Point(1, 2), 3), shop.move.s(by=10)]).dispatch()
        assert await job.result(timeout=60) == Point(14, 15)


async def test_lists_come_through_gates_and_nested(shop: Shop) -> None:
    @shop.app.task(name="deep")
    async def deep(values: list[list[int]]) -> int:
        return sum(sum(row) for row in values)

    fan = Group([shop.add.s(5), Chain([shop.add.s(6), shop.add.s(1)])])
    rows = Group([Group([shop.add.s(row, by) for by in range(3)]) for row in range(3)])
    async with worker(shop):
        job = await Chain([shop.add.s(1, 1), fan, shop.total.s()]).dispatch()
        assert await job.result(timeout=60) == 7 + 9
        job = await Chain([rows, deep.s()]).dispatch()
        assert await job.result(timeout=60) == 18


async def test_a_graphs_node_gets_what_it_is_after_in_that_order(shop: Shop) -> None:
    @shop.app.task(name="minus")
    async def minus(values: list[int]) -> int:
        return values[0] - values[1]

    graph = (
        Graph().add("small", shop.add.s(1)).add("large", shop.add.s(10)).add("end", minus.s(), after=["large", "small"])
    )
    async with worker(shop):
        job = await graph.dispatch()
        assert await job.result(timeout=60) == {"small": 1, "large": 10, "end": 9}


async def test_on_failure_comes_after_all_retries_and_not_before(shop: Shop) -> None:
    what = Chain([shop.add.s(4), shop.twice.s(), shop.bad.s()])
    what.on_failure = shop.alert.s()
    async with worker(shop):
        job = await what.dispatch()
        with pytest.raises(JobFailed, match="ValueError: no"):
            await job.result(timeout=60)
        await shop.finished(job)
    assert shop.told == [
        ("add", 4, 0),
        ("twice", 1),
        ("twice", 2),
        ("twice", 3),
        "bad",
        FailedStep(job_id=f"{job.id}.2", task="bad", error_type="ValueError", error_text="no"),
    ]


async def test_a_returned_failure_is_a_failure(shop: Shop) -> None:
    what = Chord(Group([shop.add.s(1), shop.fail.s()]), shop.total.s())
    what.on_failure = shop.alert.s()
    async with worker(shop):
        job = await what.dispatch()
        with pytest.raises(JobFailed, match="not possible"):
            await job.result(timeout=60)
        whole = await shop.finished(job)
    assert whole.status == "failed"
    assert [one.error_text for one in shop.told if isinstance(one, FailedStep)] == ["not possible"]


async def test_a_payload_that_does_not_fit_ends_the_workflow(shop: Shop) -> None:
    @shop.app.task(name="word")
    async def word() -> Any:
        return "seven"

    what = Chain([word.s(), shop.add.s()])
    what.on_failure = shop.alert.s()
    async with worker(shop):
        job = await what.dispatch()
        with pytest.raises(JobFailed, match="a: "):
            await job.result(timeout=60)
        await shop.finished(job)
    assert [one.task for one in shop.told if isinstance(one, FailedStep)] == ["add"]


async def test_an_expired_member_ends_the_workflow(shop: Shop) -> None:
    what = Chain([shop.add.options(expires=0.01).s(1), shop.add.s(1)])
    what.on_failure = shop.alert.s()
    job = await what.dispatch()
    await asyncio.sleep(0.02)
    async with worker(shop):
        with pytest.raises(JobExpired):
            await job.result(timeout=60)
        await shop.finished(job)
    [alert] = shop.told
    assert (alert.status, alert.task) == ("expired", "add")


async def test_a_member_that_is_cancelled_while_it_waits_ends_its_branch_and_tells_nobody(shop: Shop) -> None:
    what = Chain([shop.add.options(delay=3600).s(1), shop.add.s(1)])
    what.on_failure = shop.alert.s()
    job = await what.dispatch()
    assert await shop.app.composer._host().job(f"{job.id}.0").cancel() is CancelResult.REMOVED  # type: ignore[attr-defined]
    with pytest.raises(JobCancelled):
        await job.result(timeout=60)
    assert (await shop.finished(job)).status == "cancelled"
    assert shop.told == []


async def test_a_member_that_is_cancelled_while_it_runs(shop: Shop) -> None:
    what = Chord(Group([shop.wait.s(), shop.add.s(2)]), shop.total.s())
    async with worker(shop):
        job = await what.dispatch()
        await shop.heard("wait")
        [member] = [one async for one in job.members() if one.task == "wait"]
        assert await shop.app.composer._host().job(member.id).cancel() is CancelResult.SIGNALLED  # type: ignore[attr-defined]
        with pytest.raises(JobCancelled):
            await job.result(timeout=60)
        assert (await shop.finished(job)).status == "cancelled"


async def test_a_poisoned_member_fails_the_workflow(shop: Shop) -> None:
    """Its message was taken too often by workers that died of it."""
    what = Chain([shop.add.s(1), shop.add.s(1)])
    what.on_failure = shop.alert.s()
    job = await what.dispatch()
    broker = shop.app.broker.twin()
    await broker.open()
    try:
        consumer = await broker.consumer(ConsumerSettings(queues=("default",), worker="dying", lease=0.05))
        for _ in range(2):
            assert await consumer.receive(1, 60)
        await consumer.close()
    finally:
        await broker.close()
    async with worker(shop, max_deliveries=2, lease=1.0):
        with pytest.raises(JobFailed, match="taken 2 times"):
            await job.result(timeout=60)
        await shop.finished(job)
    [alert] = shop.told
    assert alert.error_type == "camora.errors.PoisonMessage"


async def test_a_dead_letter_that_is_put_back_opens_its_workflow_again(shop: Shop) -> None:
    @shop.app.task(name="moody")
    async def moody(value: int) -> int:
        if not shop.gate.is_set():
            raise ValueError("not now")
        return value * 2

    what = Chain([shop.add.s(2), moody.s(), shop.add.s(1)])
    async with worker(shop):
        job = await what.dispatch()
        with pytest.raises(JobFailed, match="not now"):
            await job.result(timeout=60)
        await shop.finished(job)
        shop.gate.set()
        await until(lambda: shop.app.requeue(f"{job.id}.1"), "the dead letter")
        assert await job.result(timeout=60) == 5
        assert (await shop.finished(job)).status == "succeeded"


@pytest.mark.parametrize("kind", ["coroutine", "thread"])
async def test_a_chunk_is_one_job_for_several_items(shop: Shop, kind: str) -> None:
    jobs: set[str] = set()
    points: list[Point] = []

    @shop.app.task(name="coroutine")
    async def awaited(point: Point, context: Context) -> Point:
        jobs.add(context.id)
        points.append(point)
        return Point(point.y, point.x)

    @shop.app.task(name="thread")
    def called(point: Point, context: Context) -> Point:
        assert threading.current_thread() is not threading.main_thread()
        jobs.add(context.id)
        points.append(point)
        return Point(point.y, point.x)

    task = awaited if kind == "coroutine" else called
    async with worker(shop):
        job = await task.chunks([Point(at, at + 1) for at in range(7)], 3).dispatch()
        assert await job.result(timeout=60) == [Point(at + 1, at) for at in range(7)]
    assert len(jobs) == 3
    assert sorted(point.x for point in points) == list(range(7))
    await until(lambda: len(shop.starts) >= 3, "the events")
    assert sorted(event.job_id for event in shop.starts) == sorted(jobs)


async def test_an_item_that_fails_fails_its_chunk(shop: Shop) -> None:
    @shop.app.task(name="picky")
    async def picky(value: int) -> int:
        if value == 3:
            raise ValueError("not three")
        return value

    async with worker(shop):
        job = await picky.chunks([1, 2, 3, 4], 2).dispatch()
        with pytest.raises(JobFailed, match="not three"):
            await job.result(timeout=60)


async def test_a_deleted_workflow_discards_the_jobs_that_are_left(shop: Shop) -> None:
    job = await Chain([shop.add.s(1), shop.add.s(1)]).dispatch()
    store = await (await shop.app.composer._host().stores()).workflows()  # type: ignore[attr-defined]
    async with worker(shop):
        await shop.finished(job)
        later = await Chain([shop.add.s(1), shop.add.options(delay=0.2).s(1)]).dispatch()
        await until_ended(store, later.id, 0)
        await store.delete([later.id])
        last = shop.app.composer._host().job(f"{later.id}.1")  # type: ignore[attr-defined]
        with pytest.raises(JobDiscarded, match="gone"):
            await last.result(timeout=60)


async def until_ended(store: Any, workflow: str, index: int) -> None:
    async def ended() -> bool:
        [node] = await store.read(workflow, [index])
        return bool(node.status)

    await until(ended, "the end of a node")
