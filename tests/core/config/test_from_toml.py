"""An app whose every part is chosen in the file, at work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from camora import Camora, every
from camora.errors import ConfigurationError
from camora.retry import RetryPolicy
from camora.units import Rate

from tests import forked


class Engine:
    """What no file can hold."""


TEXT = """
name = "shop"
[broker]
url = "{url}"
[codec]
use = "msgpack"
[signing]
key = {{ env = "SHOP_KEY" }}
[retry]
max_tries = 3
delay = 0
[worker]
concurrency = 4
lease = "20s"
[limits]
max_message_size = "100KB"
[results]
ttl = "2h"
[queues.sums]
concurrency = 2
rate_limit = "1000/s"
[pools.few]
kind = "thread"
workers = 1
timeout = "30s"
[middleware]
use = ["shop_links:Count"]
[observers]
use = ["shop_links:Watch"]
[tasks."shop.*"]
timeout = "10s"
priority = 3
[tasks."shop.add"]
queue = "sums"
[[schedules]]
key = "nightly"
task = "shop.add"
args = [1, 2]
cron = "0 9 * * 1-5"
tz = "Europe/Paris"
"""

LINKS = """
from camora import Middleware
from camora.interfaces import Observer


class Count(Middleware):
    def __init__(self):
        self.executed = []

    async def execute(self, context, call_next):
        self.executed.append(context.task.name)
        return await call_next(context)


class Watch(Observer):
    def __init__(self):
        self.seen = []

    async def observe(self, events):
        self.seen += [event.kind for event in events]
"""


@pytest.fixture
def shop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (folder / "shop_links.py").write_text(LINKS)
    monkeypatch.setenv("SHOP_KEY", "a key of at least thirty-two bytes")
    return folder


@pytest.mark.parametrize("url", ["memory://", "sqlite:///shop.db"])
async def test_a_job_is_dispatched_and_run_with_all_that_the_file_says(shop: Path, url: str) -> None:
    (shop / "camora.toml").write_text(TEXT.format(url=url))
    app = Camora.from_toml()
    failures = iter([OSError("busy"), OSError("still busy")])

    @app.task(name="shop.add")
    async def add(x: int, y: int) -> int:
        for failure in failures:
            raise failure
        return x + y

    @app.task(name="shop.slow", pool="few")
    def slow() -> str:
        return "done"

    assert (app.name, app.settings.max_message_size, app.settings.result_ttl) == ("shop", 100_000, 7200)
    assert app.worker_settings is not None
    assert (app.worker_settings.concurrency, app.worker_settings.lease) == (4, 20)
    assert (add.config.queue, add.config.timeout, add.config.priority) == ("sums", 10.0, 3)
    [queue] = app.queues
    assert (queue.name, queue.concurrency, queue.rate_limit) == ("sums", 2, Rate(1000, 1.0))
    async with app, app.worker():
        jobs: list[Any] = [await add.dispatch(1, 2), await slow.dispatch()]
        assert [await job.result(timeout=60) for job in jobs] == [3, "done"]
        assert (await jobs[0].info()).attempts == 3
    links = [link.middleware for link in app.chain() if link.name == "Count"]
    assert links[0].executed.count("shop.add") == 3  # type: ignore[attr-defined]
    [watch] = app._observers
    assert "job.succeeded" in watch.seen  # type: ignore[attr-defined]
    [schedule] = app._declared_schedules.by_key.values()
    assert (schedule.key, schedule.signature.args, schedule.origin) == ("nightly", (1, 2), "config")


async def test_messages_without_the_files_key_are_refused(shop: Path) -> None:
    (shop / "camora.toml").write_text(TEXT.format(url="sqlite:///shop.db"))
    app = Camora.from_toml()
    ran = []

    @app.task(name="shop.add")
    async def add(x: int, y: int) -> int:
        ran.append(x)
        return x + y

    async with Camora("sqlite:///shop.db", codec="msgpack") as stranger:
        await stranger.options(queue="sums").dispatch("shop.add", 1, 2)
    async with app, app.worker():
        honest = await add.dispatch(3, 4)
        assert await honest.result(timeout=60) == 7
        letters = [letter async for letter in app.dead_letters(queue="sums")]
    assert ran == [3]
    assert [letter.reason for letter in letters] == ["unsigned"]


def test_the_profile_is_that_of_the_call(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shop / "camora.toml").write_text('name = "a"\n[profiles.prod]\nname = "b"\n[profiles.dev]\nname = "c"\n')
    monkeypatch.setenv("CAMORA_PROFILE", "dev")
    assert Camora.from_toml().name == "c"
    assert Camora.from_toml(profile="prod").name == "b"
    monkeypatch.delenv("CAMORA_PROFILE")
    assert Camora.from_toml(shop / "camora.toml").name == "a"


@pytest.mark.parametrize("text", ["[tasks.%s]", '[tasks."shop*"]\ntimeout = 1\n[tasks."shop.*"]', '[tasks."*"]'])
def test_options_of_tasks_from_the_file_and_from_code(shop: Path, text: str) -> None:
    exact = "%s" in text
    (shop / "camora.toml").write_text((text % '"shop.add"' if exact else text) + '\ntimeout = "30s"\nqueue = "file"\n')
    app = Camora.from_toml()

    @app.task(name="shop.add", timeout=5)
    def add() -> None: ...

    assert add.config.queue == "file"
    assert add.config.timeout == (30 if exact else 5)  # a name is the deployment's word, a pattern a default


def test_the_longest_pattern_and_then_the_name_win(shop: Path) -> None:
    (shop / "camora.toml").write_text(
        '[tasks."shop.mail.*"]\ntimeout = 2\nqueue = "mail"\n[tasks."*"]\ntimeout = 1\npriority = 1\nqueue = "all"\n'
        '[tasks."shop.mail.send"]\ntimeout = 3\nretry_policy = { max_tries = 9 }\n'
    )
    app = Camora.from_toml()

    @app.task(name="shop.mail.send", retry_policy=RetryPolicy(max_tries=2))
    def send() -> None: ...

    @app.task(name="shop.mail.list")
    def listed() -> None: ...

    @app.task(name="other")
    def other() -> None: ...

    assert (send.config.timeout, send.config.queue, send.config.priority) == (3, "mail", 1)
    assert send.config.retry_policy.max_tries == 9
    assert (listed.config.timeout, listed.config.queue, other.config.timeout, other.config.queue) == (
        2,
        "mail",
        1,
        "all",
    )


def test_a_schedule_that_code_and_file_both_declare_is_a_mistake(shop: Path) -> None:
    (shop / "camora.toml").write_text('[[schedules]]\nkey = "k"\ntask = "shop.add"\nevery = "5m"\n')

    app = Camora.from_toml()

    @app.task(name="shop.add")
    def add() -> None: ...

    with pytest.raises(ConfigurationError, match="'k'"):
        app.schedule("k", add.s(), every(minutes=1))


TASKS = """
from camora import Camora
app = Camora.from_toml()

@app.task(name="shop.add")
async def add(x: int, y: int) -> int:
    return x + y
"""


@pytest.mark.parametrize("below", [".", "deep/er"], ids=["beside", "below"])
def test_the_worker_takes_everything_from_the_file(shop: Path, below: str) -> None:
    (shop / "tasks.py").write_text(TASKS)
    text = TEXT.format(url=f"sqlite:///{shop}/shop.db")
    (shop / "camora.toml").write_text(f'app = "tasks:app"\n{text}\n[profiles.two.worker]\nprocesses = 2\n')
    (shop / below).mkdir(parents=True, exist_ok=True)

    def camora(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return forked.run(
            [sys.executable, "-m", "camora", *arguments],
            cwd=shop / below,
            env={**os.environ, **environ},
            capture_output=True,
            text=True,
            timeout=60,
        )

    for number, profile in enumerate(["", "two"] if below == "." else [""]):
        dispatched = camora("dispatch", "shop.add", f"x={number}", "y=2")
        assert dispatched.returncode == 0, dispatched.stderr
        worked = camora("worker", "--burst", *(["--profile", profile] if profile else []))
        assert worked.returncode == 0, worked.stderr
        shown = camora("job", "show", dispatched.stdout.strip(), "--json")
        assert '"succeeded"' in shown.stdout, shown.stdout + shown.stderr
    missing = camora("worker", "--burst", SHOP_KEY="short")
    assert missing.returncode == 2
    assert "signing.key: expected a key of at least 32 bytes, found one of 5" in missing.stderr


def test_a_relative_path_of_the_file_begins_at_its_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a command in a subfolder sees the same jobs."""
    (folder / "camora.toml").write_text('[broker]\nurl = "sqlite:///jobs.db?synchronous=normal"\n')
    below = folder / "below"
    below.mkdir()
    monkeypatch.chdir(below)
    assert str(folder / "jobs.db") in repr(Camora.from_toml().broker)
    monkeypatch.setenv("CAMORA_BROKER__URL", "sqlite:///mine.db")
    assert str(below / "mine.db") in repr(Camora.from_toml().broker)


async def test_what_no_file_can_hold_is_given_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "camora.toml"
    path.write_text("[worker]\nconcurrency = 3\n")
    engine = Engine()
    app = Camora.from_toml(path, dependencies=[engine])

    @app.task
    async def same(injected: Engine) -> bool:
        return injected is engine

    assert await app.run_now(same.s())
