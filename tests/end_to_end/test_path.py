"""The whole path of a job, on every broker: from dispatch to its end, whatever that is."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
import backoff
import pytest
from camora import (
    BaseTask,
    Camora,
    CancelResult,
    Context,
    Discard,
    Failure,
    Message,
    Middleware,
    Queue,
    Retry,
    RetryPolicy,
    Signature,
    Status,
    WorkerSettings,
    dependency,
)
from camora.errors import (
    ConfigurationError,
    DispatchError,
    DuplicateTask,
    JobCancelled,
    JobDiscarded,
    JobExpired,
    JobFailed,
    JobTimeout,
    MessageTooLarge,
    MissingDependency,
    PayloadError,
    ResultExpired,
    ResultsDisabled,
    ResultTimeout,
    UnknownPlugin,
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


async def test_a_function_runs_and_its_result_arrives_as_its_annotated_type(broker_url: str) -> None:
    app = Camora(broker_url)

    @app.task
    async def add(x: int, y: int = 2) -> Sum:
        return Sum(x + y, datetime(2026, 1, 1, tzinfo=UTC))

    assert (await add(1, 2)).total == 3
    async with app, app.worker(settings=SOON):
        job = await add.dispatch(1, y=4)
        assert await job.result(10) == Sum(5, datetime(2026, 1, 1, tzinfo=UTC))
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
        assert await (await where.dispatch()).result(10) != threading.get_ident()


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
        assert [await job.result(10) for job in jobs] == ["sent"] * 3
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

        assert [await job.result(10) async for job in app.dispatch_many(signatures())] == [0, 2, 4]
        with pytest.raises(DispatchError, match="takes signatures"):
            await app.dispatch_many([1])


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
            assert await mine.result(10) is None


async def test_options_of_one_dispatch_do_not_stay(broker_url: str) -> None:
    app = Camora(broker_url)

    @app.task(queue="main")
    async def where(ctx: Context) -> str:
        return ctx.queue

    where.function.__annotations__["ctx"] = Context
    async with app, app.worker(queues=["main", "other"], settings=SOON):
        assert await (await where.options(queue="other").dispatch()).result(10) == "other"  # type: ignore[call-arg]
        assert await (await where.dispatch()).result(10) == "main"  # type: ignore[call-arg]


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
        assert due - 0.002 <= await job.result(10)
        assert due - 0.002 <= await at.result(10)
        late = await now.options(eta=datetime(2000, 1, 1, tzinfo=UTC)).dispatch()
        assert await late.result(10)


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


async def test_failures_are_retried_as_often_as_the_policy_says(broker_url: str) -> None:
    app = Camora(broker_url, retry_policy=QUICK)
    attempts: list[int] = []

    @app.task
    async def flaky(ctx: Context) -> int:
        attempts.append(ctx.attempt)
        if ctx.attempt < 3:
            raise ConnectionError("not yet")
        return ctx.attempt

    flaky.function.__annotations__["ctx"] = Context
    async with app, app.worker(settings=SOON):
        assert await (await flaky.dispatch()).result(10) == 3  # type: ignore[call-arg]
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
            await job.result(10)
        assert failure.value.error_type == "OSError"
        assert failure.value.error_text == "no way to kappa"
        assert "raise OSError" in failure.value.traceback
        assert "raise OSError" in failure.value.__notes__[0]
        assert await job.status() is Status.FAILED
        [letter] = await dead(app)
        assert (letter.id, letter.queue, letter.task, letter.attempts) == (job.id, "mail", send.name, 3)
        assert letter.error.text == "no way to kappa"
        assert [letter.id async for letter in app.dead_letters(queue="other")] == []
        broken = False
        assert await app.requeue(letter.id)
        assert await job.result(10) == "sent"
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
                await job.result(10)
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
                await job.result(10)
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
            await (await unwanted.dispatch()).result(10)
        with pytest.raises(JobFailed, match="no such user 7"):
            await (await lookup.dispatch(7)).result(10)
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
                await job.result(10)
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
            await waiting.result(10)
        async with app.worker(settings=SOON):
            running = await endless.dispatch()
            await started.wait()
            assert await running.status() is Status.RUNNING
            assert await running.cancel() is CancelResult.SIGNALLED
            with pytest.raises(JobCancelled):
                await running.result(10)
            assert stopped.is_set()
            assert await running.status() is Status.CANCELLED
            assert await running.cancel() is CancelResult.FINISHED


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
            assert await again.result(10) == 7
            assert await other.result(10) == 8
            later = await charge.dispatch(7)
            assert later.id != first.id
            assert await later.result(10) == 7
            kept = await charge.options(key="x", key_ttl=60).dispatch(9)
            assert await kept.result(10) == 9
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

    parent.function.__annotations__["ctx"] = Context
    async with app, app.worker(settings=SOON):
        job = await parent.dispatch()  # type: ignore[call-arg]
        await reported.wait()
        info = await job.info()
        assert info.status is Status.RUNNING
        assert info.progress is not None
        assert (info.progress.done, info.progress.total, info.progress.text) == (3, 10, "counting")
        release.set()
        assert await (await app.job(await job.result(10))).result(10) == 5


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
            await job.result(10)
        assert await job.status() is Status.SUCCEEDED


async def test_an_unknown_job_is_unknown(broker_url: str) -> None:
    async with Camora(broker_url) as app:
        job = await app.job("f" * 32)
        assert await job.status() is Status.UNKNOWN
        assert await job.cancel() is CancelResult.UNKNOWN
        with pytest.raises((ResultTimeout, ResultExpired)):
            await job.result(0.01)


async def test_a_fallback_gets_what_nobody_knows(broker_url: str) -> None:
    app = Camora(broker_url)
    seen: list[tuple[str, Any]] = []

    @app.fallback(queue="reports")
    async def handle(message: Message) -> str:
        seen.append((message.task, message.kwargs))
        return "handled"

    handle.function.__annotations__["message"] = Message  # type: ignore[attr-defined]
    sender = Camora(app.broker, results=app.results)
    async with app, app.worker(settings=SOON):
        job = await app.dispatch(sender.task(name="other.report", queue="reports")(_report).s(a=1))
        assert await job.result(10) == "handled"
    assert seen == [("other.report", {"a": 1})]


async def _report(a: int) -> None: ...


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
            while not worker.settled:
                await asyncio.sleep(0.01)
            given_back.set()
        info = await job.info()
        assert info.status in (Status.SCHEDULED, Status.QUEUED)
        async with new.worker(settings=SOON):
            assert await job.result(20) == "done"


async def test_an_unknown_task_is_a_dead_letter_after_its_time(broker_url: str) -> None:
    app = Camora(broker_url)
    async with app, app.worker(settings=attrs.evolve(SOON, unknown_task_limit=0.000001)):
        job = await app.dispatch("nobody.knows")
        with pytest.raises(JobFailed, match="no worker has known the task 'nobody.knows'"):
            await job.result(20)
        [letter] = await dead(app)
    assert letter.reason == "unknown_task"


@pytest.mark.parametrize("body", [b"", b"\x00\xff", b"[1]", b'{"v":99,"id":"1","task":"x"}', b"[" * 100_000])
async def test_undecodable_bytes_are_dead_letters_at_once_and_the_worker_lives(broker_url: str, body: bytes) -> None:
    app = Camora(broker_url)

    @app.task
    async def fine() -> str:
        return "fine"

    async with app, app.worker(settings=SOON) as worker:
        await app.broker.publish([Envelope(id="bad", task="?", queue="default", body=body)])
        assert await (await fine.dispatch()).result(10) == "fine"
        while worker.settled < 2:
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
            await job.result(10)
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
        while not worker.settled:
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
            await (await bad.dispatch()).result(10)
    assert ran == [1]


@pytest.mark.parametrize("execution", ["async", "thread", "process"])
async def test_timeouts(broker_url: str, execution: Any) -> None:
    app = Camora(broker_url)
    task = app.task(timeout=0.2, execution=execution, name="slow")(_endless if execution == "async" else _sleepy)
    async with app, app.worker(settings=SOON):
        with pytest.raises(JobTimeout, match="slow ran longer than its timeout of 0.2 s"):
            await (await task.dispatch()).result(20)


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
            await (await bad.dispatch()).result(20)
        assert kind in failure.value.error_type
        assert await (await fine.dispatch()).result(10) == "fine"


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
            await (await bad.dispatch(0)).result(10)
        assert "its text cannot be made: RuntimeError" in failure.value.error_text
        with pytest.raises(JobFailed) as failure:
            await (await bad.dispatch(10_000_000)).result(10)
        assert len(failure.value.error_text) < 5_000


async def test_a_middleware_that_refuses_fails_closed(broker_url: str) -> None:
    ran: list[str] = []

    class Guard(Middleware):
        open = False

        async def execute(self, context: Context, call_next: Any) -> Any:
            ran.append("guard")
            if not self.open:
                raise PermissionError("not now")
            return await call_next(context)

    guard = Guard()
    app = Camora(broker_url, middleware=[guard])

    @app.task
    async def work() -> str:
        ran.append("work")
        return "done"

    async with app, app.worker(settings=SOON) as worker:
        job = await work.dispatch()
        while not worker.settled:
            await asyncio.sleep(0.01)
        assert ran == ["guard"]
        assert await job.status() in (Status.SCHEDULED, Status.QUEUED)
        guard.open = True
        assert await job.result(20) == "done"


async def test_middleware_that_always_refuses_ends_in_the_dead_letters(broker_url: str) -> None:
    class Guard(Middleware):
        async def execute(self, context: Context, call_next: Any) -> Any:
            raise PermissionError("never")

    app = Camora(broker_url, middleware=[Guard()])

    @app.task
    async def work() -> None: ...

    async with app, app.worker(settings=attrs.evolve(SOON, max_deliveries=1)):
        with pytest.raises(JobFailed, match="PermissionError: never"):
            await (await work.dispatch()).result(20)
        [letter] = await dead(app)
    assert letter.reason == "refused"


async def test_middleware_wraps_both_sides_in_order(broker_url: str) -> None:
    seen: list[str] = []

    class Named(Middleware):
        def __init__(self, label: str) -> None:
            self.label = label

        @property
        def name(self) -> str:
            return self.label

        async def dispatch(self, message: Message, call_next: Any) -> Message:
            seen.append(f"{self.label} dispatch")
            message.headers[self.label] = "was here"
            return await call_next(message)

        async def execute(self, context: Context, call_next: Any) -> Any:
            seen.append(f"{self.label} before")
            try:
                return await call_next(context)
            finally:
                seen.append(f"{self.label} after")

    app = Camora(broker_url, middleware=[Named("outer"), Named("inner")])

    @app.task
    async def work(ctx: Context) -> dict[str, str]:
        return ctx.headers

    work.function.__annotations__["ctx"] = Context
    async with app, app.worker(settings=SOON):
        headers = await (await work.dispatch()).result(10)  # type: ignore[call-arg]
    assert headers == {"outer": "was here", "inner": "was here"}
    assert seen == ["outer dispatch", "inner dispatch", "outer before", "inner before", "inner after", "outer after"]


async def test_dependencies_are_scoped_shared_and_torn_down(broker_url: str) -> None:
    made: list[str] = []

    class Engine: ...

    class Session:
        def __init__(self, engine: Engine) -> None:
            self.engine = engine

    async def get_engine() -> Engine:
        made.append("engine")
        return Engine()

    async def get_session(engine: Engine) -> AsyncIterator[Session]:
        made.append("session")
        yield Session(engine)
        made.append("closed")

    get_engine.__annotations__["return"] = Engine
    get_session.__annotations__.update({"engine": Engine, "return": AsyncIterator[Session]})
    app = Camora(broker_url, dependencies=[get_engine, dependency(get_session, scope="job")])

    @app.task
    async def work(x: int, session: Session) -> int:
        assert isinstance(session.engine, Engine)
        return x

    work.function.__annotations__["session"] = Session
    async with app, app.worker(settings=SOON):
        jobs = [await work.dispatch(number) for number in range(10)]  # type: ignore[call-arg]
        assert [await job.result(10) for job in jobs] == list(range(10))
    assert made.count("engine") == 1
    assert made.count("session") == made.count("closed") == 10


async def test_what_nobody_provides_is_an_error_when_the_worker_starts() -> None:
    class Client: ...

    app = Camora()

    @app.task
    async def work(client: Client) -> None: ...

    work.function.__annotations__["client"] = Client
    async with app:
        with pytest.raises(MissingDependency, match="nobody provides .*Client for its parameter 'client'"):
            async with app.worker():
                pass


async def test_acknowledged_before_is_at_most_once(broker_url: str) -> None:
    app = Camora(broker_url, retry_policy=QUICK)
    ran = []

    @app.task(ack="before")
    async def once() -> int:
        ran.append(1)
        raise ValueError

    async with app, app.worker(settings=SOON):
        with pytest.raises(JobFailed):
            await (await once.dispatch()).result(10)
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
            await job.result(10)
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
        await asyncio.wait_for(done.wait(), 20)
    assert ran[1] - ran[0] > 0.9


async def test_run_now_goes_through_the_whole_chain_without_a_broker() -> None:
    app = Camora(retry_policy=QUICK)
    tries = []

    @app.task
    async def flaky(x: int) -> int:
        tries.append(x)
        if len(tries) < 3:
            raise OSError
        return x

    assert await app.run_now(flaky.s(4)) == 4
    assert tries == [4, 4, 4]
    with pytest.raises(PayloadError):
        await app.run_now(flaky.s("4"))  # type: ignore[arg-type]


async def test_limits_of_queues_and_tasks_hold(broker_url: str) -> None:
    app = Camora(broker_url, queues=[Queue("narrow", concurrency=2)])
    now: dict[str, int] = {"queue": 0, "task": 0}
    most: dict[str, int] = {"queue": 0, "task": 0}

    async def count(name: str) -> None:
        now[name] += 1
        most[name] = max(most[name], now[name])
        await asyncio.sleep(0.02)  # so that they overlap
        now[name] -= 1

    @app.task(queue="narrow")
    async def in_queue() -> None:
        await count("queue")

    @app.task(max_concurrency=3)
    async def in_task() -> None:
        await count("task")

    async with app:
        jobs = [await task.dispatch() for task in (in_queue, in_task) for _ in range(20)]
        async with app.worker(settings=SOON):
            for job in jobs:
                await job.result(20)
    assert most == {"queue": 2, "task": 3}


async def test_a_slow_job_holds_nobody_back(broker_url: str) -> None:
    app = Camora(broker_url)
    release = asyncio.Event()

    @app.task
    async def slow() -> None:
        await release.wait()

    @app.task
    async def quick(x: int) -> int:
        return x

    async with app, app.worker(settings=SOON):
        blocked = await slow.dispatch()
        jobs = await app.dispatch_many(quick.s(number) for number in range(200))
        assert [await job.result(10) for job in jobs] == list(range(200))
        release.set()
        await blocked.result(10)


async def test_a_burst_ends_when_nothing_is_due(broker_url: str) -> None:
    app = Camora(broker_url)
    ran = []

    @app.task
    async def work(x: int) -> None:
        ran.append(x)

    async with app:
        await app.dispatch_many(work.s(number) for number in range(300))
        await work.options(delay=3600).dispatch(-1)
        await asyncio.wait_for(app.make_worker(settings=SOON).run(burst=True), 30)
    assert sorted(ran) == list(range(300))


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


def test_duplicate_names_and_stray_options_are_refused() -> None:
    app = Camora()

    @app.task(name="a")
    async def first() -> None: ...

    with pytest.raises(DuplicateTask, match="two tasks are called 'a'"):

        @app.task(name="a")
        async def second() -> None: ...

    with pytest.raises(ConfigurationError, match="unknown option 'timout': did you mean 'timeout'"):
        app.task(timout=3)(first.function)  # type: ignore[call-overload]
    with pytest.raises(ConfigurationError, match="is a generator"):

        @app.task
        def many() -> Any:
            yield 1

    with pytest.raises(UnknownPlugin, match="pip install camora-redis"):
        Camora("redis://localhost")


def test_a_kept_decorator_remembers_nothing() -> None:
    app = Camora()
    mail = app.task(queue="mail")

    @mail
    async def one() -> None: ...

    @mail
    async def two() -> None: ...

    assert one.name != two.name
    assert len(app.tasks.by_name) == 2


async def test_a_blocked_loop_is_named_and_keeps_its_leases(broker_url: str, caplog: pytest.LogCaptureFixture) -> None:
    app = Camora(broker_url)
    ran = []

    @app.task(name="blocker")
    async def blocker() -> str:
        ran.append(1)
        time.sleep(1.5)
        return "done"

    settings = attrs.evolve(SOON, lease=0.6, blocked_after=0.2)
    with caplog.at_level(logging.WARNING, "camora"):
        async with app, app.worker(settings=settings):
            assert await (await blocker.dispatch()).result(20) == "done"
    assert ran == [1]
    assert any("blocker" in text and "has blocked the event loop" in text for text in caplog.messages)
    assert any("was blocked for" in text for text in caplog.messages)
