"""Where a broker does not know a repeated id, what gathers is there twice at times: it runs once all the same."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from camora import Camora, Context, Middleware, WorkerSettings
from camora.interfaces.middleware import Executed
from camora_workflows import Graph, chain, chord, group

from tests.servers.fixtures import fresh_url as fresh_redis_url
from tests.servers.rabbitmq import fresh_url
from tests.servers.servicebus.shared import fresh_url as fresh_servicebus_url

COPIES = 6


class Settled(Middleware):
    """Which jobs came to something: not those that were sent back."""

    phase = "outer"

    def __init__(self) -> None:
        self.ids: list[str] = []

    async def execute(self, context: Context, call_next: Executed) -> Any:
        answer = await call_next(context)
        self.ids.append(context.id)
        return answer


class Shop:
    """A worker's app, in which the body waits until it may end."""

    def __init__(self, url: str, results: str, may_end: asyncio.Event, ran: list[str]) -> None:
        self.settled = Settled()
        self.app = app = Camora(url, results=results, name="copies", middleware=[self.settled])
        self.marked = asyncio.Event()
        self.runs = asyncio.Event()

        @app.task(name="number")
        async def number() -> int:
            return 1

        @app.task(name="total")
        async def total(numbers: list[int]) -> int:
            ran.append(f"total of {len(numbers)}")
            self.runs.set()
            await may_end.wait()
            return sum(numbers)

        @app.task(name="done")
        async def done() -> str:
            ran.append("done")
            self.runs.set()
            await may_end.wait()
            return "done"

        @app.task(name="marker")
        async def marker() -> None:
            self.marked.set()

        self.number, self.total, self.done, self.marker = number, total, done, marker


def composed(shop: Shop, what: str) -> Any:
    members = group(shop.number.s() for _ in range(3))
    match what:
        case "chord":
            return chord(members, shop.total.s())
        case "immutable":
            return chain(members, shop.done.si())
        case _:
            graph = Graph().add("a", shop.number.s()).add("b", shop.number.s())
            return graph.add("both", shop.total.s(), after=["a", "b"])


@pytest.mark.parametrize(
    ("what", "broker", "store"),
    [
        ("chord", "rabbitmq", "redis"),
        ("graph", "rabbitmq", "sqlite"),
        ("immutable", "rabbitmq", "sqlite"),
        ("chord", "servicebus", "sqlite"),
    ],
)
async def test_copies_of_a_body_that_come_while_it_runs_do_not_run(
    tmp_path: Path, what: str, broker: str, store: str
) -> None:
    url = fresh_url() if broker == "rabbitmq" else fresh_servicebus_url(["default"], lock_duration=5.0)
    results = fresh_redis_url() if store == "redis" else f"sqlite:///{tmp_path}/results.db"
    may_end, ran = asyncio.Event(), list[str]()
    one, two = Shop(url, results, may_end, ran), Shop(url, results, may_end, ran)
    settings = WorkerSettings(lease=3)
    async with one.app, two.app, one.app.worker(concurrency=1, settings=settings):
        job = await composed(one, what).dispatch()
        async with asyncio.timeout(60):
            await one.runs.wait()
        [body] = [member async for member in job.members() if member.status == "queued"]
        await publish_again(one.app, job.id, body.index)
        async with two.app.worker(concurrency=1, settings=settings):
            async with asyncio.timeout(60):
                # The first worker has its hands full, so this comes when the other has had its copies.
                while not two.marked.is_set():
                    await two.marker.dispatch()
                    await asyncio.sleep(0.05)
            assert len(ran) == 1
            may_end.set()
            await job.result(timeout=60)
            async with asyncio.timeout(60):
                while (one.settled.ids + two.settled.ids).count(body.id) < 1 + COPIES:
                    await asyncio.sleep(0.02)
    assert len(ran) == 1


async def publish_again(app: Camora, workflow: str, index: int) -> None:
    """As whoever takes over from workers that died before they acknowledged the last member."""
    extension: Any = app.composer
    store = await (await extension._host().stores()).workflows()
    for _ in range(COPIES):
        await extension._following().begin(store, workflow, await store.read(workflow, [index]))
