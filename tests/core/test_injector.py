"""The built-in injector: what factories may be, what is shared, what is torn down, and what is found at start."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import attrs
import pytest
from camora.builtin.injector import SvcsInjector
from camora.context import Context
from camora.dependencies import dependency, inject
from camora.errors import ConfigurationError, MissingDependency
from camora.interfaces.pool import TaskExit
from camora.message import Delivery, Message


class Engine:
    """Something made once."""


class Session:
    """Something made for each job."""

    def __init__(self, engine: Engine | None = None) -> None:
        self.engine = engine


def a_context(job_id: str = "job-1") -> Context:
    task: Any = None
    port: Any = None
    delivery = Delivery(id=job_id, queue="default", body=b"")
    return Context(Message(id=job_id, task="t"), task, delivery=delivery, worker="w", port=port)


@contextlib.asynccontextmanager
async def opened(*factories: Any) -> AsyncIterator[SvcsInjector]:
    injector = SvcsInjector()
    for factory in factories:
        injector.add(factory)
    await injector.open()
    try:
        yield injector
    finally:
        await injector.close()


async def run_job(injector: SvcsInjector, *kinds: Any, fails: Exception | None = None) -> None:
    async with injector.job_scope(a_context()) as scope:
        for kind in kinds:
            await scope.get(kind)
        if fails is not None:
            raise fails


async def get(injector: SvcsInjector, kind: Any) -> Any:
    async with injector.job_scope(a_context()) as scope:
        return await scope.get(kind)


# What a factory may be


def plain() -> Engine:
    return Engine()


async def asynchronous() -> Engine:
    return Engine()


def generator() -> Iterator[Engine]:
    yield Engine()


async def async_generator() -> AsyncIterator[Engine]:
    yield Engine()


@contextlib.contextmanager
def managed() -> Iterator[Engine]:
    yield Engine()


@contextlib.asynccontextmanager
async def async_managed() -> AsyncIterator[Engine]:
    yield Engine()


def awaitable() -> Awaitable[Engine]:
    return asynchronous()


def manager() -> contextlib.AbstractContextManager[Engine]:
    return managed()


FACTORIES = [plain, asynchronous, generator, async_generator, managed, async_managed, awaitable, manager, Engine]


@pytest.mark.parametrize("scope", ["app", "job"])
@pytest.mark.parametrize("factory", FACTORIES, ids=lambda factory: factory.__name__)
async def test_every_kind_of_factory(factory: Callable[..., Any], scope: Any) -> None:
    async with opened(dependency(factory, scope=scope)) as injector:
        assert injector.provides(Engine)
        assert list(injector.problems()) == []
        made = await get(injector, Engine)
        assert type(made) is Engine
        assert (await get(injector, Engine) is made) is (scope == "app")


async def test_instances_and_what_they_stand_for() -> None:
    engine = Engine()
    async with opened(engine, dependency("dsn", provides=Annotated[str, "dsn"])) as injector:
        assert await get(injector, Engine) is engine
        assert await get(injector, Annotated[str, "dsn"]) == "dsn"
        assert not injector.provides(str)


async def test_a_callable_instance_is_an_instance_where_it_is_one_of_what_it_provides() -> None:
    class Callable_(Engine):
        def __call__(self) -> Engine:
            return Engine()

    given = Callable_()
    async with opened(dependency(given, provides=Engine)) as injector:
        assert await get(injector, Engine) is given


def test_none_and_a_wrong_scope_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="None is no factory"):
        SvcsInjector().add(None)
    wrong: Any = "request"
    with pytest.raises(ConfigurationError, match="'app', 'job'"):
        dependency(plain, scope=wrong)


@dataclass
class ByDataclass:
    engine: Engine


@attrs.define
class ByAttrs:
    _engine: Engine


class ByInit:
    def __init__(self, engine: Engine, size: int = 3) -> None:
        self.engine = engine
        self.size = size


@pytest.mark.parametrize("kind", [ByDataclass, ByAttrs, ByInit])
async def test_classes_get_what_their_constructors_ask_for(kind: type[Any]) -> None:
    async with opened(kind, plain) as injector:
        assert list(injector.problems()) == []
        made = await get(injector, kind)
        assert getattr(made, "engine", None) or made._engine is await get(injector, Engine)


async def test_annotated_tells_two_of_a_kind_apart() -> None:
    def first() -> Annotated[str, "first"]:
        return "1"

    def second() -> Annotated[str, "second"]:
        return "2"

    def both(one: Annotated[str, "first"], two: Annotated[str, "second"], /) -> Engine:
        engine = Engine()
        engine.names = one + two  # type: ignore[attr-defined]
        return engine

    async with opened(first, second, both) as injector:
        assert list(injector.problems()) == []
        assert (await get(injector, Engine)).names == "12"


async def test_only_the_exact_type_counts() -> None:
    class Special(Engine):
        pass

    async with opened(Special) as injector:
        assert injector.provides(Special)
        assert not injector.provides(Engine)
        assert not injector.provides([])
        with pytest.raises(MissingDependency, match="Engine"):
            await get(injector, Engine)


# Sharing


async def test_app_scope_is_made_once_even_when_many_ask_at_once() -> None:
    made = []
    go = asyncio.Event()

    async def slow() -> Engine:
        made.append(1)
        await go.wait()
        return Engine()

    async with opened(slow) as injector:
        asking = [asyncio.create_task(get(injector, Engine)) for _ in range(50)]
        while not made:
            await asyncio.sleep(0)
        # The one that asked first goes away; what it asked for is made all the same.
        asking[0].cancel()
        await asyncio.sleep(0)
        go.set()
        results = await asyncio.gather(*asking, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert len({id(result) for result in results[1:]}) == 1
        assert made == [1]


async def test_a_failed_creation_is_not_kept() -> None:
    tries = []

    def flaky() -> Engine:
        tries.append(1)
        if len(tries) == 1:
            raise OSError("not yet")
        return Engine()

    async with opened(flaky) as injector:
        with pytest.raises(OSError, match="not yet"):
            await get(injector, Engine)
        assert type(await get(injector, Engine)) is Engine
        assert len(tries) == 2


async def test_job_scope_is_made_once_for_a_job() -> None:
    async with opened(dependency(Session, scope="job"), plain) as injector:
        async with injector.job_scope(a_context()) as scope:
            session = await scope.get(Session)
            assert await scope.get(Session) is session
            assert session.engine is None  # `Engine | None` is a type of its own, and optional
        assert await get(injector, Session) is not session


async def test_job_scoped_factories_get_the_job() -> None:
    def of_job(context: Context, message: Message) -> Session:
        session = Session()
        session.job = (context.id, message.id)  # type: ignore[attr-defined]
        return session

    async with opened(dependency(of_job, scope="job")) as injector, injector.job_scope(a_context("j7")) as scope:
        assert (await scope.get(Session)).job == ("j7", "j7")
        assert (await scope.get(Context)).id == "j7"


async def test_what_is_shared_does_not_carry_the_context_of_who_asked_first() -> None:
    who = contextvars.ContextVar("who", default="app")

    def engine() -> Engine:
        made = Engine()
        made.who = who.get()  # type: ignore[attr-defined]
        return made

    async with opened(engine) as injector:
        who.set("job 1")
        assert (await get(injector, Engine)).who == "app"


async def test_an_inject_default_is_filled_and_another_stands_where_nobody_provides() -> None:
    class Service:
        def __init__(self, engine: Engine = inject(), size: Session = "none") -> None:  # type: ignore[assignment]
            self.engine, self.size = engine, size

    async with opened(Service, plain) as injector:
        assert list(injector.problems()) == []
        made = await get(injector, Service)
        assert type(made.engine) is Engine
        assert made.size == "none"


# Tearing down


async def test_teardown_is_in_reverse_order_in_both_scopes() -> None:
    seen: list[str] = []

    async def engine() -> AsyncIterator[Engine]:
        seen.append("engine up")
        yield Engine()
        seen.append("engine down")

    def session(engine: Engine) -> Iterator[Session]:
        seen.append("session up")
        yield Session(engine)
        seen.append("session down")

    async def name(session: Session) -> AsyncIterator[str]:
        seen.append("name up")
        yield "name"
        seen.append("name down")

    async def second(engine: Engine) -> AsyncIterator[int]:
        seen.append("second up")
        yield 2
        seen.append("second down")

    factories = (engine, dependency(session, scope="job"), dependency(name, scope="job"), second)
    async with opened(*factories) as injector:
        assert await get(injector, str) == "name"
        assert seen == ["engine up", "session up", "name up", "name down", "session down"]
        assert await get(injector, int) == 2
    assert seen[5:] == ["second up", "second down", "engine down"]


async def test_generators_are_told_about_the_error_and_cannot_hide_it() -> None:
    told: list[str] = []

    async def forgiving() -> AsyncIterator[Engine]:
        try:
            yield Engine()
        except ValueError as error:
            told.append(f"forgiving {error}")

    def strict() -> Iterator[Session]:
        try:
            yield Session()
        except ValueError as error:
            told.append(f"strict {error}")
            raise

    async with opened(dependency(forgiving, scope="job"), dependency(strict, scope="job")) as injector:
        with pytest.raises(ValueError, match="boom"):
            await run_job(injector, Engine, Session, fails=ValueError("boom"))
    assert told == ["strict boom", "forgiving boom"]


async def test_a_cancelled_job_is_torn_down_too() -> None:
    told: list[str] = []
    inside = asyncio.Event()

    async def session() -> AsyncIterator[Session]:
        try:
            yield Session()
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    async with opened(dependency(session, scope="job")) as injector:

        async def job() -> None:
            async with injector.job_scope(a_context()) as scope:
                await scope.get(Session)
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(job())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert told == ["cancelled"]


async def test_a_failing_teardown_fails_the_job_but_not_one_that_has_failed() -> None:
    down: list[str] = []

    def commit() -> Iterator[Session]:
        yield Session()
        raise OSError("commit refused")

    def first() -> Iterator[Engine]:
        try:
            yield Engine()
        finally:
            down.append("engine")

    def broken() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise OSError("rollback refused")

    job = "job"
    async with opened(*(dependency(one, scope=job) for one in (commit, first, broken))) as injector:  # type: ignore[arg-type]
        with pytest.raises(OSError, match="commit refused"):
            await run_job(injector, Engine, Session)
        assert down == ["engine"]
        with pytest.raises(ValueError, match="boom") as caught:
            await run_job(injector, int, fails=ValueError("boom"))
        assert "rollback refused" in caught.value.__notes__[0]


async def test_app_scope_is_entered_and_left_in_one_task() -> None:
    tasks: list[Any] = []

    async def engine() -> AsyncIterator[Engine]:
        tasks.append(asyncio.current_task())
        async with asyncio.timeout(60):  # cannot be left in another task
            yield Engine()
        tasks.append(asyncio.current_task())

    async with opened(engine) as injector:
        await asyncio.gather(*(get(injector, Engine) for _ in range(3)))
    assert len(tasks) == 2
    assert tasks[0] is tasks[1]


async def test_a_failing_teardown_of_the_app_is_logged_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    down: list[str] = []

    def engine() -> Iterator[Engine]:
        yield Engine()
        down.append("engine")

    def session(engine: Engine) -> Iterator[Session]:
        yield Session()
        raise OSError("no")

    async with opened(engine, session) as injector:
        await get(injector, Session)
    assert down == ["engine"]
    assert "session" in caplog.text


async def test_exits_in_factories_do_not_stop_the_loop() -> None:
    def leaves() -> Engine:
        sys.exit("bye")

    async def cancels() -> Session:
        raise asyncio.CancelledError

    async with opened(leaves, dependency(cancels, scope="job")) as injector:
        with pytest.raises(TaskExit, match="bye"):
            await get(injector, Engine)
        with pytest.raises(TaskExit):
            await get(injector, Session)


async def test_closing_ends_what_is_being_made_and_may_be_repeated() -> None:
    begun = asyncio.Event()

    async def never() -> AsyncIterator[Engine]:
        begun.set()
        await asyncio.Event().wait()
        yield Engine()

    injector = SvcsInjector()
    injector.add(never)
    await injector.open()
    asking = asyncio.create_task(get(injector, Engine))
    await begun.wait()
    await injector.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await injector.close()


async def test_two_who_opened_it_share_until_the_last_closes() -> None:
    down: list[str] = []

    def engine() -> Iterator[Engine]:
        yield Engine()
        down.append("engine")

    async with opened(engine) as injector:
        made = await get(injector, Engine)
        await injector.open()
        await injector.close()
        assert down == []
        assert await get(injector, Engine) is made
    assert down == ["engine"]


# Overriding


async def test_override_replaces_also_for_what_was_made_from_the_original() -> None:
    class Service:
        def __init__(self, engine: Engine) -> None:
            self.engine = engine

    fake = Engine()
    async with opened(Engine, Service, dependency(Session, scope="job")) as injector:
        service = await get(injector, Service)
        undo = injector.override({Engine: lambda: fake})
        assert await get(injector, Engine) is fake
        assert (await get(injector, Service)).engine is fake
        undo_more = injector.override({Session: lambda: "a session", int: lambda: 5})
        assert await get(injector, Session) == "a session"
        assert await get(injector, int) == 5
        assert await get(injector, Engine) is fake
        undo()
        assert await get(injector, Service) is service
        assert await get(injector, Session) == "a session"
        undo_more()
        undo_more()
        assert not injector.provides(int)
        assert isinstance(await get(injector, Session), Session)


# Problems


def problems(*factories: Any) -> str:
    injector = SvcsInjector()
    for factory in factories:
        injector.add(factory)
    found = list(injector.problems())
    assert len(found) == 1, found
    return found[0]


def test_a_missing_type_is_a_problem() -> None:
    def session(engine: Engine) -> Session:
        return Session(engine)

    text = problems(session)
    assert "session: nobody provides Engine for its parameter 'engine'" in text
    assert "Camora(dependencies=[…])" in text


def test_a_relative_of_a_missing_type_is_pointed_out() -> None:
    class Special(Engine):
        pass

    def session(engine: Engine) -> Session:
        return Session(engine)

    assert "dependency(Special, provides=Engine)" in problems(session, Special)


def test_a_factory_without_return_annotation_is_a_problem() -> None:
    def unsaid():  # type: ignore[no-untyped-def]
        return Engine()

    assert "unsaid does not say what it provides" in problems(unsaid)


def test_a_parameter_without_annotation_is_a_problem() -> None:
    def unsaid(engine) -> Session:  # type: ignore[no-untyped-def]
        return Session(engine)

    assert "'engine' has no annotation" in problems(unsaid)


def test_an_annotation_that_cannot_be_resolved_is_a_problem() -> None:
    def unsaid() -> Nowhere:  # type: ignore[name-defined]  # noqa: F821
        return Engine()

    assert "'Nowhere' is not defined" in problems(unsaid)


def test_two_factories_for_one_type_are_a_problem() -> None:
    text = problems(plain, asynchronous)
    assert "plain" in text
    assert "asynchronous both provide Engine" in text


def test_a_circle_is_a_problem() -> None:
    def engine(session: Session) -> Engine:
        return Engine()

    def session(engine: Engine) -> Session:
        return Session(engine)

    assert "a circle" in problems(engine, session)


@pytest.mark.parametrize("kind", [Session, Context, Message])
def test_an_app_scoped_factory_cannot_ask_for_what_belongs_to_a_job(kind: Any) -> None:
    def service(wanted: Any) -> Engine:
        return Engine()

    service.__annotations__["wanted"] = kind
    text = problems(service, dependency(Session, scope="job"))
    assert "belongs to one job" in text
    assert 'dependency(service, scope="job")' in text


def test_types_without_a_hash_are_a_problem() -> None:
    def service(wanted: Annotated[int, []]) -> Engine:
        return Engine()

    assert "no hash" in problems(service)
    assert "no hash" in problems(dependency(Engine, provides=[]))


def test_svcs_is_not_imported_before_it_is_used() -> None:
    code = "import sys, camora, camora.builtin.injector; sys.exit('svcs' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
