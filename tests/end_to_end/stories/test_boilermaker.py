"""The story of Boilermaker: tasks on Azure Service Bus, the application's state, and retries that the service keeps."""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
from camora import Camora, Context, Failure, Queue, Retry, RetryPolicy, Status, WorkerSettings
from camora.errors import JobFailed, UnsupportedCapability
from camora.observers import JsonFormatter, LoggingObserver
from camora_workflows import FailedStep, Graph, chain, group
from processes import workers

from tests.servers.servicebus.shared import fresh_url

SOON = WorkerSettings(lease=5, shutdown_timeout=5, concurrency=20)


class State:
    """What an application has beside its tasks."""

    def __init__(self) -> None:
        self.greeted: list[str] = []


@pytest.fixture
def url() -> str:
    return fresh_url(["default", "mail"], lock_duration=5.0)


@pytest.fixture
def app(url: str) -> Any:
    return Camora(url, results="memory://")


# The state


async def test_the_state_of_the_application_is_a_dependency(url: str) -> None:
    state = State()
    app: Any = Camora(url, results="memory://", dependencies=[state])

    @app.task
    async def greet(state: State, name: str, *, loud: bool = False) -> str:
        state.greeted.append(name)
        return f"Hello, {name}{'!' * loud}"

    async with app, app.worker(settings=SOON):
        assert await (await greet.dispatch("Ada")).result(60) == "Hello, Ada"
        assert await (await greet.dispatch("Bob", loud=True)).result(60) == "Hello, Bob!"
    assert sorted(state.greeted) == ["Ada", "Bob"]


async def test_or_the_first_argument_by_a_line(app: Any) -> None:
    state = State()

    async def greet(state, name, loud=False):  # type: ignore[no-untyped-def]
        state.greeted.append(name)
        return f"Hello, {name}{'!' * loud}"

    task = app.register(MethodType(greet, state), name="greet", retry_policy=RetryPolicy(max_tries=3, delay=0.01))

    async with app, app.worker(settings=SOON):
        assert await (await task.dispatch("Ada")).result(60) == "Hello, Ada"
        assert await (await app.dispatch("greet", "Bob", loud=True)).result(60) == "Hello, Bob!"
    assert sorted(state.greeted) == ["Ada", "Bob"]


# Retries


class Flaky:
    """Fails so many times; counts its tries."""

    def __init__(self, failures: int, error: Callable[[], BaseException] = lambda: OSError("away")) -> None:
        self.failures = failures
        self.error = error
        self.tries = 0

    def __call__(self) -> str:
        self.tries += 1
        if self.tries <= self.failures:
            raise self.error()
        return f"done at the {self.tries}. try"


QUICK = RetryPolicy(max_tries=3, delay=0.1, mode="linear", jitter=False)


async def test_a_policy_at_registration_at_dispatch_and_when_raised(app: Any) -> None:
    registered, dispatched = Flaky(2), Flaky(2)
    raised = Flaky(2, lambda: Retry("once more", policy=QUICK))

    def of(flaky: Flaky) -> Callable[[], Any]:
        async def run() -> str:
            return flaky()

        return run

    at_registration = app.register(of(registered), name="registered", retry_policy=QUICK)
    at_dispatch = app.register(of(dispatched), name="dispatched")
    when_raised = app.register(of(raised), name="raised", retry_policy=RetryPolicy.never())
    async with app, app.worker(settings=SOON):
        jobs = [
            await at_registration.dispatch(),
            await at_dispatch.options(retry_policy=QUICK).dispatch(),
            await when_raised.dispatch(),
        ]
        assert [await job.result(60) for job in jobs] == ["done at the 3. try"] * 3
        # What one dispatch was given is not the next one's.
        dispatched.tries = 0
        with pytest.raises(JobFailed):
            await (await at_dispatch.dispatch()).result(60)
        assert dispatched.tries == 1


async def test_only_what_is_asked_for_is_tried_again(app: Any) -> None:
    """There a failure is final unless it is a RetryException; here that is `on=()`."""
    broken, asked = Flaky(1), Flaky(1, lambda: Retry("not yet", delay=0.1))
    strict = RetryPolicy(max_tries=5, delay=0.1, on=())

    @app.task(name="broken", retry_policy=strict)
    async def fails() -> str:
        return broken()

    @app.task(name="asked", retry_policy=strict)
    async def asks() -> str:
        return asked()

    @app.task(name="refused")
    async def refuses() -> Failure:
        return Failure("out of stock")

    async with app, app.worker(settings=SOON):
        with pytest.raises(JobFailed, match="away"):
            await (await fails.dispatch()).result(60)
        assert await (await asks.dispatch()).result(60) == "done at the 2. try"
        with pytest.raises(JobFailed, match="out of stock"):
            await (await refuses.dispatch()).result(60)
        letters = {letter.task: letter.reason async for letter in app.dead_letters()}
    assert letters == {"broken": "failed", "refused": "failed"}


async def test_never_is_never(app: Any) -> None:
    flaky = Flaky(1)

    @app.task(retry_policy=QUICK)
    async def run() -> str:
        return flaky()

    async with app, app.worker(settings=SOON):
        job = await run.options(retry_policy=RetryPolicy.never()).dispatch()
        with pytest.raises(JobFailed):
            await job.result(60)
        assert flaky.tries == 1
        assert await app.requeue(job.id)
        assert await job.result(60) == "done at the 2. try"


# Log lines


async def test_log_lines_with_the_sequence_number_and_the_duration(url: str) -> None:
    told: list[dict[str, Any]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(json.loads(self.format(record)))

    logger = logging.getLogger(f"boilermaker.{id(told)}")
    logger.setLevel("DEBUG")
    keep = Keep()
    keep.setFormatter(JsonFormatter())
    logger.addHandler(keep)
    app: Any = Camora(url, results="memory://", observers=[LoggingObserver(logger)])
    seen: list[int] = []

    @app.task(name="work", retry_policy=QUICK)
    async def work(ctx: Context) -> None:
        seen.append(ctx.delivery.sequence_number)
        await asyncio.sleep(0.01)
        if ctx.attempt == 1:
            raise OSError("away")

    async with app:
        async with app.worker(settings=SOON):
            job = await work.dispatch()
            await job.result(60)
        await app.events.flush()
    # Who dispatches hears of it at the same time as the worker.
    lines = [line for line in told if line.get("job_id") == job.id and line["event"] != "job.dispatched"]
    assert [line["event"] for line in lines] == [
        "job.received", "job.started", "job.retried", "job.received", "job.started", "job.succeeded",
    ]  # fmt: skip
    first, second = seen
    assert 0 < first < second
    assert [line.get("sequence_number") for line in lines] == [first] * 3 + [second] * 3
    for line in (lines[2], lines[5]):
        assert line["duration"] >= 0.01
        assert f"sequence_number={line['sequence_number']}" in line["message"]
        assert f"duration={line['duration']:g}" in line["message"]


# Retries that outlive their worker

APP = """
import os
from pathlib import Path

from camora import Camora, RetryPolicy

app = Camora(os.environ["SHOP_BROKER"], results=os.environ["SHOP_RESULTS"])
FOLDER = Path(__file__).parent


@app.task(name="flaky", retry_policy=RetryPolicy(max_tries=3, delay=4, mode="fixed", jitter=False))
async def flaky():
    file = os.open(FOLDER / "ran", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{os.getpid()}\\n".encode())
    os.close(file)
    if len((FOLDER / "ran").read_text().split()) == 1:
        raise OSError("away")
    return "done"
"""


@pytest.fixture
def shop(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "shop.py").write_text(APP)
    monkeypatch.setenv("SHOP_BROKER", url)
    monkeypatch.setenv("SHOP_RESULTS", f"sqlite:///{tmp_path}/results.db")
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("shop", None)
    yield __import__("shop").app
    sys.modules.pop("shop", None)


async def test_a_scheduled_retry_survives_a_worker_that_is_killed(
    shop: Any, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processes.WorkerProcess.cwd", tmp_path)
    ran = tmp_path / "ran"
    with workers() as make:
        first = make(tmp_path, url, "--log-level", "debug", app="shop:app").ready()
        async with shop:
            job = await shop.dispatch("flaky")
            async with asyncio.timeout(60):
                while not (await shop.broker.queues.counts()).get("default", {}).get("scheduled"):
                    await asyncio.sleep(0.01)
            first.signal(signal.SIGKILL)
            first.end()
            second = make(tmp_path, url, app="shop:app").ready()
            assert await job.result(60) == "done"
            assert await job.status() is Status.SUCCEEDED
        assert ran.read_text().split() == [str(first.process.pid), str(second.process.pid)]


async def test_a_queue_of_ones_own(app: Any) -> None:
    @app.task(queue=Queue("mail"))
    async def send() -> str:
        return "sent"

    async with app, app.worker(settings=SOON):
        assert await (await send.dispatch()).result(60) == "sent"


# Callbacks, chains, graphs


class Tasks:
    """Those of its README: what works or fails as it is told, and what follows."""

    def __init__(self, app: Any) -> None:
        self.log: list[str] = []

        @app.task(name="a_background_task", retry_policy=QUICK)
        async def a_background_task(param: str) -> str | Failure:
            self.log.append(param)
            if param == "fail":
                return Failure("asked to")
            if param == "raise":
                raise ValueError("exceptions are a bummer")
            return param.upper()

        @app.task(name="happy_path")
        async def happy_path(result: str = "") -> None:
            self.log.append(f"happy {result}".strip())

        @app.task(name="sad_path")
        async def sad_path(failed: FailedStep | None = None) -> None:
            self.log.append("sad" if failed is None else f"sad: {failed.task}: {failed.error_text}")

        self.work, self.happy, self.sad = a_background_task, happy_path, sad_path

    async def wait(self, *lines: str) -> None:
        async with asyncio.timeout(60):
            while not set(lines) <= set(self.log):
                await asyncio.sleep(0.01)


# The same with nothing but the queue, where what follows travels in the message, and with a store beside it.
BESIDE = pytest.mark.parametrize("results", [False, "memory://"], ids=["alone", "beside a store"])


@BESIDE
async def test_callbacks_on_success_and_on_failure(url: str, results: Any) -> None:
    app = Camora(url, results=results)
    tasks = Tasks(app)
    happy, failing, raising = tasks.work.s("success"), tasks.work.s("fail"), tasks.work.s("raise")
    happy.on_success, happy.on_failure = tasks.happy.si(), tasks.sad.si()
    failing.on_success, failing.on_failure = tasks.happy.s(), tasks.sad.si()
    raising.on_success, raising.on_failure = tasks.happy.s(), tasks.sad.s()
    async with app, app.worker(settings=SOON):
        await happy.dispatch()
        await tasks.wait("happy")
        assert tasks.log == ["success", "happy"]
        await failing.dispatch()
        await tasks.wait("sad")
        assert tasks.log[2:] == ["fail", "sad"], "a Failure that was returned is final"
        await raising.dispatch()
        await tasks.wait("sad: a_background_task: exceptions are a bummer")
        assert tasks.log[4:] == ["raise"] * 3 + ["sad: a_background_task: exceptions are a bummer"], "after all tries"


@BESIDE
async def test_chains_with_and_without_results_handed_on(url: str, results: Any) -> None:
    app = Camora(url, results=results)
    tasks = Tasks(app)
    async with app, app.worker(settings=SOON):
        await (tasks.work.si("a") >> tasks.work.si("b") >> tasks.happy.si()).dispatch()
        await tasks.wait("happy")
        assert tasks.log == ["a", "b", "happy"]
        await (tasks.work.si("c") >> tasks.happy.s()).dispatch()
        await tasks.wait("happy C")
        for wrong, tries in (("fail", 1), ("raise", 3)):
            tasks.log.clear()
            await chain(
                tasks.work.si("d"), tasks.work.si(wrong), tasks.happy.si(), on_failure=tasks.sad.si()
            ).dispatch()
            await tasks.wait("sad")
            assert tasks.log == ["d"] + [wrong] * tries + ["sad"]


async def test_a_graph_with_failure_callbacks_of_nodes_and_of_the_whole(app: Any) -> None:
    tasks = Tasks(app)
    async with app, app.worker(settings=SOON):
        job = await (group(tasks.work.si("a"), tasks.work.si("b")) >> tasks.happy.si()).dispatch()
        assert await job.result(60) is None
        assert sorted(tasks.log[:2]) == ["a", "b"]
        assert tasks.log[2:] == ["happy"]
        tasks.log.clear()
        graph = (
            Graph(on_failure=tasks.sad.s())
            .add("left", tasks.work.si("left"))
            .add("right", tasks.work.si("fail"), on_failure=tasks.sad.si())
            .add("both", tasks.happy.si(), after=["left", "right"])
        )
        job = await graph.dispatch()
        await tasks.wait("sad", "sad: a_background_task: asked to", "left")
        with pytest.raises(JobFailed, match="asked to"):
            await job.result(60)
        assert "happy" not in tasks.log
        async with asyncio.timeout(60):  # the result is known as soon as one has failed
            while (statuses := {one.name: one.status async for one in job.members() if one.name})["left"] == "queued":
                await asyncio.sleep(0.01)
        assert statuses == {"left": "succeeded", "right": "failed", "both": "skipped"}


async def test_without_a_store_a_graph_is_refused_in_words(url: str) -> None:
    app: Any = Camora(url, results=False)
    tasks = Tasks(app)
    async with app:
        with pytest.raises(UnsupportedCapability, match="results="):
            await (group(tasks.work.si("a"), tasks.work.si("b")) >> tasks.happy.si()).dispatch()
