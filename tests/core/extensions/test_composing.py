"""What is dispatched as one: handed to the plugin that composes, wherever something is dispatched."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from camora import Camora, Context, Job, every
from camora.dispatchable import Dispatchable
from camora.errors import ConfigurationError, DispatchError, PluginConflict
from camora.interfaces import Extension, Host

from tests.core.extensions.examples import Provider, app_with, installed, offering


class Several(Dispatchable[Any]):
    """Some signatures, dispatched one after the other."""

    def __init__(self, parts: list[Any], job_id: str = "whole") -> None:
        self.parts = parts
        self.job_id = job_id

    @property
    def port(self) -> Any:
        return self.parts[0].port

    def options(self, *, job_id: str) -> Several:
        return Several(self.parts, job_id)

    def __repr__(self) -> str:
        return f"several of {len(self.parts)}"


class Composer:
    """Notes what it is given, and dispatches the parts."""

    def __init__(self) -> None:
        self.got: list[Any] = []
        self.host: Host

    def then(self, first: Dispatchable[Any], second: Any) -> Dispatchable[Any]:
        return Several([first, second])

    def each(self, task: Any, items: Iterable[Any], *, chunk: int | None = None) -> Dispatchable[Any]:
        del chunk
        return Several([task.s(item) for item in items])

    async def dispatch(self, what: Dispatchable[Any]) -> Job[Any]:
        self.got.append(what)
        if isinstance(what, Several):
            await self.host.publish([self.host.envelope(self.host.message(one)) for one in what.parts])
            return self.host.job(what.job_id)
        return self.host.job("followed")


class Composing(Extension):
    def __init__(self) -> None:
        self.composer = self.mine = Composer()

    def attach(self, host: Host) -> None:
        self.mine.host = host


class Shop:
    def __init__(self) -> None:
        extension = Composing()
        self.composer = extension.mine
        self.app: Camora = app_with(extension)
        self.ran: list[int] = []
        self.jobs: list[Job[Any]] = []

        @self.app.task(name="work")
        async def work(x: int) -> int:
            self.ran.append(x)
            return x

        @self.app.task(name="inside")
        async def inside(context: Context) -> None:
            self.jobs.append(await context.dispatch(work.s(1) >> work.s(2)))

        self.work, self.inside = work, inside

    async def drain(self) -> list[int]:
        await self.app.make_worker().run(burst=True)
        return sorted(self.ran)


async def test_it_goes_to_the_composer_wherever_it_is_dispatched() -> None:
    shop = Shop()
    both = shop.work.s(1) >> shop.work.s(2)
    async with shop.app:
        for job in (await both.dispatch(), await shop.app.dispatch(both)):
            assert job.id == "whole"
        named = await shop.app.options(job_id="mine").dispatch(both)
        assert named.id == "mine"
        await shop.inside.dispatch()
        assert await shop.drain() == [1, 1, 1, 1, 2, 2, 2, 2]
    assert [job.id for job in shop.jobs] == ["whole"]
    assert [repr(one) for one in shop.composer.got] == ["several of 2"] * 4


def test_it_can_be_dispatched_without_an_event_loop() -> None:
    shop = Shop()
    both = shop.work.s(1) >> shop.work.s(2)
    assert both.dispatch_sync().id == "whole"
    assert shop.app.dispatch_sync(both).id == "whole"
    assert shop.app.options(job_id="mine").dispatch_sync(both).id == "mine"
    shop.app.close_sync()


async def test_a_signature_that_something_follows_goes_there_too() -> None:
    shop = Shop()
    signature = shop.work.s(1)
    signature.on_success = shop.work.s(2)
    async with shop.app:
        jobs = [await signature.dispatch(), await shop.app.dispatch(signature)]
        jobs.append(await shop.app.options(job_id="x").dispatch(signature))
        assert {job.id for job in jobs} == {"followed"}
    assert [one.on_success.args for one in shop.composer.got] == [(2,)] * 3
    assert shop.composer.got[2].options_.job_id == "x"


async def test_among_many_each_goes_by_itself_and_all_stay_in_order() -> None:
    shop = Shop()
    async with shop.app:
        both = shop.work.s(7) >> shop.work.s(8)
        many = [shop.work.s(1).options(job_id="a"), both, shop.work.s(2).options(job_id="b"), both]
        jobs = await shop.app.dispatch_many(many)
        assert [job.id for job in jobs] == ["a", "whole", "b", "whole"]
        assert await shop.drain() == [1, 2, 7, 7, 8, 8]
        with pytest.raises(DispatchError, match="dispatch_many takes signatures"):
            await shop.app.dispatch_many([shop.work])


async def test_where_only_one_job_can_be_meant_it_is_refused_in_words() -> None:
    shop = Shop()
    both: Any = shop.work.s(1) >> shop.work.s(2)
    followed = shop.work.s(1)
    followed.on_failure = shop.work.si(2)
    for what in (both, followed):
        with pytest.raises(ConfigurationError, match="more than one job.*schedule a task that dispatches this"):
            shop.app.schedule("key", what, every(minutes=1))
        with pytest.raises(ConfigurationError, match="more than one job"):
            await shop.app.schedules.add("key", what, every(minutes=1))
        with pytest.raises(DispatchError, match="run_now runs one: dispatch it to a worker"):
            await shop.app.run_now(what)
    with pytest.raises(DispatchError, match="several of 2 has its arguments already"):
        await shop.app.dispatch(both, 1)
    with pytest.raises(ConfigurationError, match="several of 2 is more than one job, and 'delay' is said of each"):
        await shop.app.options(delay=3, job_id="x").dispatch(both)
    assert shop.composer.got == []


async def test_without_a_composer_it_says_what_to_install() -> None:
    app = Camora(catalog=installed())

    @app.task
    async def work(x: int) -> int:
        return x

    with pytest.raises(ConfigurationError, match="pip install camora-workflows"):
        work.s(1) >> work.s(2)


def test_there_is_one_composer_at_most() -> None:
    sources = [
        offering(Provider(name, lambda _: Composing(), help="Test."), name=f"plugin-{name}") for name in ("one", "two")
    ]
    text = "the extensions 'one' of plugin-one and 'two' of plugin-two both compose what is dispatched as one"
    with pytest.raises(PluginConflict, match=text):
        Camora(catalog=installed(*sources))
    Camora(catalog=installed(*sources, disable=["plugin-two"]))
