"""When a message is acknowledged, and what becomes of it when its job fails: on real queues, with workers that die."""

# mypy: disable-error-code="untyped-decorator, call-overload"

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from camora import Context, RetryPolicy

from tests.amqp.test_topology import Seen, app_at, listening
from tests.end_to_end.processes import WorkerProcess, until
from tests.servers.rabbitmq import fresh_url

KINDS = ["quorum", "classic"]


async def letters(app: Any) -> list[Any]:
    return [letter async for letter in app.dead_letters()]


async def becomes(app: Any, count: int) -> list[Any]:
    """The dead letters, as soon as there are so many."""
    async with asyncio.timeout(30):
        while len(found := await letters(app)) < count:
            await asyncio.sleep(0.05)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ack", ["before", "after", "always"])
async def test_a_job_that_fails_for_good(kind: str, ack: str) -> None:
    """Acknowledged before, it is neither repeated nor a letter; after, it is both; always, it is repeated."""
    url = f"{fresh_url()}&queue_type={kind}"
    app = app_at(url, retry_policy=RetryPolicy(max_tries=2, delay=0))
    seen = Seen()

    @app.task(queue="mail", ack=ack)
    async def fail(ctx: Context) -> None:
        seen.note("mail", ctx.attempt)
        raise ConnectionError("always")

    @app.task(queue="mail")
    async def last() -> None:
        seen.note("mail", "last")

    async with app, app.worker(queues=["mail"]):
        job = await fail.dispatch()
        if ack == "after":
            [letter] = await becomes(app, 1)
            assert (letter.id, letter.queue, letter.attempts, letter.reason) == (job.id, "mail", 2, "failed")
        tries = 1 if ack == "before" else 2
        await seen.wait(tries)
        await last.dispatch()
        await seen.wait(tries + 1)
    async with app_at(url) as later:
        assert len(await letters(later)) == (1 if ack == "after" else 0)
        assert not any("ready" in states for states in (await later.broker.queues.counts()).values())
    assert [what for _, what in seen.jobs] == [*range(1, tries + 1), "last"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("on_failure", ["dead_letter", "requeue", "drop"])
async def test_what_becomes_of_a_message_whose_tries_are_used_up(kind: str, on_failure: str) -> None:
    app = app_at(f"{fresh_url()}&queue_type={kind}", retry_policy=RetryPolicy.never())
    seen = Seen()
    broken = True

    @app.task(queue="mail", on_failure=on_failure)
    async def fail(number: int) -> None:
        seen.note("mail", number)
        if broken:
            raise ConnectionError("always")

    async with app, app.worker(queues=["mail"]):
        await fail.dispatch(1)
        if on_failure == "dead_letter":
            assert [letter.reason for letter in await becomes(app, 1)] == ["failed"]
        elif on_failure == "requeue":
            await seen.wait(3)
            broken = False
            before = len(seen.jobs)
            await seen.wait(before)
        broken = False
        await fail.dispatch(2)
        async with asyncio.timeout(30):
            while ("mail", 2) not in seen.jobs:
                await asyncio.sleep(0.02)
        if on_failure != "dead_letter":
            assert not await letters(app)
    counts = Counter(what for _, what in seen.jobs)
    assert counts[2] == 1
    assert counts[1] >= 3 if on_failure == "requeue" else counts[1] == 1


APP = """
import os, signal, sys, time
from pathlib import Path
from camora import Camora, Context
app = Camora(os.environ["SHOP_BROKER"], results=False)
folder = Path(os.environ["SHOP_FOLDER"])

@app.task(name="die", ack=os.environ["ACK"])
async def die(ctx: Context) -> None:
    with (folder / "ran").open("a") as file:
        file.write(f"{os.getpid()}\\n")
    if len((folder / "ran").read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / "done").touch()

@app.task(name="last")
async def last() -> None:
    (folder / "last").touch()
"""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ack", ["before", "after", "always"])
async def test_a_worker_that_is_killed_in_the_middle(kind: str, ack: str, tmp_path: Path) -> None:
    """Acknowledged before, the job is gone with it; else another worker has it."""
    url = f"{fresh_url()}&queue_type={kind}"
    (tmp_path / "dying.py").write_text(APP)
    app = app_at(url)

    @app.task(name="die", ack=ack)
    async def die() -> None: ...

    @app.task(name="last")
    async def last() -> None: ...

    class Worker(WorkerProcess):
        cwd = tmp_path

    workers = []
    try:
        async with app:
            await die.dispatch()
            workers.append(Worker(tmp_path, url, app="dying:app", ACK=ack))
            await asyncio.to_thread(until, lambda: (tmp_path / "ran").exists(), "the first try")
            assert await asyncio.to_thread(workers[0].end) == -signal.SIGKILL
            workers.append(Worker(tmp_path, url, app="dying:app", ACK=ack))
            if ack != "before":
                await asyncio.to_thread(until, lambda: (tmp_path / "done").exists(), "the second try")
            await last.dispatch()
            await asyncio.to_thread(until, lambda: (tmp_path / "last").exists(), "the job behind it")
    finally:
        for worker in workers:
            worker.destroy()
    pids = (tmp_path / "ran").read_text().split()
    assert len(pids) == (1 if ack == "before" else 2)
    assert str(os.getpid()) not in pids


async def test_options_of_the_plugin_travel_with_the_task_and_not_with_the_message() -> None:
    """A retry stays in the queue that its job came from, whatever the task's exchange is."""
    app = app_at(fresh_url(), retry_policy=RetryPolicy(max_tries=2, delay=0.1))
    seen = Seen()
    app.broker.bind("mail", "amq.fanout")
    app.broker.bind("log", "amq.fanout")

    @app.task(queue="direct")
    async def work(ctx: Context) -> None:
        seen.note(ctx.queue, ctx.attempt)
        if ctx.queue == "direct" and ctx.attempt == 1:
            raise ConnectionError("once")

    async with listening(app, "direct", "mail", "log"):
        await work.dispatch()
        assert await seen.wait(2) == [("direct", 1), ("direct", 2)]
        await work.options(exchange="amq.fanout").dispatch()
        assert sorted(await seen.wait(4))[-2:] == [("log", 1), ("mail", 1)]
