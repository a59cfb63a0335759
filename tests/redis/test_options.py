"""`wait_replicas` of tasks and dispatches, and kinds of queues, in code and in `camora.toml`."""

# mypy: disable-error-code="untyped-decorator, call-overload"

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from camora import Camora
from camora.errors import ConfigurationError, DispatchUncertain, SettingsError, UnsupportedCapability
from camora.message import Envelope
from camora_redis import ListQueue, PubSubQueue, RedisBroker
from camora_redis.publishing import replicas_for

from tests.servers.fixtures import fresh_url, private_server
from tests.servers.redis import Server

__all__ = ["private_server"]  # a fixture

NewServer = Callable[..., Server]
ALONE = "?wait_timeout=0.05&timeout=5"
UNSURE = r"only 0 of \d replicas"
"""A dispatch tries until its time is over, which may be in the midst of a try."""


async def nothing() -> None: ...


@pytest.fixture
async def master(private_server: NewServer) -> tuple[Server, Server]:
    """A server with one replica in sync."""
    server = private_server(config=["repl-diskless-sync-delay 0"])
    replica = private_server(config=[f"replicaof {server.host} {server.port}"])
    async with asyncio.timeout(60):
        while replica.info("replication")["master_link_status"] != "up":
            await asyncio.sleep(0.01)
    return server, replica


def app_at(url: str, **settings: Any) -> Any:
    from camora import AppSettings

    return Camora(url, settings=AppSettings(dispatch_timeout=0.3), **settings)


# How many replicas


@pytest.mark.parametrize(
    ("usual", "given", "wanted"),
    [
        (0, [None], 0),
        (2, [None], 2),
        (0, [{"wait_replicas": 1}], 1),
        (2, [{"wait_replicas": 1}], 1),
        (2, [{"wait_replicas": 0}], 0),
        (1, [{"wait_replicas": 0}, None], 1),
        (1, [{"wait_replicas": 0}, {"wait_replicas": 3}, {}], 3),
    ],
    ids=["none", "settings", "task", "fewer", "off", "one-of-two", "most"],
)
def test_a_dispatch_goes_over_the_settings_and_a_batch_waits_for_the_most(
    usual: int, given: list[Any], wanted: int
) -> None:
    broker = RedisBroker.from_url(f"redis://localhost?wait_replicas={usual}")
    envelopes = [Envelope(id="1", task="t", queue="q", body=b"", options=options) for options in given]
    assert replicas_for(broker._link, envelopes) == wanted


async def test_the_tasks_that_ask_for_it_wait_and_the_others_do_not() -> None:
    app = app_at(fresh_url() + ALONE)
    safe = app.task(name="safe", wait_replicas=1)(nothing)
    simple = app.task(name="simple")(nothing)
    async with app:
        await simple.dispatch()
        for dispatch in (safe.dispatch, simple.options(wait_replicas=2).dispatch):
            with pytest.raises(DispatchUncertain, match=UNSURE):
                await dispatch()
        with pytest.raises(DispatchUncertain, match=UNSURE):
            await app.dispatch_many([safe.s()])
        await safe.options(wait_replicas=0).dispatch()
        counts = await app.broker.queues.counts()
        # What too few replicas have is stored all the same, once.
        assert dict(counts["default"]) == {"ready": 5}


async def test_a_task_may_ask_for_none_where_the_app_asks_for_some() -> None:
    app = app_at(fresh_url() + ALONE + "&wait_replicas=1")
    quick = app.task(name="quick", wait_replicas=0)(nothing)
    simple = app.task(name="simple")(nothing)
    async with app:
        await quick.dispatch()
        with pytest.raises(DispatchUncertain, match=UNSURE):
            await simple.dispatch()


@pytest.mark.parametrize("queue", ["default", ListQueue("jobs")], ids=["stream", "list"])
async def test_when_it_returns_the_replica_has_it(master: tuple[Server, Server], queue: Any) -> None:
    server, replica = master
    app = app_at(f"{server.url}?wait_timeout=10")
    safe = app.task(name="safe", wait_replicas=1, queue=queue)(nothing)
    async with app:
        for count in range(1, 51):
            await safe.dispatch()
            # It has it already: nothing is awaited here.
            with replica.connection() as connection:
                held = connection.call(*(("LLEN", "jobs") if queue != "default" else ("XLEN", "camora:default")))
            assert held == count


async def test_a_schedule_waits_as_its_task_says(master: tuple[Server, Server]) -> None:
    from camora import cron

    server, replica = master
    app = app_at(f"{server.url}?wait_timeout=10")
    safe = app.task(name="safe", wait_replicas=1)(nothing)
    app.schedule("daily", safe, cron("0 9 * * *"))
    async with app:
        await app.schedules.sync()
        await app.schedules.run_now("daily")
        with replica.connection() as connection:
            assert connection.call("XLEN", "camora:default") == 1


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (-1, "task 'f': wait_replicas=-1: expected 0 or more, found -1"),
        ("two", "task 'f': wait_replicas='two': expected a whole number, found 'two'"),
        (True, "task 'f': wait_replicas=True: expected a whole number, found True"),
    ],
    ids=["negative", "text", "truth"],
)
def test_what_it_cannot_be_is_refused_at_the_task(given: Any, text: str) -> None:
    app: Any = Camora("redis://localhost")
    with pytest.raises(ConfigurationError) as refused:
        app.task(name="f", wait_replicas=given)(nothing)
    assert str(refused.value) == text


async def test_it_is_refused_where_there_are_no_replicas(tmp_path: Path) -> None:
    app: Any = Camora(f"sqlite:///{tmp_path}/jobs.db")
    task = app.task(name="f", wait_replicas=1)(nothing)
    with pytest.raises(UnsupportedCapability, match="does not know the option 'wait_replicas'"):
        await task.dispatch()


async def test_a_broadcast_has_no_copies() -> None:
    app = app_at(fresh_url() + ALONE + "&wait_replicas=1")
    safe = app.task(name="safe", wait_replicas=1, queue=PubSubQueue("bus"))(nothing)
    simple = app.task(name="simple", queue=PubSubQueue("bus"))(nothing)
    async with app:
        with pytest.raises(UnsupportedCapability, match="nothing is stored that replicas could have"):
            await safe.dispatch()
        await simple.dispatch()  # what the settings ask for is for what is stored


# In the file


TOML = """
app = "shop:app"

[broker]
url = "{url}"
prefix = "toml"
wait_timeout = "50ms"

[queues.bus]
kind = "pubsub"
buffer = 5
concurrency = 2

[queues.jobs]
kind = "list"
key = "{{shop}}:jobs"
rate_limit = "100/s"

[tasks."payment.*"]
wait_replicas = 1
"""


def from_toml(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Any:
    monkeypatch.chdir(folder)
    monkeypatch.delenv("CAMORA_PROFILE", raising=False)
    (folder / "camora.toml").write_text(text)
    return Camora.from_toml()


async def test_all_of_it_may_stand_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    app = from_toml(tmp_path, monkeypatch, TOML.format(url=fresh_url()))
    assert set(app.queues) == {
        PubSubQueue("bus", buffer=5, concurrency=2),
        ListQueue("jobs", key="{shop}:jobs", rate_limit="100/s"),
    }
    heard = asyncio.Event()

    @app.task(name="hear", queue="bus")
    async def hear() -> None:
        heard.set()

    @app.task(name="add", queue="jobs")
    async def add(x: int, y: int) -> int:
        return x + y

    pay = app.task(name="payment.take")(nothing)
    async with app, app.worker():
        await hear.dispatch()
        async with asyncio.timeout(60):
            await heard.wait()
        assert await (await add.dispatch(1, 2)).result(timeout=60) == 3
        with pytest.raises(DispatchUncertain, match=UNSURE):
            await pay.options(queue="elsewhere").dispatch()


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('kind = "pubsub"', 'kind = "pubsup"', "Did you mean 'pubsub'?"),
        ("buffer = 5", "bufer = 5", "did you mean 'buffer'?"),
        ("buffer = 5", "buffer = 0", "queues.bus.buffer: a whole number from 1 to 10000000, found 0"),
        ('key = "{{shop}}:jobs"', 'key = ""', "queues.jobs.key: the name of a list"),
        ("wait_replicas = 1", "wait_replicas = -1", "expected 0 or more, found -1"),
    ],
    ids=["kind", "field", "buffer", "key", "replicas"],
)
def test_a_mistake_in_the_file_is_told_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, text: str
) -> None:
    assert old in TOML
    with pytest.raises((ConfigurationError, SettingsError)) as refused:
        from_toml(tmp_path, monkeypatch, TOML.replace(old, new).format(url="redis://localhost"))
    assert text in str(refused.value)
    assert "camora.toml" in str(refused.value)
