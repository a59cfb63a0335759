"""What task queues are known to get wrong, one test each, on every broker that can show it."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from camora import Camora, RetryPolicy, Status, WorkerSettings
from camora.errors import JobFailed, JobTimeout
from camora.message import Envelope
from camora.testing.ledger import audit
from processes import workers

SOON = WorkerSettings(lease=2, shutdown_timeout=5, concurrency=20)


async def test_a_worker_works_on_after_every_kind_of_failure(broker_url: str) -> None:
    """A timeout, an unknown name, a result that cannot be stored, bad bytes, sys.exit: none of them ends the work."""
    app = Camora(broker_url)

    @app.task(timeout=0.05)
    async def too_long() -> None:
        await asyncio.Event().wait()

    @app.task
    async def unstorable() -> Any:
        return object()

    @app.task
    def leaves() -> None:
        sys.exit(1)

    @app.task
    async def fine(x: int) -> int:
        return x

    async with app, app.worker(settings=SOON):
        for round_ in range(3):
            await app.dispatch("nobody.knows.it")
            await app.broker.publish([Envelope(id=f"bad-{round_}", task="?", queue="default", body=b"\xff")])
            with pytest.raises(JobTimeout):
                await (await too_long.dispatch()).result(60)
            for task in (unstorable, leaves):
                with pytest.raises(JobFailed):
                    await (await task.dispatch()).result(60)
            assert await (await fine.dispatch(round_)).result(60) == round_


async def test_a_worker_started_before_the_first_dispatch_works(broker_url: str) -> None:
    app = Camora(broker_url)

    @app.task
    async def first() -> int:
        return 1

    async with app, app.worker(settings=SOON) as worker:
        assert worker.busy == 0
        assert await (await first.dispatch()).result(60) == 1


async def test_what_was_dispatched_before_any_worker_ever_started_is_done(broker_url: str) -> None:
    app = Camora(broker_url)

    @app.task
    async def early() -> int:
        return 1

    async with app:
        job = await early.dispatch()
        assert await job.status() is Status.QUEUED
        async with app.worker(settings=SOON):
            assert await job.result(60) == 1


async def test_a_poison_message_does_not_take_its_batch_along(broker_url: str) -> None:
    app = Camora(broker_url)

    @app.task
    async def fine(x: int) -> int:
        return x

    async with app:
        before = [await fine.dispatch(number) for number in range(10)]
        bad = [Envelope(id=f"bad-{number}", task="?", queue="default", body=b"{") for number in range(10)]
        await app.broker.publish(bad)
        after = [await fine.dispatch(number) for number in range(10)]
        async with app.worker(settings=SOON):
            assert [await job.result(60) for job in before + after] == [*range(10), *range(10)]
            while len([letter async for letter in app.dead_letters()]) < 10:
                await asyncio.sleep(0.01)


async def test_the_concurrency_option_has_its_effect(broker_url: str) -> None:
    app = Camora(broker_url)
    now = most = 0

    @app.task
    async def counted() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.005)
        now -= 1

    async with app:
        jobs = await app.dispatch_many(counted.s() for _ in range(60))
        async with app.worker(settings=WorkerSettings(concurrency=4)):
            for job in jobs:
                await job.result(60)
    assert most == 4


async def test_options_of_one_call_do_not_change_later_ones(broker_url: str) -> None:
    app = Camora(broker_url)

    @app.task
    async def plain() -> None: ...

    async with app:
        await plain.options(delay=3600, priority=5).dispatch()
        job = await plain.dispatch()
        assert await job.status() is Status.QUEUED
    assert plain.config.delay == 0
    assert plain.config.priority == 0


async def test_waiting_for_results_does_not_poll(broker_url: str) -> None:
    """Waiting costs next to nothing while nothing happens: no loop of questions to the store."""
    app = Camora(broker_url)

    @app.task
    async def nothing() -> None: ...

    async with app:
        jobs = [await nothing.options(delay=3600).dispatch() for _ in range(20)]
        waiting = [asyncio.create_task(job.result(60)) for job in jobs]
        await asyncio.sleep(1.0)  # what a write of our own still echoes for
        before = time.process_time()
        await asyncio.sleep(1.0)
        spent = time.process_time() - before
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    # 11,000 questions a second, as others ask, would be most of the second.
    assert spent < 0.3


async def test_a_delayed_job_runs_once_with_four_processes(tmp_path: Path) -> None:
    folder = tmp_path
    url = f"sqlite:///{folder}/camora.db"
    with workers() as start:
        start(folder, url, "--processes", "4").ready(4)
        async with Camora(url) as app:
            later = app.task(name="work")(_placeholder).options(delay=0.5)
            jobs = [await later.dispatch(number) for number in range(40)]
            for job in jobs:
                await job.result(60)
    found = audit(folder / "ledger", dispatched=[job.id for job in jobs])
    found.check(duplicates=0)
    assert found.finished == 40


async def _placeholder(number: int) -> int:
    return number


async def test_a_retry_that_is_repeated_is_never_two(broker_url: str) -> None:
    """The next attempt replaces the message under its own id, in one step: there is no moment with two or none."""
    app = Camora(broker_url, retry_policy=RetryPolicy(max_tries=20, delay=0, mode="fixed"))
    ran: list[int] = []

    @app.task
    async def again() -> int:
        ran.append(1)
        if len(ran) < 20:
            raise OSError
        return len(ran)

    async with app, app.worker(settings=SOON):
        job = await again.dispatch()
        assert await job.result(60) == 20
        assert await app.broker.queues.find(job.id) is None
    assert len(ran) == 20


def test_nothing_that_is_stored_or_received_is_unpickled() -> None:
    """Pickle serves the pipe between a worker and its own child processes; nowhere else may it be read."""
    import camora
    import camora_sql

    allowed = ("builtin/pools/", "propagation.py")
    for package in (camora, camora_sql):
        root = Path(os.fspath(next(iter(package.__path__))))
        for path in root.rglob("*.py"):
            if not path.relative_to(root).as_posix().startswith(allowed):
                text = path.read_text()
                assert "import pickle" not in text, path
                assert "pickle.loads" not in text, path
