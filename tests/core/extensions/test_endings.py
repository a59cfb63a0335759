"""What follows the end of jobs: asked for before their settlement, and published with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from camora import Camora, Context, Discard, Failure, Job, RetryPolicy, WorkerSettings
from camora.builtin.json_codec import JsonCodec
from camora.builtin.signing import SignedCodec
from camora.errors import JobFailed
from camora.interfaces import ConsumerSettings, Ending, FollowUp, Observer
from camora.interfaces.observer import JobDispatched
from camora.message import Envelope, Message
from camora.outcome import ErrorInfo, JobRecord, Status

from tests.core.extensions.examples import NEXT, Next, app_with, away, earlier


class Shop:
    """An app with tasks, and what its jobs were told."""

    def __init__(self, **keys: Any) -> None:
        self.extension = Next()
        self.app: Camora = app_with(self.extension, **keys)
        self.told: list[tuple[str, Any]] = []
        self.ran: list[int] = []

        @self.app.task(name="note")
        async def note(status: str, value: Any) -> None:
            self.told.append((status, value))

        @self.app.task(name="add")
        async def add(x: int, y: int) -> int:
            self.ran.append(x)
            return x + y

        @self.app.task(name="fail", on_failure="dead_letter")
        async def fail() -> None:
            raise ValueError("broken")

        self.note, self.add, self.fail = note, add, fail

    async def run(self, signature: Any, **worker: Any) -> Job[Any]:
        """Dispatch with `note` behind it, and work until nothing is left."""
        job: Job[Any] = await signature.options(headers={NEXT: "note"}).dispatch()
        await self.work(**worker)
        return job

    async def work(self, **worker: Any) -> None:
        await self.app.make_worker(**worker).run(burst=True)


@pytest.fixture
def shop(broker_url: str) -> Shop:
    return Shop(broker=broker_url)


async def test_the_end_of_a_job_is_told_and_what_follows_it_runs(shop: Shop) -> None:
    async with shop.app:
        job = await shop.run(shop.add.s(1, 2))
        [ending] = shop.extension.seen
        assert (ending.message.id, ending.record.id, ending.record.status) == (job.id, job.id, Status.SUCCEEDED)
        assert shop.told == [("succeeded", 3)]
        assert await job.result(timeout=0) == 3


async def test_jobs_without_the_header_are_not_told_of() -> None:
    shop = Shop()
    async with shop.app:
        await shop.add.dispatch(1, 2)
        await shop.add.options(headers={"other": "1"}).dispatch(1, 2)
        await shop.work()
    assert shop.extension.batches == []


async def test_the_value_is_told_though_it_is_not_kept() -> None:
    shop = Shop()

    @shop.app.task(name="secretive", keep_result=False)
    async def secretive() -> int:
        return 7

    async with shop.app:
        job = await shop.run(secretive.s())
        assert shop.told == [("succeeded", 7)]
        assert shop.app.results is not None
        [record] = await shop.app.results.fetch([job.id])
    assert record is not None
    assert (record.value, record.kept) == (None, False)


async def test_the_value_is_told_where_the_app_keeps_no_results() -> None:
    shop = Shop(results=False)
    async with shop.app:
        await shop.run(shop.add.s(1, 2))
    assert shop.told == [("succeeded", 3)]


async def test_every_way_to_end_for_good_is_told_once() -> None:
    shop = Shop()
    app = shop.app

    @app.task(name="discard")
    async def discard() -> None:
        raise Discard("not needed")

    @app.task(name="give_up")
    async def give_up() -> Failure:
        return Failure("no")

    @app.task(name="retried", retry_policy=RetryPolicy(max_tries=3, delay=0, jitter=False))
    async def retried() -> None:
        raise ValueError("again")

    @app.task(name="dropped", on_failure="drop")
    async def dropped() -> None:
        raise ValueError("gone")

    @app.task(name="early", ack="before")
    async def early() -> int:
        return 5

    async with app:
        for signature in (discard.s(), give_up.s(), retried.s(), dropped.s(), early.s(), shop.fail.s()):
            await shop.run(signature)
        seen = [(ending.message.task, ending.record.status.value) for ending in shop.extension.seen]
        assert seen == [
            ("discard", "discarded"),
            ("give_up", "failed"),
            ("retried", "failed"),
            ("dropped", "failed"),
            ("early", "succeeded"),
            ("fail", "failed"),
        ]
        assert await dead(app) == {"give_up": "failed", "retried": "failed", "fail": "failed"}
    assert shop.told == [
        *[("discarded", None), ("failed", None), ("failed", None), ("failed", None), ("succeeded", 5)],
        ("failed", None),
    ]


async def dead(app: Camora) -> dict[str, str]:
    return {letter.task: letter.reason async for letter in app.dead_letters()}


async def publish(app: Camora, **fields: Any) -> None:
    """A message that no dispatch would make."""
    message = Message(headers={NEXT: "note"}, **fields)
    envelope = Envelope(id=message.id, task=message.task, queue=message.queue, body=app.codec.encode(message))
    connection = await app._connections.get()
    await connection.broker.publish([envelope])


async def test_messages_that_cannot_run_end_too() -> None:
    shop = Shop()
    async with shop.app:
        await publish(shop.app, id="a", task="add", kwargs={"x": 1})
        await publish(shop.app, id="b", task="nobody", created=1)
        await publish(shop.app, id="c", task="add", kwargs={"x": 1, "y": 2}, created=1, expires=2)
        await shop.work()
        assert await dead(shop.app) == {"add": "payload", "nobody": "unknown_task"}
    ends = {ending.message.id: ending.record.status.value for ending in shop.extension.seen}
    assert ends == {"a": "failed", "b": "failed", "c": "expired"}
    assert sorted(shop.told) == [("expired", None), ("failed", None), ("failed", None)]


async def test_a_message_that_kills_its_workers_ends_too(tmp_path: Path) -> None:
    shop = Shop(broker=f"sqlite:///{tmp_path}/camora.db")
    settings = WorkerSettings(max_deliveries=1, lease=1)
    async with shop.app:
        await publish(shop.app, id="a", task="add", kwargs={"x": 1, "y": 2})
        connection = await shop.app._connections.get()
        taking = ConsumerSettings(queues=("default",), worker="w", lease=0.2)
        consumer = await connection.broker.consumer(taking)
        assert await consumer.receive(1, 5.0)
        await consumer.close()
        async with shop.app.worker(settings=settings):
            await until(lambda: shop.told)
        assert await dead(shop.app) == {"add": "poison"}
    assert shop.told == [("failed", None)]
    assert shop.ran == []


async def until(true: Callable[[], Any]) -> None:
    """Wait for something to be true."""
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


async def test_what_is_tried_again_has_not_ended() -> None:
    shop = Shop()
    tries = []

    @shop.app.task(name="twice", retry_policy=RetryPolicy(max_tries=2, delay=0, jitter=False))
    async def twice(context: Context) -> int:
        tries.append(context.attempt)
        assert shop.extension.seen == []
        if context.attempt == 1:
            raise ValueError("again")
        return 1

    @shop.app.task(name="requeued", on_failure="requeue")
    async def requeued() -> None:
        tries.append(0)
        assert shop.extension.seen == []
        if tries.count(0) == 1:
            raise ValueError("again")

    async with shop.app:
        await twice.s().options(headers={NEXT: "note"}).dispatch()
        await shop.work()
        assert [ending.record.attempts for ending in shop.extension.seen] == [2]
        shop.extension.seen.clear()
        await requeued.s().options(headers={NEXT: "note"}).dispatch()
        async with shop.app.worker():
            await until(lambda: len(shop.told) == 2)
    assert len(shop.extension.seen) == 1


async def test_ends_of_one_moment_are_told_together() -> None:
    shop = Shop()
    async with shop.app:
        signatures = [shop.add.s(x, 0).options(headers={NEXT: ""}) for x in range(50)]
        await shop.app.dispatch_many(signatures)
        await shop.work(concurrency=50)
    assert sum(shop.extension.batches) == 50
    assert len(shop.extension.batches) < 50


async def test_records_of_others_are_stored_before_the_end(shop: Shop) -> None:
    shop.extension.records = (JobRecord(id="whole", status=Status.SUCCEEDED, task="add", value=b"42", finished=1),)
    async with shop.app:
        await shop.run(shop.add.s(1, 2))
        assert await (await shop.app.job("whole")).result(timeout=0) == 42


async def test_an_earlier_success_stands_and_nothing_is_dead(shop: Shop) -> None:
    shop.extension.instead = lambda ending: earlier(ending, Status.SUCCEEDED, value=b"9")
    async with shop.app:
        job = await shop.run(shop.fail.s())
        assert await job.result(timeout=0) == 9
        assert await dead(shop.app) == {}


async def test_an_earlier_failure_stands_and_is_a_dead_letter(shop: Shop) -> None:
    error = ErrorInfo(type="ValueError", text="earlier")
    shop.extension.instead = lambda ending: earlier(ending, Status.FAILED, error=error)
    async with shop.app:
        job = await shop.run(shop.add.s(1, 2))
        with pytest.raises(JobFailed, match="earlier"):
            await job.result(timeout=0)
        assert await dead(shop.app) == {"add": "failed"}


async def test_trouble_that_passes_is_waited_for_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop()
    shop.extension.trouble = [away(), away(), ValueError("odd"), away()]
    with caplog.at_level(logging.WARNING, "camora"):
        async with shop.app:
            job = await shop.run(shop.add.s(1, 2))
            assert await job.result(timeout=0) == 3
    assert shop.told == [("succeeded", 3)]
    assert len(shop.extension.seen) == 1
    told = [record.getMessage() for record in caplog.records if "cannot be found out" in record.getMessage()]
    assert told == [f"add {job.id}: what follows their end cannot be found out, trying again: the store is away"]


async def test_one_that_never_succeeds_holds_nobody_up() -> None:
    bad: list[str] = []

    class Picky(Next):
        async def ended(self, endings: Sequence[Ending]) -> Sequence[FollowUp]:
            if any(ending.message.id in bad for ending in endings):
                raise ValueError("not this one")
            return await super().ended(endings)

    extension = Picky()
    app = app_with(extension)
    ran = []

    @app.task(name="add")
    async def add(x: int) -> int:
        ran.append(x)
        return x

    async with app:
        for x in range(30):
            job = await add.s(x).options(headers={NEXT: ""}).dispatch()
            if x == 3:
                bad.append(job.id)
        async with app.worker(concurrency=2) as worker:
            await until(lambda: len(extension.seen) == 29)
            await until(lambda: worker.busy == 1)
            assert len(ran) == 30
            bad.clear()
            await until(lambda: len(extension.seen) == 30)
    assert len(ran) == 30


async def test_a_worker_that_stops_gives_up_what_cannot_be_found_out(tmp_path: Path) -> None:
    """The job comes back to another one, and what follows it is dispatched once."""
    shop = Shop(broker=f"sqlite:///{tmp_path}/camora.db")
    shop.extension.trouble = [away()] * 10_000
    settings = WorkerSettings(shutdown_timeout=0.1, lease=1)
    async with shop.app:
        await shop.add.s(1, 2).options(headers={NEXT: "note"}).dispatch()
        worker = shop.app.make_worker(settings=settings)
        await worker.start()
        await until(lambda: shop.extension.batches)
        await worker.close()
        shop.extension.trouble = []
        async with shop.app.worker(settings=settings):
            await until(lambda: shop.told)
    assert shop.told == [("succeeded", 3)]
    assert shop.ran == [1, 1]


async def test_a_job_that_cancels_every_task_takes_no_end_along() -> None:
    holding = asyncio.Event()

    class Slow(Next):
        async def ended(self, endings: Sequence[Ending]) -> Sequence[FollowUp]:
            if not holding.is_set():
                holding.set()
                await asyncio.sleep(3600)
            return await super().ended(endings)

    app = app_with(extension := Slow())

    @app.task(name="one")
    async def one() -> int:
        return 1

    async with app:
        job = await one.s().options(headers={NEXT: ""}).dispatch()
        async with app.worker():
            await asyncio.wait_for(holding.wait(), 60)
            here = asyncio.current_task()
            for task in asyncio.all_tasks():
                if task is not here and "_ask_all" in repr(task):
                    task.cancel()
            assert await job.result(timeout=60) == 1
    assert len(extension.seen) == 1


async def test_a_lease_that_lapses_meanwhile_leaves_the_end_to_others(tmp_path: Path) -> None:
    shop = Shop(broker=f"sqlite:///{tmp_path}/camora.db")
    shop.extension.trouble = [away()] * 10_000
    async with shop.app:
        await shop.add.s(1, 2).options(headers={NEXT: "note"}).dispatch()
        async with shop.app.worker(settings=WorkerSettings(lease=5)) as worker:
            await until(lambda: shop.extension.batches)
            [lane] = worker._lanes
            [run] = list(lane._hands)
            lane._on_lost(run.delivery)
            await until(lambda: not worker.busy)
            assert (worker.settled, lane.refused) == (0, 1)
            assert shop.extension.seen == []


async def test_a_message_that_is_too_old_to_be_trusted_ends_too_and_a_misplaced_one_does_not() -> None:
    codec = SignedCodec(JsonCodec(), ["a key that is long enough to be one, surely"], max_age=60)
    shop = Shop(codec=codec)
    async with shop.app:
        created = shop.app.clock.now_ms() - 61_000
        await publish(shop.app, id="late", task="add", kwargs={"x": 1, "y": 2}, created=created)
        message = Message(id="other", task="add", kwargs={"x": 1, "y": 2}, headers={NEXT: "note"})
        body = codec.encode(message)
        connection = await shop.app._connections.get()
        await connection.broker.publish([Envelope(id="copied", task="add", queue="default", body=body)])
        await shop.work()
        reasons = {letter.id: letter.reason async for letter in shop.app.dead_letters()}
        assert reasons == {"late": "stale", "copied": "mismatch"}
    assert [ending.message.id for ending in shop.extension.seen] == ["late"]
    assert shop.told == [("failed", None)]


async def test_observers_are_told_of_what_follows() -> None:
    class Seeing(Observer):
        def __init__(self) -> None:
            self.dispatched: list[str] = []

        async def observe(self, events: Sequence[Any]) -> None:
            self.dispatched += [event.job_id for event in events if isinstance(event, JobDispatched)]

    observer = Seeing()
    shop = Shop(observers=[observer])
    async with shop.app:
        job = await shop.run(shop.add.s(1, 2))
    assert observer.dispatched == [job.id, f"{job.id}.next"]


async def test_a_job_of_which_one_was_requeued_by_its_task_lives_anew() -> None:
    shop = Shop()
    lives: list[int] = []

    @shop.app.task(name="stubborn", on_failure="requeue")
    async def stubborn(message: Message) -> None:
        lives.append(message.life)
        if not message.life:
            raise ValueError("once")

    async with shop.app:
        job = await stubborn.dispatch()
        async with shop.app.worker():
            await job.result(timeout=60)
    assert lives == [0, 1]
