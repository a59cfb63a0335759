"""How many messages a worker holds: as many as a queue allows, and whose consumer has the higher priority first."""

# mypy: disable-error-code="untyped-decorator, call-overload"

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from camora import Context, WorkerSettings
from camora_amqp import Queue

from tests.amqp.test_topology import Seen, app_at, tell
from tests.servers.rabbitmq import fresh_url

MANY = WorkerSettings(lease=10, shutdown_timeout=5, concurrency=20)


class Gate:
    """A task whose jobs wait until they are let through; counts how many run at once."""

    def __init__(self, app: Any) -> None:
        self.running: dict[str, int] = {}
        self.most: dict[str, int] = {}
        self.done = 0
        self.open = asyncio.Event()
        self._changed = asyncio.Event()

        @app.task(name="gate")
        async def gate(ctx: Context) -> None:
            queue = ctx.queue
            self.running[queue] = self.running.get(queue, 0) + 1
            self.most[queue] = max(self.most.get(queue, 0), self.running[queue])
            self._changed.set()
            await self.open.wait()
            self.running[queue] -= 1
            self.done += 1
            self._changed.set()

        self.task: Any = gate

    async def until(self, queue: str, count: int) -> None:
        async with asyncio.timeout(30):
            while self.running.get(queue, 0) < count:
                self._changed.clear()
                await self._changed.wait()

    async def all_done(self, count: int) -> None:
        async with asyncio.timeout(30):
            while self.done < count:
                self._changed.clear()
                await self._changed.wait()


@pytest.mark.parametrize("kind", ["quorum", "classic"])
async def test_prefetch_bounds_how_many_jobs_of_a_queue_run_at_once(kind: str) -> None:
    app = app_at(f"{fresh_url()}&queue_type={kind}", queues=[Queue("few", prefetch=3), "many"])
    gate = Gate(app)
    async with app:
        for queue in ("few", "many"):
            for _ in range(12):
                await gate.task.options(queue=queue).dispatch()
        async with app.worker(queues=["few", "many"], settings=MANY):
            await gate.until("few", 3)
            await gate.until("many", 12)
            # The others of the bounded queue stay on the server, for whoever has room.
            assert (await app.broker.queues.counts())["few"] == {"ready": 9}
            assert gate.running == {"few": 3, "many": 12}
            gate.open.set()
            await gate.all_done(24)
    assert gate.most["few"] == 3


async def test_what_one_worker_may_not_hold_is_for_another() -> None:
    url = fresh_url()
    apps = [app_at(url, queues=[Queue("few", prefetch=2)]) for _ in range(2)]
    gates = [Gate(app) for app in apps]
    async with apps[0], apps[1]:
        for _ in range(4):
            await gates[0].task.options(queue="few").dispatch()
        async with (
            apps[0].worker(queues=["few"], settings=MANY),
            apps[1].worker(queues=["few"], settings=MANY),
        ):
            for gate in gates:
                await gate.until("few", 2)
            for gate in gates:
                gate.open.set()
            for gate in gates:
                await gate.all_done(2)


async def test_the_brokers_prefetch_is_for_every_queue() -> None:
    app = app_at(f"{fresh_url()}&prefetch=2", queues=["one", Queue("other", prefetch=1)])
    gate = Gate(app)
    async with app:
        for queue in ("one", "other"):
            for _ in range(5):
                await gate.task.options(queue=queue).dispatch()
        async with app.worker(queues=["one", "other"], settings=MANY):
            await gate.until("one", 2)
            await gate.until("other", 1)
            assert (await app.broker.queues.counts()) == {"one": {"ready": 3}, "other": {"ready": 4}}
            gate.open.set()
            await gate.all_done(10)
    assert gate.most == {"one": 2, "other": 1}


async def test_the_worker_with_the_higher_priority_gets_the_jobs() -> None:
    url = fresh_url()
    first = app_at(url, queues=[Queue("mail", consumer_priority=5)])
    second = app_at(url, queues=[Queue("mail")])
    one, other = Seen(), Seen()
    task = tell(one, first)
    tell(other, second)
    async with first, second:
        async with (
            second.worker(queues=["mail"], settings=MANY),
            first.worker(queues=["mail"], settings=MANY),
        ):
            async with asyncio.timeout(30):
                while await consumers(first, "mail") < 2:
                    await asyncio.sleep(0.02)
            await first.dispatch_many([task.s(number).options(queue="mail") for number in range(15)])
            await one.wait(15)
        assert len(one.jobs) == 15 and not other.jobs
        async with second.worker(queues=["mail"], settings=MANY):
            await task.options(queue="mail").dispatch("alone")
            assert await other.wait(1) == [("mail", "alone")]


async def consumers(app: Any, queue: str) -> int:
    async with app.broker._control.channel() as channel:
        told = await channel.queue_declare(queue=app.broker.database.names.queue(queue), passive=True)
        return int(told.consumer_count or 0)
