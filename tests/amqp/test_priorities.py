"""Priorities, where a queue has them: per queue, in order, and refused in words elsewhere."""

# mypy: disable-error-code="untyped-decorator, call-overload"

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from camora import Camora, Context, RetryPolicy, WorkerSettings
from camora.errors import UnsupportedCapability
from camora_amqp import Queue

from tests.amqp.test_topology import Seen, app_at, tell
from tests.servers.rabbitmq import fresh_url

URGENT = Queue("urgent", queue_type="classic", max_priority=9)
ONE = WorkerSettings(lease=5, shutdown_timeout=5, concurrency=1, prefetch=0)


async def worked_through(app: Camora, seen: Seen, count: int, *queues: str) -> list[Any]:
    """What one worker that takes one at a time runs, in its order."""
    async with app.worker(queues=queues, settings=ONE):
        await seen.wait(count)
    return [what for _, what in seen.jobs]


@pytest.mark.parametrize("url_options", ["", "&queue_type=classic"])
async def test_higher_priorities_are_taken_first_in_a_queue_that_has_them(url_options: str) -> None:
    seen, app = Seen(), app_at(fresh_url() + url_options, queues=[URGENT])
    task = tell(seen, app, queue="urgent")
    async with app:
        assert app.broker.capabilities.priority
        for priority in (0, 3, 9, 1, 8):
            await task.options(priority=priority).dispatch(priority)
        assert await worked_through(app, seen, 5, "urgent") == [9, 8, 3, 1, 0]


async def test_the_same_for_all_queues_by_the_brokers_settings() -> None:
    seen, app = Seen(), app_at(f"{fresh_url()}&queue_type=classic&max_priority=9")
    task = tell(seen, app)
    async with app:
        for priority in (0, 9, 5):
            await task.options(priority=priority, queue="any").dispatch(priority)
        assert await worked_through(app, seen, 3, "any") == [9, 5, 0]


async def test_a_queue_without_priorities_refuses_them_and_the_others_do_not_mind() -> None:
    seen, app = Seen(), app_at(fresh_url(), queues=[URGENT])
    task = tell(seen, app)
    async with app:
        with pytest.raises(UnsupportedCapability, match=r"tell: queue 'default' has no priorities. Declare it"):
            await task.options(priority=3).dispatch("no")
        await task.options(priority=3, queue="urgent").dispatch("yes")
        await task.dispatch("plain")
        assert {queue: states["ready"] for queue, states in (await app.broker.queues.counts()).items()} == {
            "default": 1,
            "urgent": 1,
        }


async def test_an_app_without_such_a_queue_refuses_them() -> None:
    app = app_at(fresh_url())
    task = tell(Seen(), app)
    async with app:
        assert not app.broker.capabilities.priority
        with pytest.raises(UnsupportedCapability, match="this broker has no priority"):
            await task.options(priority=3).dispatch("no")


async def test_a_queue_that_is_declared_while_the_app_runs_has_priorities_at_once() -> None:
    app = app_at(fresh_url())
    task = tell(Seen(), app)
    async with app:
        await task.options(priority=3, queue=URGENT).dispatch("yes")
        assert (await app.broker.queues.counts())["urgent"] == {"ready": 1}


async def test_late_jobs_and_retries_keep_their_priority() -> None:
    seen, app = Seen(), app_at(fresh_url(), queues=[URGENT], retry_policy=RetryPolicy(max_tries=2, delay=0))
    task = tell(seen, app, queue="urgent")
    failed = asyncio.Event()

    @app.task(queue="urgent", priority=9)
    async def twice(ctx: Context) -> None:
        if ctx.attempt == 1:
            failed.set()
            raise ConnectionError("not yet")
        seen.note("urgent", "twice")

    async with app:
        for number in range(3):
            await task.options(priority=1).dispatch(number)
        await twice.dispatch()
        await task.options(priority=5, delay=0.2).dispatch("late")
        async with asyncio.timeout(30):
            while (await app.broker.queues.counts())["urgent"] != {"ready": 5}:
                await asyncio.sleep(0.02)
        assert await worked_through(app, seen, 5, "urgent") == ["twice", "late", 0, 1, 2]
    assert failed.is_set()
