"""Jobs that leave their worker on purpose, and begin anew later."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from camora import Camora, Context, Middleware, RetryPolicy, Status, WorkerSettings
from camora.errors import JobFailed
from camora.interfaces import Observer
from camora.message import Message
from camora.outcome import OutcomeKind
from camora.signals import Suspend
from camora.testing import TestWorker

SOON = WorkerSettings(lease=2, shutdown_timeout=5)


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


async def test_it_begins_anew_as_the_same_attempt(broker_url: str) -> None:
    app = Camora(broker_url)
    seen: list[tuple[int, int, int, int | None]] = []

    @app.task
    async def nap(context: Context, message: Message) -> str:
        seen.append((message.life, message.attempt, context.deliveries, message.expires))
        try:
            if message.life < 2:
                raise Suspend(delay=0.01)
        except Exception:
            pytest.fail("except Exception is to let it pass")
        return "awake"

    async with app:
        job = await nap.s().options(expires=60).dispatch()
        async with app.worker(settings=SOON):
            assert await job.result(timeout=60) == "awake"
        info = await job.info()
        assert (info.status, info.attempts) == (Status.SUCCEEDED, 1)
    assert [one[:3] for one in seen] == [(0, 1, 1), (1, 1, 1), (2, 1, 1)]
    assert [one[3] is None for one in seen] == [False, True, True]


async def test_status_says_that_it_is_scheduled_whatever_attempt_it_is(broker_url: str) -> None:
    app = Camora(broker_url)
    moment = datetime.now(UTC) + timedelta(hours=1)
    late = asyncio.Event()

    @app.task(retry_policy=RetryPolicy(max_tries=3, delay=0, jitter=False))
    async def nap(context: Context) -> None:
        if context.attempt == 1:
            raise ValueError("first")
        late.set()
        raise Suspend(until=moment)

    async with app:
        job = await nap.dispatch()
        async with app.worker(settings=SOON) as worker:
            await asyncio.wait_for(late.wait(), 60)
            await until(lambda: not worker.busy)
            info = await job.info()
    assert (info.status, info.attempts) == (Status.SCHEDULED, 1)
    assert info.due is not None
    assert abs((info.due - moment).total_seconds()) < 0.01


@pytest.mark.parametrize("execution", ["async", "sync", "thread"])
async def test_functions_of_each_sort_can(execution: str) -> None:
    app = Camora()
    lives = []

    if execution == "async":

        @app.task(name="nap")
        async def nap(message: Message) -> int:
            lives.append(message.life)
            if not message.life:
                raise Suspend(delay=0)
            return 1
    else:

        @app.task(name="nap", execution=execution)  # type: ignore[arg-type]
        def nap(message: Message) -> int:
            lives.append(message.life)
            if not message.life:
                raise Suspend(delay=0)
            return 1

    async with app:
        job = await nap.dispatch()
        async with app.worker():
            assert await job.result(timeout=60) == 1
    assert lives == [0, 1]


async def test_a_middleware_can_and_no_timeout_or_retry_has_a_say() -> None:
    told: list[str] = []

    class Hesitant(Middleware):
        async def execute(self, context: Context, call_next: Any) -> Any:
            if context.message.life == 0:
                raise Suspend(delay=0)
            return await call_next(context)

    class Careful(Middleware):
        phase = "outer"

        async def execute(self, context: Context, call_next: Any) -> Any:
            try:
                return await call_next(context)
            except Exception as error:
                told.append(repr(error))
                raise

    app = Camora(middleware=[Careful(), Hesitant()], retry_policy=RetryPolicy(max_tries=2, delay=0))

    @app.task(timeout=30)
    async def nap(message: Message) -> tuple[int, int]:
        if message.life < 2:
            raise Suspend(delay=0)
        return message.life, message.attempt

    async with app:
        job = await nap.dispatch()
        async with app.worker():
            assert await job.result(timeout=60) == (2, 1)
    assert told == []


async def test_a_job_whose_message_is_gone_cannot() -> None:
    app = Camora()

    @app.task(ack="before")
    async def nap() -> None:
        raise Suspend(delay=60)

    async with app:
        job = await nap.dispatch()
        async with app.worker():
            with pytest.raises(JobFailed, match=r'was to go on later \(for 60 s\).*Leave out ack="before"'):
                await job.result(timeout=60)


async def test_observers_are_told_that_it_was_given_back() -> None:
    events: list[str] = []

    class Seeing(Observer):
        async def observe(self, seen: Any) -> None:
            events.extend(f"{type(event).__name__} {getattr(event, 'delay', '')}".strip() for event in seen)

    app = Camora(observers=[Seeing()])

    @app.task
    async def nap(message: Message) -> None:
        if not message.life:
            raise Suspend(delay=0.02)

    async with app:
        job = await nap.dispatch()
        async with app.worker():
            await job.result(timeout=60)
    assert [name for name in events if "Retried" in name or "Failed" in name] == []
    assert "JobReleased 0.02" in events


async def test_run_now_waits() -> None:
    app = Camora()

    @app.task
    async def nap(message: Message) -> int:
        if message.life < 2:
            raise Suspend(delay=0.001)
        return message.life

    assert await app.run_now(nap.s()) == 2


async def test_time_of_the_test_kit_passes_for_it() -> None:
    app = Camora()

    @app.task
    async def nap(message: Message) -> int:
        if message.life < 2:
            raise Suspend(delay=3600)
        return message.life

    async with TestWorker(app) as worker:
        job = await nap.dispatch()
        await worker.run_due()
        await worker.advance(timedelta(hours=3))
        assert await job.result(timeout=0) == 2


def test_it_says_what_is_wrong_with_it() -> None:
    with pytest.raises(ValueError, match="one of them"):
        Suspend()
    with pytest.raises(ValueError, match="one of them"):
        Suspend(delay=1, until=datetime.now(UTC))
    with pytest.raises(ValueError, match="seconds from 0"):
        Suspend(delay=-1)
    with pytest.raises(ValueError, match="time zone"):
        Suspend(until=datetime(2030, 1, 1))  # noqa: DTZ001 -- that is the mistake
    assert OutcomeKind("suspended") is OutcomeKind.SUSPENDED


def test_it_crosses_processes() -> None:
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    for one in (Suspend(delay=1.5), Suspend(until=moment)):
        back = pickle.loads(pickle.dumps(one))
        assert (back.delay, back.until) == (one.delay, one.until)
    assert Suspend(until=moment).due(0) == moment.timestamp() * 1000
    assert Suspend(until=moment).due(2**62) == 2**62
