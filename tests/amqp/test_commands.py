"""The commands on RabbitMQ: what they can do they do, and what RabbitMQ cannot do they say in words."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import forked
from tests.servers.rabbitmq import fresh_url

SHOP = """
import os
from camora import Camora, RetryPolicy, every
app = Camora(os.environ["SHOP_BROKER"])

@app.task(name="add", queue="sums")
async def add(a: int, b: int) -> int:
    return a + b

@app.task(name="fail", queue="mail", retry_policy=RetryPolicy(max_tries=1))
async def fail() -> None:
    raise ValueError("no")

app.schedule("tick", add.s(1, 2), every(seconds=3600))
"""


class Shop:
    """A small project, and its commands, each in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "shop.py").write_text(SHOP, encoding="utf-8")
        self._environment = {**os.environ, "SHOP_BROKER": fresh_url(), "NO_COLOR": "1", "COLUMNS": "200"}

    def camora(self, *words: str, code: int = 0) -> str:
        """What it writes; it must end with this code, and never with a traceback."""
        ended = forked.run(
            [sys.executable, "-m", "camora", *words, "--app", "shop:app"],
            cwd=self._folder, env=self._environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert ended.returncode == code, f"{words}: {ended.returncode}\n{ended.stdout}{ended.stderr}"
        assert "Traceback" not in ended.stderr
        return ended.stdout + ended.stderr

    def json(self, *words: str) -> Any:
        """What it writes as JSON, without remarks."""
        text = self.camora(*words, "--json")
        return json.JSONDecoder().raw_decode(text[text.index("{") :])[0]

    def counts(self, state: str) -> dict[str, int]:
        return {row["queue"]: row[state] for row in self.json("queues")["queues"] if row[state]}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def test_jobs_are_dispatched_counted_run_buried_and_requeued(shop: Shop) -> None:
    shop.camora("dispatch", "add", "a=1", "b=2")
    failing = shop.camora("dispatch", "fail").strip()
    assert shop.counts("ready") == {"mail": 1, "sums": 1}, "a fresh process knows the queues of its tasks"
    assert "counts no jobs that are scheduled or running" in shop.camora("queues")
    assert "it settled 2 jobs" in shop.camora("worker", "--burst")
    assert shop.counts("ready") == {}
    assert list(shop.counts("dead").values()) == [1]
    [letter] = shop.json("dead")["letters"]
    assert (letter["id"], letter["queue"]) == (failing, "mail")
    assert "ValueError: no" in shop.camora("dead", "show", failing)
    assert "1 requeued" in shop.camora("dead", "requeue", failing)
    assert shop.counts("ready") == {"mail": 1}
    assert "1 deleted" in shop.camora("queues", "purge", "mail", "--yes")
    assert "there is no dead letter nope" in shop.camora("dead", "show", "nope", code=3)


def test_what_rabbitmq_cannot_do_is_said(shop: Shop) -> None:
    job = shop.camora("dispatch", "add", "a=1", "b=2").strip()
    for words in (("job", "show", job), ("why", job)):
        text = " ".join(shop.camora(*words, code=3).split())
        assert "it waits or runs, which this broker does not show" in text
        assert "dispatched by another process, which alone is told" in text
    assert f"cannot cancel job '{job}': RabbitMQ does not show" in shop.camora("job", "cancel", job, code=2)
    assert "cannot pause queue 'sums': RabbitMQ does not show" in shop.camora("queues", "pause", "sums", code=2)
    assert "cannot resume queue 'sums'" in shop.camora("queues", "resume", "sums", code=2)
    assert "keeps a directory of workers" in shop.camora("workers", code=2)
    assert "cannot delete records by age" in shop.camora("job", "prune", "--older-than", "1h", "--yes", code=2)


def test_schedules_and_the_doctor(shop: Shop) -> None:
    assert "declared, and stored when a scheduler starts: tick" in shop.camora("schedules")
    shop.camora("dispatch", "add", "a=1", "b=2")
    text = shop.camora("doctor")
    assert "RabbitMQ" in text
    assert "camora worker --queues sums" in text
    assert "✗" not in text
