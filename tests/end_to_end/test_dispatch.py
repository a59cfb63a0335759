"""Dispatching, waiting, looking: what a caller does with jobs, on every broker."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from camora import (
    AppSettings,
    BaseTask,
    Camora,
    Context,
    RetryPolicy,
    Signature,
    Status,
    WorkerSettings,
)
from camora.dispatching import BATCH
from camora.errors import (
    BrokerUnavailable,
    ConfigurationError,
    DispatchError,
    DispatchUncertain,
    PayloadError,
    ResultsDisabled,
    ResultTimeout,
)

SOON = WorkerSettings(lease=2, shutdown_timeout=5, concurrency=20)
QUICK = RetryPolicy(max_tries=3, delay=0.01, jitter=False)


@attrs.frozen
class Sum:
    total: int
    at: datetime


async def test_a_function_runs_and_its_result_arrives_as_its_annotated_type(broker_url: str) -> None:
    app = Camora(broker_url)

    @app.task
    async def add(x: int, y: int = 2) -> Sum:
        return Sum(x + y, datetime(2026, 1, 1, tzinfo=UTC))

    assert (await add(1, 2)).total == 3
    async with app, app.worker(settings=SOON):
        job = await add.dispatch(1, y=4)
        assert await job.result(60) == Sum(5, datetime(2026, 1, 1, tzinfo=UTC))
        again = await app.job(job.id)
        assert await again.result(0) == Sum(5, datetime(2026, 1, 1, tzinfo=UTC))
        info = await job.info()
    assert info.status is Status.SUCCEEDED
    assert info.attempts == 1
    assert info.task == add.name
    assert info.created is not None
    assert info.started is not None
    assert info.finished is not None
    assert info.created <= info.started <= info.finished


async def test_plain_functions_run_in_threads(broker_url: str) -> None:
    app = Camora(broker_url)

    @app.task
    def where() -> int:
        return threading.get_ident()

    async with app, app.worker(settings=SOON):
        assert await (await where.dispatch()).result(60) != threading.get_ident()


async def test_a_class_is_dispatched_as_object_class_or_name(broker_url: str) -> None:
    sent: list[tuple[str, str]] = []

    class Client:
        def send(self, recipient: str, content: str) -> None:
            sent.append((recipient, content))

    def make_client() -> Client:
        return Client()

    make_client.__annotations__["return"] = Client
    app = Camora(broker_url, dependencies=[make_client])

    class SendEmail(BaseTask):
        recipient: str
        content: str

        async def execute(self, client: Client) -> str:
            client.send(self.recipient, self.content)
            return "sent"

    SendEmail.execute.__annotations__["client"] = Client
    assert app.register(SendEmail) is SendEmail
    async with app, app.worker(settings=SOON):
        jobs = [
            await app.dispatch(SendEmail(recipient="kappa", content="one")),
            await app.dispatch(SendEmail, recipient="kappa", content="two"),
            await app.dispatch("SendEmail", recipient="kappa", content="three"),
        ]
        assert [await job.result(60) for job in jobs] == ["sent"] * 3
        with pytest.raises(PayloadError, match="SendEmail: recipient: expected str, got 5"):
            await app.dispatch(SendEmail, recipient=5, content="")
    assert sorted(sent) == [("kappa", "one"), ("kappa", "three"), ("kappa", "two")]


async def test_many_are_dispatched_in_batches_and_streamed(broker_url: str) -> None:
    app = Camora(broker_url)

    @app.task
    async def double(x: int) -> int:
        return 2 * x

    async with app, app.worker(settings=SOON):
        jobs = await app.dispatch_many(double.s(number) for number in range(1_234))
        assert [await job.result(30) for job in jobs] == [2 * number for number in range(1_234)]

        async def signatures() -> AsyncIterator[Signature[int]]:
            for number in range(3):
                yield double.s(number)

        assert [await job.result(60) async for job in app.dispatch_many(signatures())] == [0, 2, 4]
        with pytest.raises(DispatchError, match="takes signatures"):
            await app.dispatch_many([1])


async def test_what_comes_before_a_mistake_is_enqueued_and_nothing_of_its_own_batch(broker_url: str) -> None:
    app = Camora(broker_url)

    @app.task
    async def double(x: int) -> int:
        return 2 * x

    def spoilt(by: object) -> Iterator[Any]:
        yield from (double.s(number) for number in range(BATCH + 10))
        if isinstance(by, Exception):
            raise by
        yield by

    async with app:
        mistakes = (1, double.s("two"), OSError("the source is gone"))
        for turn, mistake in enumerate(mistakes, 1):
            told = []
            with pytest.raises((DispatchError, OSError)):
                async for job in app.dispatch_many(spoilt(mistake)):
                    told.append(job.id)  # noqa: PERF401 -- what was told before the mistake counts
            assert len(told) == len(set(told)) == BATCH
            assert sum((await app.broker.queues.counts())["default"].values()) == turn * BATCH


async def test_who_goes_away_in_the_middle_of_many_enqueues_no_more_of_them(broker_url: str) -> None:
    app = Camora(broker_url)

    @app.task
    async def double(x: int) -> int:
        return 2 * x

    async with app:
        jobs = app.dispatch_many(double.s(number) for number in range(5 * BATCH)).__aiter__()
        await anext(jobs)
        await jobs.aclose()
        assert sum((await app.broker.queues.counts())["default"].values()) == BATCH


async def test_a_try_that_is_cut_off_names_what_the_one_before_was_refused_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = Camora(f"sqlite:///{tmp_path}/camora.db", settings=AppSettings(dispatch_timeout=0.5))

    @app.task
    async def double(x: int) -> int:
        return 2 * x

    tries = 0

    async def publish(envelopes: Any) -> Any:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise BrokerUnavailable("it only reads")
        await asyncio.Event().wait()

    async with app:
        await double.dispatch(1)
        monkeypatch.setattr(app.broker, "publish", publish)
        with pytest.raises(DispatchUncertain, match=r"within 0\.5 s \(the try before: it only reads\): the job may be"):
            await double.dispatch(2)
    assert tries == 2


async def test_ids_are_known_before_and_ordered_by_time(broker_url: str) -> None:
    app = Camora(broker_url)

    @app.task
    async def nothing() -> None: ...

    async with app:
        ids = [(await nothing.dispatch()).id for _ in range(50)]
        assert ids == sorted(set(ids))
        mine = await nothing.options(job_id="0" * 32).dispatch()
        assert mine.id == "0" * 32
        await nothing.options(job_id="0" * 32).dispatch()
        async with app.worker(settings=SOON):
            assert await mine.result(60) is None


async def test_options_of_one_dispatch_do_not_stay(broker_url: str) -> None:
    app = Camora(broker_url)

    @app.task(queue="main")
    async def where(ctx: Context) -> str:
        return ctx.queue

    async with app, app.worker(queues=["main", "other"], settings=SOON):
        assert await (await where.options(queue="other").dispatch()).result(60) == "other"  # type: ignore[call-arg]
        assert await (await where.dispatch()).result(60) == "main"  # type: ignore[call-arg]


async def test_a_delayed_job_waits_and_says_so(broker_url: str) -> None:
    app = Camora(broker_url)

    @app.task
    async def now() -> float:
        return time.time()

    async with app, app.worker(settings=SOON):
        due = time.time() + 0.4
        job = await now.options(delay=0.4).dispatch()
        at = await now.options(eta=datetime.now(UTC) + timedelta(seconds=0.4)).dispatch()
        assert await job.status() is Status.SCHEDULED
        with pytest.raises(ResultTimeout):
            await job.result(0.01)
        assert due - 0.002 <= await job.result(60)
        assert due - 0.002 <= await at.result(60)
        late = await now.options(eta=datetime(2000, 1, 1, tzinfo=UTC)).dispatch()
        assert await late.result(60)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"delay": -1}, "delay=-1: must be 0 or more seconds"),
        ({"delay": float("nan")}, "delay=nan"),
        ({"priority": 99}, "priority=99: a whole number from 0 to 9"),
        ({"dealy": 1}, "unknown option 'dealy': did you mean 'delay'"),
        ({"retry_policy": lambda job, error: 1}, "cannot travel with a job"),
        ({"queue": "a b"}, "queue name 'a b': ' ' is not allowed"),
        ({"headers": {"a": 1}}, "names and values are texts"),
    ],
)
async def test_impossible_options_are_refused(options: dict[str, Any], text: str) -> None:
    app = Camora()

    @app.task
    async def nothing() -> None: ...

    with pytest.raises(ConfigurationError) as error:
        nothing.options(**options)
    assert text in str(error.value)
    assert "nothing" in str(error.value)


async def test_a_naive_eta_is_refused() -> None:
    app = Camora()

    @app.task
    async def nothing() -> None: ...

    with pytest.raises(DispatchError, match=r"eta: .* has no time zone; give an aware datetime"):
        await nothing.options(eta=datetime(2026, 1, 1)).dispatch()  # noqa: DTZ001 -- what is refused


async def test_keys_make_dispatch_idempotent(broker_url: str) -> None:
    app = Camora(broker_url)
    ran: list[int] = []

    @app.task(key="order-{order}")
    async def charge(order: int) -> int:
        ran.append(order)
        return order

    async with app:
        first = await charge.dispatch(7)
        again = await charge.dispatch(7)
        other = await charge.dispatch(8)
        assert first.id == again.id != other.id
        async with app.worker(settings=SOON):
            assert await again.result(60) == 7
            assert await other.result(60) == 8
            later = await charge.dispatch(7)
            assert later.id != first.id
            assert await later.result(60) == 7
            kept = await charge.options(key="x", key_ttl=60).dispatch(9)
            assert await kept.result(60) == 9
            assert (await charge.options(key="x").dispatch(9)).id == kept.id
    assert sorted(ran) == [7, 7, 8, 9]


async def test_progress_and_dispatch_from_inside_a_job(broker_url: str) -> None:
    app = Camora(broker_url)
    release = asyncio.Event()
    reported = asyncio.Event()

    @app.task
    async def child(x: int) -> int:
        return x

    @app.task
    async def parent(ctx: Context) -> str:
        await ctx.progress(3, 10, "counting")
        job = await ctx.dispatch(child.s(5))
        reported.set()
        await release.wait()
        return job.id

    async with app, app.worker(settings=SOON):
        job = await parent.dispatch()  # type: ignore[call-arg]
        await reported.wait()
        info = await job.info()
        assert info.status is Status.RUNNING
        assert info.progress is not None
        assert (info.progress.done, info.progress.total, info.progress.text) == (3, 10, "counting")
        release.set()
        assert await (await app.job(await job.result(60))).result(60) == 5


async def test_results_can_be_switched_off(broker_url: str) -> None:
    silent = Camora(broker_url, results=False)

    @silent.task
    async def nothing() -> None: ...

    async with silent:
        with pytest.raises(ResultsDisabled, match="keeps no results"):
            await (await nothing.dispatch()).result(1)
    app = Camora(broker_url)

    @app.task(keep_result=False)
    async def secret() -> int:
        return 5

    async with app, app.worker(settings=SOON):
        job = await secret.dispatch()
        with pytest.raises(ResultsDisabled, match="keep_result=False"):
            await job.result(60)
        assert await job.status() is Status.SUCCEEDED


def test_dispatch_and_result_without_an_event_loop(broker_url: str) -> None:
    app = Camora(broker_url)

    @app.task
    async def add(x: int, y: int) -> int:
        return x + y

    job = add.dispatch_sync(1, 2)

    async def work() -> None:
        async with app.worker(settings=SOON):
            assert await asyncio.to_thread(job.result_sync, 10) == 3
        await app.close()

    asyncio.run(work())
