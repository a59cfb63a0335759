"""What ends by itself: messages that nobody takes, queues that nobody uses, and room in a queue."""

# mypy: disable-error-code="untyped-decorator, call-overload"

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from camora import Context, WorkerSettings
from camora.errors import BrokerUnavailable, DispatchUncertain
from camora_amqp import Queue

from tests.amqp.test_topology import SETTINGS, Seen, app_at, listening, tell
from tests.servers.rabbitmq import fresh_url
from tests.servers.rabbitmq_sturdy import Sturdy, sturdy_rabbitmq

__all__ = ["sturdy_rabbitmq"]  # a fixture

KINDS = ["quorum", "classic"]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_message_that_nobody_takes_in_time_is_a_dead_letter(kind: str) -> None:
    app = app_at(f"{fresh_url()}&queue_type={kind}", queues=[Queue("mail", message_ttl="300ms")])
    task = tell(Seen(), app, queue="mail")
    async with app:
        job = await task.dispatch(1)
        async with asyncio.timeout(30):
            while not (letters := [letter async for letter in app.dead_letters()]):
                await asyncio.sleep(0.05)
    [letter] = letters
    assert (letter.id, letter.queue, letter.task, letter.reason) == (job.id, "mail", "tell", "expired")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_queue_that_nobody_uses_is_deleted_and_made_again_when_it_is_needed(kind: str) -> None:
    queue = Queue("mail", idle_ttl=0.5)
    seen, app = Seen(), app_at(f"{fresh_url(forgotten=False)}&queue_type={kind}", queues=[queue])
    task = tell(seen, app, queue="mail")
    name = app.broker.database.names.queue("mail")
    async with app:
        assert await exists(app, name)
        async with asyncio.timeout(60):
            while await exists(app, name):
                await asyncio.sleep(3)
        async with app.worker(queues=["mail"], settings=SETTINGS):
            await task.dispatch(1)
            assert await seen.wait(1) == [("mail", 1)]


async def exists(app: Any, name: str) -> bool:
    """Whether a queue is there; asking counts as using it, so that one does not ask often."""
    import aiormq.exceptions

    try:
        async with app.broker._control.channel() as channel:
            await channel.queue_declare(queue=name, passive=True)
    except BrokerUnavailable as error:
        if isinstance(error.__cause__, aiormq.exceptions.ChannelNotFoundEntity):
            return False
        raise
    return True


@pytest.mark.parametrize("kind", KINDS)
async def test_a_queue_whose_worker_has_no_room_for_more_is_in_use(kind: str) -> None:
    """One job runs for longer than the queue may be idle, while another waits."""
    queue = Queue("mail", idle_ttl=1)
    seen, app = Seen(), app_at(f"{fresh_url(forgotten=False)}&queue_type={kind}", queues=[queue])

    @app.task(queue="mail")
    async def slow(number: int, *, ctx: Context) -> None:
        await asyncio.sleep(5 if number == 0 else 0)
        seen.note(ctx.queue, number)

    one = WorkerSettings(lease=5, shutdown_timeout=5, concurrency=1, prefetch=0)
    async with app:
        for number in range(3):
            await slow.dispatch(number)
        async with app.worker(queues=["mail"], settings=one):
            assert await seen.wait(3) == [("mail", 0), ("mail", 1), ("mail", 2)]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_full_queue_refuses_a_dispatch_and_takes_it_when_there_is_room(kind: str) -> None:
    url, queues = f"{fresh_url()}&queue_type={kind}", [Queue("mail", max_length=3)]
    seen, app, hasty = Seen(), app_at(url, patience=60, queues=queues), app_at(url, patience=0.5, queues=queues)
    task, hasty_task = tell(seen, app, queue="mail"), tell(Seen(), hasty, queue="mail")

    async def until_refused() -> None:
        """A quorum queue takes a few more than it is told, and a busy server answers late."""
        async with asyncio.timeout(60):
            while True:
                try:
                    await hasty_task.dispatch("more")
                except (BrokerUnavailable, DispatchUncertain) as error:
                    if "full" in str(error):
                        return

    async with app, hasty:
        await until_refused()
        waiting = asyncio.create_task(task.dispatch("room"))
        await until_refused()
        assert not waiting.done()
        async with app.worker(queues=["mail"], settings=SETTINGS):
            await waiting
            async with asyncio.timeout(60):
                while ("mail", "room") not in seen.jobs:
                    await asyncio.sleep(0.02)


async def test_a_restart_empties_queues_that_are_not_durable_and_no_others(sturdy_rabbitmq: Sturdy) -> None:
    server, url = sturdy_rabbitmq, sturdy_rabbitmq.fresh_url()
    queues = [Queue("fleeting", durable=False), Queue("kept", queue_type="classic"), Queue("safe")]
    app = app_at(url, queues=queues, patience=60)
    seen = Seen()
    task = tell(seen, app)
    async with app:
        for queue in queues:
            await task.options(queue=queue.name).dispatch("before")
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        async with asyncio.timeout(60):
            for queue in queues:
                await task.options(queue=queue.name).dispatch("after")
    tell(seen, again := app_at(url, queues=queues, patience=60))
    async with listening(again, *(queue.name for queue in queues)):
        assert sorted(set(await seen.wait(5))) == [
            ("fleeting", "after"),
            ("kept", "after"),
            ("kept", "before"),
            ("safe", "after"),
            ("safe", "before"),
        ]
