"""What stands around a job: middleware, dependencies, limits, fallbacks, the loop itself; on every broker."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from camora import (
    Camora,
    Context,
    Message,
    Middleware,
    Queue,
    RetryPolicy,
    Status,
    WorkerSettings,
    dependency,
    plugins,
)
from camora.errors import (
    ConfigurationError,
    DuplicateTask,
    JobFailed,
    MissingDependency,
    PayloadError,
    UnknownPlugin,
)

SOON = WorkerSettings(lease=2, shutdown_timeout=5, concurrency=20)
QUICK = RetryPolicy(max_tries=3, delay=0.01, jitter=False)


@attrs.frozen
class Sum:
    total: int
    at: datetime


async def dead(app: Camora) -> list[Any]:
    return [letter async for letter in app.dead_letters()]


async def _report(a: int) -> None: ...


async def test_a_fallback_gets_what_nobody_knows(broker_url: str) -> None:
    app = Camora(broker_url)
    seen: list[tuple[str, Any]] = []

    @app.fallback(queue="reports")
    async def handle(message: Message) -> str:
        seen.append((message.task, message.kwargs))
        return "handled"

    sender = Camora(app.broker, results=app.results)
    async with app, app.worker(settings=SOON):
        job = await app.dispatch(sender.task(name="other.report", queue="reports")(_report).s(a=1))
        assert await job.result(60) == "handled"
    assert seen == [("other.report", {"a": 1})]


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
        while not worker.handled:
            await asyncio.sleep(0.01)
        assert ran == ["guard"]
        assert await job.status() in (Status.SCHEDULED, Status.QUEUED)
        guard.open = True
        assert await job.result(60) == "done"


async def test_middleware_that_always_refuses_ends_in_the_dead_letters(broker_url: str) -> None:
    class Guard(Middleware):
        async def execute(self, context: Context, call_next: Any) -> Any:
            raise PermissionError("never")

    app = Camora(broker_url, middleware=[Guard()])

    @app.task
    async def work() -> None: ...

    async with app, app.worker(settings=attrs.evolve(SOON, max_deliveries=1)):
        with pytest.raises(JobFailed, match="PermissionError: never"):
            await (await work.dispatch()).result(60)
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

    async with app, app.worker(settings=SOON):
        headers = await (await work.dispatch()).result(60)  # type: ignore[call-arg]
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
        assert [await job.result(60) for job in jobs] == list(range(10))
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
                await job.result(60)
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
        assert [await job.result(60) for job in jobs] == list(range(200))
        release.set()
        await blocked.result(60)


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


async def test_a_burst_ends_beside_a_paused_queue(broker_url: str, caplog: pytest.LogCaptureFixture) -> None:
    app = Camora(broker_url)
    ran = []

    @app.task(queue="mail")
    async def mail() -> None:
        ran.append("mail")

    @app.task
    async def work() -> None:
        ran.append("work")

    async with app:
        await app.queue_control.pause("mail")
        await mail.dispatch()
        await work.dispatch()
        with caplog.at_level(logging.WARNING, "camora"):
            await asyncio.wait_for(app.make_worker(settings=SOON).run(burst=True), 30)
    assert ran == ["work"]
    assert "queue mail is paused: 1 jobs stay there" in caplog.text


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

    without = plugins.load(disable=["servicebus"])
    with pytest.raises(UnknownPlugin, match="pip install camora-servicebus"):
        Camora("servicebus://localhost", catalog=without)


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
            assert await (await blocker.dispatch()).result(60) == "done"
    assert ran == [1]
    assert any("blocker" in text and "has blocked the event loop" in text for text in caplog.messages)
    assert any("was blocked for" in text for text in caplog.messages)


async def test_hooks_surround_the_life_of_a_worker(broker_url: str) -> None:
    app = Camora(broker_url)
    seen: list[str] = []

    @app.on_worker_start
    async def begin() -> None:
        seen.append("start")

    @app.on_worker_stop
    def end() -> None:
        seen.append("stop")

    @app.on_worker_stop
    async def fails() -> None:
        raise ValueError("a failing hook is logged, and stops nothing")

    @app.task
    async def work() -> None:
        seen.append("job")

    async with app, app.worker(settings=SOON):
        await (await work.dispatch()).result(60)
    assert seen == ["start", "job", "stop"]


async def test_an_error_that_leaves_an_embedded_worker_gives_everything_back(broker_url: str) -> None:
    app = Camora(broker_url)
    started = asyncio.Event()

    @app.task
    async def endless() -> None:
        started.set()
        await asyncio.Event().wait()

    async with app:
        running = await endless.dispatch()
        unknown = await app.dispatch("nobody.knows.it")
        with pytest.raises(ZeroDivisionError):
            async with app.worker(settings=SOON):
                await started.wait()
                raise ZeroDivisionError
        assert await running.status() is Status.QUEUED
        assert await unknown.status() in (Status.QUEUED, Status.SCHEDULED)


async def test_a_start_hook_that_fails_stops_the_worker_before_it_takes_jobs(broker_url: str) -> None:
    app = Camora(broker_url)

    @app.on_worker_start
    async def begin() -> None:
        raise OSError("no cache here")

    @app.task
    async def work() -> None: ...

    async with app:
        job = await work.dispatch()
        with pytest.raises(OSError, match="no cache here"):
            async with app.worker(settings=SOON):
                pass
        assert await job.status() is Status.QUEUED


async def test_context_variables_survive_every_hop(broker_url: str) -> None:
    class Tagging(Middleware):
        async def execute(self, context: Context, call_next: Any) -> Any:
            request.set(f"request {context.id}")
            return await call_next(context)

    app = Camora(broker_url, middleware=[Tagging()])
    tasks = [
        app.task(name="in-async")(_read_async),
        app.task(name="in-sync", execution="sync")(_read),
        app.task(name="in-thread")(_read),
        app.task(name="in-process", execution="process")(_read),
    ]
    async with app, app.worker(settings=SOON):
        for task in tasks:
            job = await task.dispatch()
            assert await job.result(30) == f"request {job.id}", task.name
    assert request.get() == "none"


request: ContextVar[str] = ContextVar("request", default="none")


async def _read_async() -> str:
    return request.get()


def _read() -> str:
    return request.get()


async def test_what_goes_wrong_is_in_the_log(broker_url: str, caplog: pytest.LogCaptureFixture) -> None:
    app = Camora(broker_url)

    @app.task(name="flaky", retry_policy=RetryPolicy(max_tries=2, delay=0))
    async def flaky() -> None:
        raise OSError("no way\nsecond line")

    with caplog.at_level(logging.INFO, "camora"):
        async with app, app.worker(settings=SOON) as worker:
            await app.dispatch("nobody.knows.it")
            with pytest.raises(JobFailed):
                await (await flaky.dispatch()).result(60)
            while worker.handled < 3:
                await asyncio.sleep(0.01)
    text = "\n".join(caplog.messages)
    assert "attempt failed, again in 0.0 s: OSError: no way" in text
    assert "failed for good: OSError: no way" in text
    assert "given back, for 1.0 s: camora.errors.UnknownTask: this worker has no task 'nobody.knows.it'" in text
    assert "second line" not in text


async def test_a_middleware_that_forgets_to_return_the_message_is_told_so() -> None:
    class Forgetful(Middleware):
        async def dispatch(self, message: Any, call_next: Any) -> Any:
            await call_next(message)

    app = Camora(middleware=[Forgetful()])

    @app.task
    async def work() -> None: ...

    async with app:
        with pytest.raises(ConfigurationError, match="a middleware's dispatch returned None"):
            await work.dispatch()


def test_a_forked_child_dispatches_on_a_connection_of_its_own(tmp_path: Path) -> None:
    app = Camora(f"sqlite:///{tmp_path}/camora.db")

    @app.task
    async def work() -> None: ...

    work.dispatch_sync()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work.dispatch_sync()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    app.close_sync()
