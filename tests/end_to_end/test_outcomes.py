"""How jobs end, on every broker: well, again, badly, never, too late."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from datetime import datetime
from typing import Any

import attrs
import backoff
import pytest
from camora import (
    Camora,
    CancelResult,
    Context,
    Discard,
    Failure,
    Retry,
    RetryPolicy,
    Status,
    WorkerSettings,
)
from camora import jobs as jobs_module
from camora.errors import (
    JobCancelled,
    JobDiscarded,
    JobExpired,
    JobFailed,
    JobTimeout,
    MessageTooLarge,
    ResultExpired,
    ResultTimeout,
)
from camora.message import Envelope

SOON = WorkerSettings(lease=2, shutdown_timeout=5, concurrency=20)
QUICK = RetryPolicy(max_tries=3, delay=0.01, jitter=False)


@attrs.frozen
class Sum:
    total: int
    at: datetime


async def dead(app: Camora) -> list[Any]:
    return [letter async for letter in app.dead_letters()]


async def _report(a: int) -> None: ...


async def _endless() -> None:
    await asyncio.Event().wait()


def _sleepy() -> None:
    time.sleep(3)


class Stop(BaseException): ...


def _exits() -> None:
    raise SystemExit(3)


async def _exits_async() -> None:
    raise SystemExit(3)


def _interrupts() -> None:
    raise KeyboardInterrupt


def _stops() -> None:
    raise Stop("everything")


def _generator_exit() -> None:
    raise GeneratorExit


async def _cancels_itself() -> None:
    raise asyncio.CancelledError


async def test_failures_are_retried_as_often_as_the_policy_says(broker_url: str) -> None:
    app = Camora(broker_url, retry_policy=QUICK)
    attempts: list[int] = []

    @app.task
    async def flaky(ctx: Context) -> int:
        attempts.append(ctx.attempt)
        if ctx.attempt < 3:
            raise ConnectionError("not yet")
        return ctx.attempt

    async with app, app.worker(settings=SOON):
        assert await (await flaky.dispatch()).result(60) == 3  # type: ignore[call-arg]
    assert attempts == [1, 2, 3]


async def test_a_job_whose_tries_are_used_up_fails_and_is_a_dead_letter(broker_url: str) -> None:
    app = Camora(broker_url, retry_policy=QUICK)
    broken = True

    @app.task(queue="mail")
    async def send(to: str) -> str:
        if broken:
            raise OSError(f"no way to {to}")
        return "sent"

    async with app, app.worker(settings=SOON):
        job = await send.dispatch("kappa")
        with pytest.raises(JobFailed) as failure:
            await job.result(60)
        assert failure.value.error_type == "OSError"
        assert failure.value.error_text == "no way to kappa"
        assert "raise OSError" in failure.value.traceback
        assert "raise OSError" in failure.value.__notes__[0]
        assert await job.status() is Status.FAILED
        [letter] = await dead(app)
        assert (letter.id, letter.queue, letter.task, letter.attempts) == (job.id, "mail", send.name, 3)
        assert letter.error.text == "no way to kappa"
        assert await app.dead_letter(job.id) == letter
        assert [letter.id async for letter in app.dead_letters(queue="other")] == []
        broken = False
        assert await app.requeue(letter.id)
        assert await job.result(60) == "sent"
        assert await dead(app) == []
        assert not await app.requeue(letter.id)


async def test_dead_letters_are_purged_for_good(broker_url: str) -> None:
    app = Camora(broker_url)

    @app.task
    async def fail() -> None:
        raise ValueError

    async with app, app.worker(settings=SOON):
        for job in await app.dispatch_many(fail.s() for _ in range(3)):
            with pytest.raises(JobFailed):
                await job.result(60)
        assert await app.purge_dead_letters(queue="other") == 0
        assert await app.purge_dead_letters(queue="default") == 3
        assert await dead(app) == []


async def test_precedence_of_policies(broker_url: str) -> None:
    app = Camora(broker_url, retry_policy=RetryPolicy.never())
    counts: dict[str, int] = {}

    def count(name: str) -> None:
        counts[name] = counts.get(name, 0) + 1

    @app.task
    async def by_app(name: str) -> None:
        count(name)
        raise ValueError

    @app.task(retry_policy=RetryPolicy(max_tries=2, delay=0))
    async def by_task(name: str) -> None:
        count(name)
        raise ValueError

    @app.task(retry_policy=lambda job, error: 0 if job.attempt < 4 else None)
    async def by_callable(name: str) -> None:
        count(name)
        raise ValueError

    @app.task(retry_policy=backoff.on_exception(backoff.constant, ValueError, max_tries=5, interval=0))
    async def by_decorator(name: str) -> None:
        count(name)
        raise ValueError

    @app.task(retry_policy=RetryPolicy.never())
    async def by_raise(name: str) -> None:
        count(name)
        raise Retry("busy", policy=RetryPolicy(max_tries=6, delay=0))

    async with app, app.worker(settings=SOON):
        jobs = [await task.dispatch(task.__name__) for task in (by_app, by_task, by_callable, by_decorator, by_raise)]
        jobs.append(await by_task.options(retry_policy=RetryPolicy(max_tries=3, delay=0)).dispatch("by_job"))
        for job in jobs:
            with pytest.raises(JobFailed):
                await job.result(60)
    assert counts == {"by_app": 1, "by_task": 2, "by_callable": 4, "by_decorator": 5, "by_raise": 6, "by_job": 3}


async def test_discard_and_failure(broker_url: str) -> None:
    app = Camora(broker_url, retry_policy=QUICK)

    @app.task
    async def unwanted() -> None:
        raise Discard("not wanted any more")

    @app.task
    async def lookup(user: int) -> Failure:
        return Failure(f"no such user {user}")

    async with app, app.worker(settings=SOON):
        with pytest.raises(JobDiscarded, match="not wanted any more"):
            await (await unwanted.dispatch()).result(60)
        with pytest.raises(JobFailed, match="no such user 7"):
            await (await lookup.dispatch(7)).result(60)
        [letter] = await dead(app)
    assert letter.task == lookup.name


async def test_expired_jobs_do_not_start(broker_url: str) -> None:
    app = Camora(broker_url)
    ran = []

    @app.task
    async def late() -> None:
        ran.append(1)

    async with app:
        job = await late.options(expires=0.01).dispatch()
        await asyncio.sleep(0.02)
        async with app.worker(settings=SOON):
            with pytest.raises(JobExpired):
                await job.result(60)
            assert await job.status() is Status.EXPIRED
    assert not ran


async def test_waiting_and_running_jobs_are_cancelled(broker_url: str) -> None:
    app = Camora(broker_url)
    started, stopped = asyncio.Event(), asyncio.Event()

    @app.task
    async def endless() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    async with app:
        waiting = await endless.dispatch()
        assert await waiting.cancel() is CancelResult.REMOVED
        with pytest.raises(JobCancelled):
            await waiting.result(60)
        async with app.worker(settings=SOON):
            running = await endless.dispatch()
            await started.wait()
            assert await running.status() is Status.RUNNING
            assert await running.cancel() is CancelResult.SIGNALLED
            with pytest.raises(JobCancelled):
                await running.result(60)
            assert stopped.is_set()
            assert await running.status() is Status.CANCELLED
            assert await running.cancel() is CancelResult.FINISHED


async def test_an_unknown_job_is_unknown(broker_url: str) -> None:
    async with Camora(broker_url) as app:
        job = await app.job("f" * 32)
        assert await job.status() is Status.UNKNOWN
        assert await job.cancel() is CancelResult.UNKNOWN
        with pytest.raises((ResultTimeout, ResultExpired)):
            await job.result(0.01)


async def test_an_unknown_task_waits_for_a_worker_that_knows_it(broker_url: str) -> None:
    old, new = Camora(broker_url), Camora(broker_url)
    if broker_url.startswith("memory"):
        new = Camora(old.broker.twin(), results=old.broker.own_results())

    @new.task(name="brand-new")
    async def brand_new() -> str:
        return "done"

    async with old, new:
        given_back = asyncio.Event()
        job = await new.dispatch("brand-new")
        async with old.worker(settings=SOON) as worker:
            while not worker.handled:
                await asyncio.sleep(0.01)
            given_back.set()
        info = await job.info()
        assert info.status in (Status.SCHEDULED, Status.QUEUED)
        async with new.worker(settings=SOON):
            assert await job.result(60) == "done"


async def test_an_unknown_task_is_a_dead_letter_after_its_time(broker_url: str) -> None:
    app = Camora(broker_url)
    async with app, app.worker(settings=attrs.evolve(SOON, unknown_task_limit=0.000001)):
        job = await app.dispatch("nobody.knows")
        with pytest.raises(JobFailed, match="no worker has known the task 'nobody.knows'"):
            await job.result(60)
        [letter] = await dead(app)
    assert letter.reason == "unknown_task"


async def test_a_message_that_does_not_say_when_it_was_made_waits_as_long_for_its_task(broker_url: str) -> None:
    app = Camora(broker_url)

    async with app:
        body = b'{"id":"foreign","task":"brand-new","queue":"default"}'
        await app.broker.publish([Envelope(id="foreign", task="brand-new", queue="default", body=body)])
        async with app.worker(settings=SOON) as worker:
            while not worker.handled:
                await asyncio.sleep(0.01)
        assert await dead(app) == []
        async with app.worker(settings=attrs.evolve(SOON, unknown_task_limit=0.000001)):
            while not (letters := await dead(app)):
                await asyncio.sleep(0.01)
    assert [(letter.id, letter.reason) for letter in letters] == [("foreign", "unknown_task")]


@pytest.mark.parametrize("body", [b"", b"\x00\xff", b"[1]", b'{"v":99,"id":"1","task":"x"}', b"[" * 100_000])
async def test_undecodable_bytes_are_dead_letters_at_once_and_the_worker_lives(broker_url: str, body: bytes) -> None:
    app = Camora(broker_url)

    @app.task
    async def fine() -> str:
        return "fine"

    async with app, app.worker(settings=SOON) as worker:
        await app.broker.publish([Envelope(id="bad", task="?", queue="default", body=body)])
        assert await (await fine.dispatch()).result(60) == "fine"
        while worker.handled < 2:
            await asyncio.sleep(0.01)
        [letter] = await dead(app)
    assert letter.reason == "undecodable"
    assert letter.body == body


async def test_a_payload_that_does_not_fit_is_never_retried(broker_url: str) -> None:
    app = Camora(broker_url, retry_policy=QUICK)

    @app.task(name="add")
    async def add(x: int) -> int:
        return x

    other = Camora(app.broker, results=app.results)
    async with app, app.worker(settings=SOON):
        job = await app.dispatch(other.task(name="add")(_report).s(a=1))
        with pytest.raises(JobFailed, match="add: a: unknown argument"):
            await job.result(60)
        [letter] = await dead(app)
    assert letter.reason == "payload"
    assert letter.attempts == 0


async def test_a_huge_message_is_refused_before_it_is_sent_and_before_it_is_decoded(broker_url: str) -> None:
    app = Camora(broker_url)

    @app.task
    async def nothing(data: str) -> None: ...

    async with app, app.worker(settings=SOON) as worker:
        with pytest.raises(MessageTooLarge) as error:
            await nothing.dispatch("x" * 2_000_000)
        assert error.value.size > error.value.limit == 1024 * 1024
        await app.broker.publish([Envelope(id="big", task="?", queue="default", body=b"x" * 2_000_000)])
        while not worker.handled:
            await asyncio.sleep(0.01)
        [letter] = await dead(app)
    assert letter.reason == "too_large"


async def test_an_unserialisable_result_fails_the_job_once(broker_url: str) -> None:
    app = Camora(broker_url, retry_policy=QUICK)
    ran = []

    @app.task
    async def bad() -> Any:
        ran.append(1)
        return {"items": [1, {"handle": object()}]}

    async with app, app.worker(settings=SOON):
        with pytest.raises(JobFailed, match=r"items\[1\].handle: a builtins.object cannot be encoded"):
            await (await bad.dispatch()).result(60)
    assert ran == [1]


@pytest.mark.parametrize("execution", ["async", "thread", "process"])
async def test_timeouts(broker_url: str, execution: Any) -> None:
    app = Camora(broker_url)
    task = app.task(timeout=0.2, execution=execution, name="slow")(_endless if execution == "async" else _sleepy)
    async with app, app.worker(settings=SOON):
        with pytest.raises(JobTimeout, match="slow ran longer than its timeout of 0.2 s"):
            await (await task.dispatch()).result(60)


@pytest.mark.parametrize(
    ("function", "execution", "kind"),
    [
        (_exits, "thread", "SystemExit"),
        (_exits, "sync", "SystemExit"),
        (_exits, "process", "SystemExit"),
        (_exits_async, "async", "SystemExit"),
        (_interrupts, "thread", "KeyboardInterrupt"),
        (_generator_exit, "thread", "GeneratorExit"),
        (_generator_exit, "sync", "GeneratorExit"),
        (_stops, "thread", "Stop"),
        (_stops, "sync", "Stop"),
        (_cancels_itself, "async", "CancelledError"),
    ],
)
async def test_a_job_that_raises_what_ends_programs_only_fails(
    broker_url: str, function: Any, execution: Any, kind: str
) -> None:
    app = Camora(broker_url)
    bad = app.task(name="bad", execution=execution)(function)

    @app.task
    async def fine() -> str:
        return "fine"

    async with app, app.worker(settings=SOON):
        with pytest.raises(JobFailed) as failure:
            await (await bad.dispatch()).result(60)
        assert kind in failure.value.error_type
        assert await (await fine.dispatch()).result(60) == "fine"


async def test_a_broken_exception_is_stored_all_the_same(broker_url: str) -> None:
    app = Camora(broker_url)

    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    @app.task
    async def bad(size: int) -> None:
        raise ValueError("x" * size) if size else Broken

    async with app, app.worker(settings=SOON):
        with pytest.raises(JobFailed) as failure:
            await (await bad.dispatch(0)).result(60)
        assert "its text cannot be made: RuntimeError" in failure.value.error_text
        with pytest.raises(JobFailed) as failure:
            await (await bad.dispatch(10_000_000)).result(60)
        assert len(failure.value.error_text) < 5_000


async def test_acknowledged_before_is_at_most_once(broker_url: str) -> None:
    app = Camora(broker_url, retry_policy=QUICK)
    ran = []

    @app.task(ack="before")
    async def once() -> int:
        ran.append(1)
        raise ValueError

    async with app, app.worker(settings=SOON):
        with pytest.raises(JobFailed):
            await (await once.dispatch()).result(60)
        assert await dead(app) == []
    assert ran == [1]


@pytest.mark.parametrize(("options", "letters"), [({"on_failure": "drop"}, 0), ({"ack": "always"}, 0), ({}, 1)])
async def test_what_becomes_of_failures(broker_url: str, options: Any, letters: int) -> None:
    app = Camora(broker_url)

    @app.task(**options)
    async def fail() -> None:
        raise ValueError

    async with app, app.worker(settings=SOON):
        job = await fail.dispatch()
        with pytest.raises(JobFailed):
            await job.result(60)
        assert await job.status() is Status.FAILED
        assert len(await dead(app)) == letters


async def test_requeued_failures_wait_before_they_run_again(broker_url: str) -> None:
    app = Camora(broker_url)
    ran: list[float] = []
    done = asyncio.Event()

    @app.task(on_failure="requeue")
    async def fail() -> None:
        ran.append(time.monotonic())
        if len(ran) < 2:
            raise ValueError
        done.set()

    async with app, app.worker(settings=SOON):
        await fail.dispatch()
        await asyncio.wait_for(done.wait(), 60)
    assert ran[1] - ran[0] > 0.9


@pytest.mark.parametrize("answer", [float("inf"), float("nan"), "soon"])
async def test_a_policy_that_answers_nonsense_fails_the_job_and_keeps_it(broker_url: str, answer: Any) -> None:
    app = Camora(broker_url)

    @app.task(retry_policy=lambda job, error: answer)
    async def fail() -> None:
        raise OSError("the reason")

    @app.task
    async def fine() -> int:
        return 1

    async with app, app.worker(settings=attrs.evolve(SOON, concurrency=1)):
        job = await fail.dispatch()
        with pytest.raises(JobFailed) as failure:
            await job.result(60)
        assert "the reason" in failure.value.traceback
        assert [letter.id for letter in await dead(app)] == [job.id]
        assert await (await fine.dispatch()).result(60) == 1


async def test_a_hostile_exception_costs_no_slot(broker_url: str) -> None:
    class Hostile(Exception):
        def __getattr__(self, name: str) -> Any:
            raise RuntimeError(name)

    app = Camora(broker_url)

    @app.task
    async def fail() -> None:
        raise Hostile

    async with app, app.worker(settings=attrs.evolve(SOON, concurrency=1)):
        for _ in range(2):
            with pytest.raises(JobFailed, match="Hostile"):
                await (await fail.dispatch()).result(60)


async def test_a_job_that_acknowledged_itself_ends_with_its_attempt(broker_url: str) -> None:
    app = Camora(broker_url, retry_policy=QUICK)
    ran = []

    @app.task
    async def pay(ctx: Context) -> None:
        assert await ctx.acknowledge()
        ran.append(1)
        raise OSError("after the payment")

    async with app, app.worker(settings=SOON):
        with pytest.raises(JobFailed, match="after the payment"):
            await (await pay.dispatch()).result(60)  # type: ignore[call-arg]
    assert ran == [1]


async def test_an_acknowledged_job_whose_process_dies_has_failed(broker_url: str) -> None:
    app = Camora(broker_url)
    bad = app.task(name="bad", ack="before", execution="process")(_dies)
    async with app, app.worker(settings=SOON):
        with pytest.raises(JobFailed, match="ProcessDied"):
            await (await bad.dispatch()).result(30)


def _dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def test_a_job_that_cancels_whatever_it_finds_harms_only_itself(broker_url: str) -> None:
    app = Camora(broker_url)

    @app.task
    async def itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    @app.task
    async def everything() -> None:
        mine = {asyncio.current_task(), test}
        for task in asyncio.all_tasks() - mine:
            task.cancel()

    @app.task
    async def fine() -> int:
        return 1

    test = asyncio.current_task()
    async with app, app.worker(settings=SOON):
        with pytest.raises(JobFailed, match="cancelled its own task"):
            await (await itself.dispatch()).result(60)
        await everything.dispatch()
        for _ in range(3):
            assert await (await fine.dispatch()).result(60) == 1


async def test_what_was_taken_ahead_does_not_wait_behind_long_jobs(broker_url: str) -> None:
    app = Camora(broker_url)
    release = asyncio.Event()

    @app.task
    async def quick(x: int) -> int:
        return x

    @app.task
    async def long() -> None:
        await release.wait()

    other = Camora(app.broker.twin(), results=app.broker.own_results())
    other.register(quick.function, name=quick.name)
    async with app:
        first = app.make_worker(settings=attrs.evolve(SOON, concurrency=4))
        await first.start()
        for job in await app.dispatch_many(quick.s(number) for number in range(200)):
            await job.result(60)
        longs = [await long.dispatch() for _ in range(4)]
        later = [await quick.dispatch(number) for number in range(4)]
        async with other, other.worker(settings=SOON, queues=["default"]):
            assert [await job.result(60) for job in later] == [0, 1, 2, 3]
        release.set()
        for job in longs:
            await job.result(60)
        await first.drain()
        await first.close()


async def test_a_message_at_the_limit_can_be_retried(broker_url: str) -> None:
    app = Camora(broker_url, retry_policy=QUICK)

    @app.task
    async def flaky(ctx: Context, data: str) -> int:
        if ctx.attempt < 2:
            raise OSError
        return len(data)

    async with app, app.worker(settings=SOON):
        size = 1024 * 1024 - 300
        while True:
            try:
                job = await flaky.dispatch(data="x" * size)  # type: ignore[call-arg]
                break
            except MessageTooLarge:
                size -= 1
        assert await job.result(60) == size


async def test_waiting_without_a_limit_ends_for_a_job_that_nobody_knows(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs_module, "_LOOK_AGAIN", 0.2)
    app = Camora(broker_url)

    @app.task
    async def later() -> str:
        return "done"

    async with app:
        with pytest.raises(ResultExpired, match="nothing is known"):
            await (await app.job("0" * 32)).result()
        job = await later.options(delay=0.6).dispatch()
        async with app.worker(settings=SOON):
            assert await job.result() == "done"  # looked at several times meanwhile
