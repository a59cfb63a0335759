"""Schedules as an app has them: under its own name, and through its own chain."""

from __future__ import annotations

from camora import Camora, Message, Middleware, every
from camora.builtin.memory import MemoryBroker
from camora.interfaces.middleware import Dispatched
from camora.testing import TestWorker


def declaring(broker: MemoryBroker, name: str, *keys: str) -> Camora:
    app = Camora(broker.twin(), name=name)

    @app.task(name=f"{name}.ping")
    async def ping() -> None: ...

    for key in keys:
        app.schedule(key, ping.s(), every(minutes=5))
    return app


async def test_apps_on_one_store_leave_each_others_schedules_alone() -> None:
    broker = MemoryBroker()
    async with declaring(broker, "shop", "a", "b") as shop, declaring(broker, "blog", "c") as blog:
        await shop.schedules.sync()
        await blog.schedules.sync()
        assert {one.key: one.app for one in await shop.schedules.list()} == {"a": "shop", "b": "shop", "c": "blog"}
    async with declaring(broker, "shop", "a") as deployed_anew:
        await deployed_anew.schedules.sync()
        assert [one.key for one in await deployed_anew.schedules.list()] == ["a", "c"]


async def test_a_schedules_jobs_pass_the_apps_middleware() -> None:
    seen: list[str] = []

    class Stamp(Middleware):
        async def dispatch(self, message: Message, call_next: Dispatched) -> Message:
            seen.append(message.headers["camora.schedule"])
            return await call_next(message)

    app = Camora(middleware=[Stamp()])

    @app.task
    async def ping() -> None: ...

    app.schedule("pulse", ping.s(), every(minutes=5))
    async with TestWorker(app) as worker:
        await worker.advance(minutes=11)
        await app.schedules.run_now("pulse")
        worker.assert_dispatched(ping, times=3)
    assert seen == ["pulse"] * 3
