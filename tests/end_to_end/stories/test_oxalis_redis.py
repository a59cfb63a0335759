"""The story of Oxalis on Redis: lists, broadcasts, delayed and regular jobs, limits, timeouts, a worker per core."""

# mypy: disable-error-code="untyped-decorator"

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from camora import Camora, Context, Message, Middleware, Queue, RetryPolicy, Status, WorkerSettings, cron, every
from camora.builtin.json_codec import JsonCodec
from camora.errors import JobFailed, JobTimeout
from camora_redis import ListQueue, PubSubQueue, RedisBroker

from tests.servers.fixtures import fresh_url

SOON = WorkerSettings(lease=2, shutdown_timeout=5, concurrency=20, poll_interval=0.5)


@pytest.fixture
def url() -> str:
    return fresh_url("redis") + f"?prefix=oxalis{time.monotonic_ns()}"


@pytest.fixture
def app(url: str) -> Any:
    """With whatever each story adds."""
    return Camora(url)


async def eventually(what: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not what():
            await asyncio.sleep(0.01)


async def test_a_task_registered_dispatched_and_run_delayed_and_not(app: Any) -> None:
    ran: list[float] = []

    @app.task
    async def hello() -> str:
        ran.append(time.monotonic())
        return "Hello"

    async with app, app.worker(settings=SOON):
        began = time.monotonic()
        jobs = [await hello.dispatch() for _ in range(10)]
        later = await hello.options(delay=1).dispatch()
        assert [await job.result(60) for job in jobs] == ["Hello"] * 10
        assert await later.status() is Status.SCHEDULED
        assert await later.result(60) == "Hello"
    assert len(ran) == 11
    assert ran[-1] - began >= 0.99


async def test_a_client_of_ones_own(url: str) -> None:
    client = redis.asyncio.Redis.from_url(url.partition("?")[0])
    app: Any = Camora(RedisBroker(client=client))

    @app.task
    async def hello() -> str:
        return "Hello"

    async with app, app.worker(settings=SOON):
        assert await (await hello.dispatch()).result(60) == "Hello"
    await client.aclose()


async def test_custom_queues_a_list_and_a_bus(app: Any, url: str) -> None:
    custom, bus = ListQueue("custom"), PubSubQueue("bus")
    seen: list[str] = []

    @app.task(name="custom", queue=custom, timeout=10)
    async def custom_task(what: str) -> str:
        seen.append(what)
        return what

    @app.task(name="bus", queue=bus)
    async def bus_task(what: str) -> None:
        seen.append(what)

    client = redis.asyncio.Redis.from_url(url.partition("?")[0])
    async with app:
        await custom_task.dispatch("kept until somebody takes it")
        await bus_task.dispatch("heard by nobody")
        async with app.worker(settings=SOON):
            await client.rpush("custom", json.dumps({"id": "x1", "task": "custom", "args": ["from elsewhere"]}))
            assert await (await app.job("x1")).result(60) == "from elsewhere"
            await bus_task.dispatch("heard")
            await eventually(lambda: len(seen) == 3)
    await client.aclose()
    assert sorted(seen) == ["from elsewhere", "heard", "kept until somebody takes it"]


async def test_the_beater_is_part_of_it(app: Any) -> None:
    rung: list[str] = []

    @app.task(name="ring", queue=PubSubQueue("bells"))
    async def ring(ctx: Context) -> None:
        rung.append(ctx.headers["camora.schedule"])

    app.schedule("minute", ring.s(), cron("*/1 * * * *"))
    app.schedule("second", ring.s(), every(seconds=1))
    async with app, app.worker(settings=SOON):
        scheduler = app.make_scheduler()
        await scheduler.start()
        await eventually(lambda: rung.count("second") >= 2)
        await scheduler.close()


async def test_a_timeout_for_a_task_and_a_limit_of_its_own(app: Any) -> None:
    running = most = 0

    @app.task(timeout=0.2)
    async def forever() -> None:
        await asyncio.Event().wait()

    @app.task(queue=Queue("narrow", concurrency=2))
    async def narrow() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1

    async with app, app.worker(settings=SOON):
        with pytest.raises(JobTimeout):
            await (await forever.dispatch()).result(60)
        for job in await app.dispatch_many([narrow.s() for _ in range(20)]):
            await job.result(60)
    assert most == 2


async def test_a_codec_of_ones_own(url: str) -> None:
    class Shouting(JsonCodec):
        name = "shouting"

        def __init__(self) -> None:
            super().__init__()
            self.encoded: list[Message] = []

        def encode(self, message: Message) -> bytes:
            self.encoded.append(message)
            return super().encode(message)

    codec = Shouting()
    app: Any = Camora(url, codec=codec)

    @app.task(queue=ListQueue("custom"))
    async def hello() -> str:
        return "Hello"

    async with app, app.worker(settings=SOON):
        assert await (await hello.dispatch()).result(60) == "Hello"
    assert len(codec.encoded) == 1


async def test_around_every_task(url: str) -> None:
    reported: list[str] = []

    class Report(Middleware):
        async def execute(self, context: Context, call_next: Callable[[Context], Awaitable[Any]]) -> Any:
            try:
                return await call_next(context)
            except Exception as error:
                reported.append(f"{context.task.name}: {error}")
                raise

    app: Any = Camora(url, middleware=[Report()])

    @app.task(
        name="broken", queue=ListQueue("custom"), retry_policy=RetryPolicy(max_tries=2, delay=0.01, on=(KeyError,))
    )
    async def broken() -> None:
        raise KeyError("missing")

    async with app, app.worker(settings=SOON):
        with pytest.raises(JobFailed):
            await (await broken.dispatch()).result(60)
        [letter] = [one async for one in app.dead_letters()]
        assert (letter.task, letter.queue) == ("broken", "custom")
    assert reported == ["broken: 'missing'"] * 2


# A worker for each core


APP = """
import os
from pathlib import Path

from camora import Camora

app = Camora.from_toml()
FOLDER = Path(__file__).parent


def note(name):
    file = os.open(FOLDER / "ran", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{name} {os.getpid()}\\n".encode())
    os.close(file)


@app.task(name="hear", queue="bus")
async def hear(what):
    note(f"hear-{what}")


@app.task(name="work", queue="custom")
async def work(number):
    note(f"work-{number}")
    (FOLDER / f"began-{number}").touch()
    while number == 99 and not (FOLDER / "go").exists():
        import asyncio

        await asyncio.sleep(0.01)


@app.task(name="plain")
async def plain(number):
    note(f"plain-{number}")
"""

TOML = """
app = "shop:app"

[broker]
url = "{url}"

[worker]
lease = "1500ms"

[queues.bus]
kind = "pubsub"
concurrency = 3

[queues.custom]
kind = "list"
key = "{{shop}}:custom"
"""


@pytest.fixture
def shop(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An app in a folder of its own, and whoever works for it."""
    (tmp_path / "shop.py").write_text(APP)
    (tmp_path / "camora.toml").write_text(TOML.format(url=url))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CAMORA_PROFILE", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("shop", None)
    yield __import__("shop").app
    sys.modules.pop("shop", None)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    from processes import workers

    with workers() as make:

        def begin(*arguments: str) -> Any:
            return make(tmp_path, "", *arguments, app="shop:app", PYTHONPATH=str(tmp_path))

        yield begin


def ran(folder: Path) -> list[tuple[str, str]]:
    file = folder / "ran"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(name, pid) for name, pid in (line.split() for line in lines)]


async def test_one_worker_for_each_core(
    shop: Any, start: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processes.WorkerProcess.cwd", tmp_path)
    start("--processes", "2").ready(2)
    start().ready()
    async with shop:
        for number in range(20):
            await shop.dispatch("hear", number)
            await shop.dispatch("work", number)
            await shop.dispatch("plain", number)
        await eventually(lambda: len(ran(tmp_path)) >= 100)
    done = ran(tmp_path)
    assert len({pid for _, pid in done}) == 3
    for number in range(20):
        assert len({pid for name, pid in done if name == f"hear-{number}"}) == 3  # each process, and each once
        assert sum(name == f"hear-{number}" for name, _ in done) == 3
        assert sum(name == f"work-{number}" for name, _ in done) == 1
        assert sum(name == f"plain-{number}" for name, _ in done) == 1


async def test_what_a_killed_worker_had_taken_from_the_list_is_run_by_another(
    shop: Any, start: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("processes.WorkerProcess.cwd", tmp_path)
    first = start().ready()
    async with shop:
        await shop.dispatch("work", 99)
        await eventually((tmp_path / "began-99").exists)
        for number in range(50):
            await shop.dispatch("work", number)
        first.signal(signal.SIGKILL)
        assert first.end() == -signal.SIGKILL
        (tmp_path / "go").touch()
        start().ready()
        await eventually(lambda: {name for name, _ in ran(tmp_path)} == {f"work-{n}" for n in (*range(50), 99)})
        await eventually(lambda: len(runs_of(tmp_path, "work-99")) == 2)
        pids = runs_of(tmp_path, "work-99")
        assert pids[0] == str(first.process.pid) != pids[1]
        assert await counts_are_empty(shop)
    assert os.getpid() not in map(int, pids)


def runs_of(folder: Path, name: str) -> list[str]:
    return [pid for each, pid in ran(folder) if each == name]


async def counts_are_empty(app: Any) -> bool:
    async with asyncio.timeout(60):
        while dict(await app.broker.queues.counts()):
            await asyncio.sleep(0.01)
    return True
