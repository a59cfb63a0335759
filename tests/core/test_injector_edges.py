"""The built-in injector where it is easily wrong: decorated factories, late types, loops, overrides in overrides."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import pytest
from camora.builtin.injector import SvcsInjector
from camora.context import Context
from camora.dependencies import dependency
from camora.errors import ConfigurationError, MissingDependency
from camora.message import Delivery, Message


class Engine:
    """Something made once."""


class Session:
    """Something made from it."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine


def an_injector(*factories: Any) -> SvcsInjector:
    injector = SvcsInjector()
    for factory in factories:
        injector.add(factory)
    return injector


def a_context() -> Context:
    task: Any = None
    port: Any = None
    delivery = Delivery(id="1", queue="default", body=b"")
    return Context(Message(id="1", task="t"), task, delivery=delivery, worker="w", port=port)


async def get(injector: SvcsInjector, kind: Any) -> Any:
    async with injector.job_scope(a_context()) as scope:
        return await scope.get(kind)


# Reading factories


def logged(factory: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that knows nothing of generators and coroutines."""

    @functools.wraps(factory)
    def called(*args: Any, **kwargs: Any) -> Any:
        return factory(*args, **kwargs)

    return called


@logged
def decorated_generator() -> Iterator[Engine]:
    yield Engine()


@logged
async def decorated_async_generator() -> AsyncIterator[Engine]:
    yield Engine()


@logged
async def decorated_coroutine() -> Engine:
    return Engine()


class CallMe:
    async def __call__(self) -> Engine:
        return Engine()


class YieldMe:
    def __call__(self) -> Iterator[Engine]:
        yield Engine()


def named(name: str, engine: Engine) -> Session:
    session = Session(engine)
    session.name = name  # type: ignore[attr-defined]
    return session


@pytest.mark.parametrize(
    "factory", [decorated_generator, decorated_async_generator, decorated_coroutine, CallMe(), YieldMe()]
)
async def test_decorated_factories_and_callable_objects(factory: Any) -> None:
    injector = an_injector(factory)
    await injector.open()
    assert list(injector.problems()) == []
    assert type(await get(injector, Engine)) is Engine
    await injector.close()


async def test_what_a_partial_has_bound_stays_bound() -> None:
    injector = an_injector(Engine, functools.partial(named, name="bound"), dependency("other", provides=str))
    assert list(injector.problems()) == []
    assert (await get(injector, Session)).name == "bound"


class Fields(NamedTuple):
    engine: Engine


class Record(msgspec.Struct):
    engine: Engine


@pytest.mark.parametrize("kind", [Fields, Record])
async def test_classes_whose_constructor_is_made_from_their_fields(kind: Any) -> None:
    injector = an_injector(Engine, kind)
    assert list(injector.problems()) == []
    assert type((await get(injector, kind)).engine) is Engine


@pytest.mark.parametrize("text", ["Nowhere", "functools.nowhere", "not a type", "1 + ''"])
async def test_a_factory_that_cannot_be_read_is_named_at_first_use(text: str) -> None:
    def make() -> Any:
        return Engine()

    make.__annotations__["return"] = text
    injector = an_injector(Session, make)
    for use in (injector.provides, lambda _: injector.job_scope(a_context())):
        with pytest.raises(ConfigurationError, match="make: an annotation cannot be resolved"):
            use(Session)
    with pytest.raises(MissingDependency, match="make") as caught:
        await injector.open()
    assert len(caught.value.problems) == 1
    assert any("make" in problem for problem in injector.problems())
    await injector.close()


async def test_a_type_may_be_defined_after_the_first_use(monkeypatch: pytest.MonkeyPatch) -> None:
    def make() -> Later:  # type: ignore[name-defined]  # noqa: F821
        return Engine()

    injector = an_injector(make)
    undo = injector.override({int: lambda: 5})
    with pytest.raises(ConfigurationError, match="'Later' is not defined"):
        injector.provides(Engine)
    monkeypatch.setitem(globals(), "Later", Engine)
    assert injector.provides(Engine)
    assert injector.provides(int)
    undo()
    assert not injector.provides(int)


# Life


async def test_opened_again_after_close_it_begins_anew() -> None:
    seen: list[str] = []

    async def engine() -> AsyncIterator[Engine]:
        seen.append("up")
        yield Engine()
        seen.append("down")

    injector = an_injector(engine)
    made = set()
    for _ in range(2):
        await injector.open()
        made.add(await get(injector, Engine))
        await injector.close()
    assert seen == ["up", "down"] * 2
    assert len(made) == 2


async def test_each_loop_has_its_own() -> None:
    down: list[Engine] = []

    def engine() -> Iterator[Engine]:
        made = Engine()
        yield made
        down.append(made)

    injector = an_injector(engine)

    async def use() -> Engine:
        await injector.open()
        try:
            made: Engine = await get(injector, Engine)
            return made
        finally:
            await injector.close()

    await injector.open()
    here = await get(injector, Engine)
    there = await asyncio.gather(*(asyncio.to_thread(asyncio.run, use()) for _ in range(4)))
    assert len({here, *there}) == 5
    assert set(down) == set(there)
    assert await get(injector, Engine) is here
    await injector.close()
    assert here in down


async def test_nothing_may_be_added_once_a_worker_runs() -> None:
    injector = an_injector(Engine)
    await injector.open()
    with pytest.raises(ConfigurationError, match="comes too late"):
        injector.add(Session)
    await injector.close()
    injector.add(Session)
    assert injector.provides(Session)


async def test_two_parts_of_one_job_asking_at_once_get_one_instance() -> None:
    made: list[Session] = []
    go = asyncio.Event()

    async def session() -> Session:
        made.append(Session(Engine()))
        await go.wait()
        if len(made) == 1:
            raise OSError("not yet")
        return made[-1]

    injector = an_injector(dependency(session, scope="job"))
    async with injector.job_scope(a_context()) as scope:
        asking = [asyncio.create_task(scope.get(Session)) for _ in range(3)]
        while not made:
            await asyncio.sleep(0)
        go.set()
        first, *others = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(first, OSError)
    assert others == [made[1]] * 2
    assert len(made) == 2


async def test_a_cancelled_job_ends_its_own_creation_and_tears_down_what_it_got() -> None:
    seen: list[str] = []
    begun = asyncio.Event()

    async def engine() -> AsyncIterator[Engine]:
        yield Engine()
        seen.append("never: it was told")

    async def session(engine: Engine) -> AsyncIterator[Session]:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            seen.append("given up")
        yield Session(engine)

    injector = an_injector(dependency(engine, scope="job"), dependency(session, scope="job"))
    asking = asyncio.create_task(get(injector, Session))
    await begun.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert seen == ["given up"]


async def test_the_close_survives_that_the_loop_cancelled_what_it_keeps(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    async def engine() -> AsyncIterator[Engine]:
        try:
            yield Engine()
        finally:
            seen.append("engine")

    async def session(engine: Engine) -> AsyncIterator[Session]:
        try:
            yield Session(engine)
        finally:
            seen.append("session")

    injector = an_injector(engine, session)
    await injector.open()
    before = asyncio.all_tasks()
    await get(injector, Session)
    for kept in asyncio.all_tasks() - before:  # as `asyncio.run` does at its end
        kept.cancel()
    with caplog.at_level(logging.WARNING):
        await injector.close()
    assert sorted(seen) == ["engine", "session"]
    assert caplog.text == ""


# Overrides


async def test_what_an_override_made_lives_on_under_another_and_is_forgotten_with_it() -> None:
    made: list[str] = []
    down: list[str] = []

    def fake_engine() -> Iterator[Any]:
        made.append("fake engine")
        yield "fake engine"
        down.append("fake engine")

    injector = an_injector(Engine, Session)
    await injector.open()
    real = await get(injector, Session)
    undo = injector.override({Engine: fake_engine})
    assert await get(injector, Engine) == "fake engine"
    undo_inner = injector.override({int: lambda: 1})
    assert await get(injector, Engine) == "fake engine"
    assert (await get(injector, Session)).engine == "fake engine"
    undo_inner()
    assert await get(injector, Engine) == "fake engine"
    assert made == ["fake engine"]
    undo()
    assert await get(injector, Session) is real
    undo_again = injector.override({Engine: fake_engine})
    assert await get(injector, Engine) == "fake engine"
    undo_again()
    assert made == ["fake engine"] * 2
    await injector.close()
    assert down == ["fake engine"] * 2


async def test_an_override_may_be_asynchronous_and_keeps_the_scope() -> None:
    async def fake() -> Any:
        return object()

    def awaited() -> Awaitable[Any]:
        return fake()

    injector = an_injector(Engine, dependency(Session, scope="job"))
    await injector.open()
    undo = injector.override({Engine: fake, Session: awaited})
    assert await get(injector, Engine) is await get(injector, Engine)
    assert await get(injector, Session) is not await get(injector, Session)
    undo()
    await injector.close()


async def test_what_is_overridden_is_checked_no_more() -> None:
    def engine(session: Session) -> Engine:
        return Engine()

    injector = an_injector(engine, Session)
    assert len(list(injector.problems())) == 1
    undo = injector.override({Engine: Engine})
    assert list(injector.problems()) == []
    assert type((await get(injector, Session)).engine) is Engine
    undo()
    assert len(list(injector.problems())) == 1
