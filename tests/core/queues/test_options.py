"""Options of tasks that plugins own: taken, checked, handed to the broker that reads them, and refused elsewhere."""

# mypy: disable-error-code="untyped-decorator, call-overload"

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import attrs
import pytest
from camora import Camora, Message, Middleware, Retry, RetryPolicy, cron, plugins
from camora.errors import ConfigurationError, PluginConflict, PluginLoadError, UnsupportedCapability
from camora.hookspecs import hookimpl
from camora.interfaces import TaskOption
from camora.plugins import Catalog
from camora.settings import Duration
from camora.testing import TestWorker

from tests.core.queues.bus_plugin import BusBroker
from tests.core.queues.conftest import source


def broker_of(app: Any) -> BusBroker:
    assert isinstance(app.broker, BusBroker)
    return app.broker


def sent(app: Any) -> list[Any]:
    return [envelope.options for envelope in broker_of(app).published]


class Quiet(Middleware):
    """Makes a dispatch chain, and changes nothing."""

    async def dispatch(self, message: Message, call_next: Any) -> Message:
        changed: Message = await call_next(message)
        return changed


@pytest.fixture(params=["direct", "chain"])
def app(request: pytest.FixtureRequest, catalog: Catalog) -> Camora:
    """Dispatching directly, and through a middleware."""
    return Camora("bus://", catalog=catalog, middleware=[Quiet()] if request.param == "chain" else [])


async def test_the_broker_gets_what_was_given_and_nothing_else(app: Any) -> None:
    @app.task(stop="north", copies=2)
    async def stopped() -> None: ...

    @app.task
    async def simple() -> None: ...

    async with app:
        await stopped.dispatch()
        await stopped.options(copies=3, delay=60).dispatch()
        await stopped.options(copies=4).options(priority=1).dispatch()
        await stopped.s().options(copies=5).dispatch()
        await app.options(copies=6).dispatch(stopped)
        await app.options(copies=7).dispatch(stopped.options(priority=2).s())
        await app.options(copies=7).dispatch(stopped.options(copies=8).s())
        await app.options(copies=9).dispatch("unknown-here")
        await stopped.options(copies=None).dispatch()
        await simple.dispatch()
        await simple.options(priority=1).dispatch()
        await simple.options(copies=1).dispatch()
        await app.dispatch_many([stopped.s(), simple.s(), stopped.options(copies=5).s()])
    north = {"stop": "north"}
    assert sent(app) == [
        {**north, "copies": 2},
        *({**north, "copies": copies} for copies in (3, 4, 5, 6, 7, 8)),
        {"copies": 9},
        {**north, "copies": 2},
        None,
        None,
        {"copies": 1},
        {**north, "copies": 2},
        None,
        {**north, "copies": 5},
    ]


async def test_they_do_not_travel_in_the_message(app: Any) -> None:
    @app.task(stop="northwards")
    async def stopped() -> None: ...

    async with app:
        await stopped.options(copies=77).dispatch()
    [envelope] = broker_of(app).published
    assert b"northwards" not in envelope.body
    assert b"copies" not in envelope.body
    assert "northwards" not in repr(envelope)


async def test_a_retry_has_those_of_the_task_and_not_those_of_the_dispatch(bus: Any) -> None:
    tries = 0

    @bus.task(stop="north", retry_policy=RetryPolicy(max_tries=3))
    async def fails_once() -> str:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise Retry
        return "done"

    @bus.task(retry_policy=RetryPolicy(max_tries=3))
    async def fails_too() -> str:
        if tries < 3:
            await fails_once.function()
            raise Retry
        return "done"

    async with bus, bus.worker():
        job = await fails_once.options(copies=3).dispatch()
        assert await job.result(timeout=60) == "done"
        assert [envelope.options for envelope in broker_of(bus).retried] == [{"stop": "north"}]
        other = await fails_too.options(copies=3).dispatch()
        assert await other.result(timeout=60) == "done"
        assert [envelope.options for envelope in broker_of(bus).retried[1:]] == [None]


async def test_a_schedule_sends_those_of_the_task(app: Any) -> None:
    @app.task(stop="north")
    async def stopped() -> None: ...

    app.schedule("daily", stopped, cron("0 9 * * *"))
    async with app:
        await app.schedules.sync()
        await app.schedules.run_now("daily")
    assert sent(app) == [{"stop": "north"}]


async def test_a_schedule_refuses_those_of_one_dispatch(bus: Any) -> None:
    @bus.task(name="stopped")
    async def stopped() -> None: ...

    bus.schedule("daily", stopped.options(copies=3).s(), cron("0 9 * * *"))
    async with bus:
        with pytest.raises(ConfigurationError) as error:
            await bus.schedules.sync()
    assert str(error.value) == (
        "stopped: 'copies' is for one dispatch, and a schedule's jobs are sent later: give it to the task, "
        "@app.task(copies=…)"
    )


# What is refused


async def function() -> None: ...


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"copies": 0}, "task 'f': copies=0: expected 1 or more, found 0"),
        ({"copies": "two"}, "task 'f': copies='two': expected a whole number, found 'two'"),
        ({"copies": True}, "task 'f': copies=True: expected a whole number, found True"),
        ({"copeis": 1}, "task 'f': unknown option 'copeis': did you mean 'copies'?"),
        ({"owned": {}}, "task 'f': unknown option 'owned': "),
        ({"copies": 1, "timout": 3}, "task 'f': unknown option 'timout': did you mean 'timeout'?"),
    ],
    ids=["check", "type", "truth", "misspelt", "internal", "beside"],
)
def test_what_an_option_cannot_be_is_refused_at_the_task(bus: Any, options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        bus.task(name="f", **options)(function)
    assert str(error.value).startswith(text)
    assert not bus.tasks.by_name


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"copies": -1}, "f: copies=-1: expected 1 or more, found -1"),
        ({"stop": "south"}, "f: 'stop' is an option of tasks, not of a dispatch: @app.task(stop=…)"),
        ({"copeis": 1}, "f: unknown option 'copeis': did you mean 'copies'?"),
        ({"owned": {"copies": 1}}, "f: unknown option 'owned': "),
        ({"exchange": "x"}, "f: unknown option 'exchange': known are queue, "),
    ],
    ids=["check", "of-tasks", "misspelt", "internal", "stray"],
)
def test_what_an_option_cannot_be_is_refused_at_a_dispatch(bus: Any, options: dict[str, Any], text: str) -> None:
    task = bus.task(name="f")(function)
    for give in (task.options, task.options(priority=1).options, task.s().options):
        with pytest.raises(ConfigurationError) as error:
            give(**options)
        assert str(error.value).startswith(text)


def test_a_stray_option_asks_for_its_plugin() -> None:
    app = Camora(catalog=plugins.load(plugins.discover({}), disable=["camora-redis"]))
    with pytest.raises(ConfigurationError, match="unknown option 'zzz': known are .*; did you forget a plugin"):
        app.task(name="f", zzz=1)(function)


async def test_a_broker_that_does_not_read_an_option_refuses_it_at_start_and_at_dispatch(plain: Any) -> None:
    task = plain.task(name="f", copies=2)(function)
    text = (
        "MemoryBroker('memory://', new) does not know the option 'copies': it has no options of its own. Leave it out, "
        "or use the broker that it belongs to"
    )
    with pytest.raises(UnsupportedCapability) as at_dispatch:
        await task.dispatch()
    with pytest.raises(UnsupportedCapability) as many:
        await plain.dispatch_many([task.s()])
    with pytest.raises(UnsupportedCapability) as at_start:
        async with plain.worker():
            raise AssertionError("it must not start")
    assert [str(error.value) for error in (at_dispatch, many)] == [f"f: {text}"] * 2
    assert str(at_start.value) == f"task 'f': {text}"
    assert at_start.value.capability == "task_options"
    await plain.close()


async def test_an_option_of_one_dispatch_that_the_broker_does_not_read_is_refused(plain: Any) -> None:
    task = plain.task(name="f")(function)
    async with plain, plain.worker():
        with pytest.raises(UnsupportedCapability, match="does not know the option 'copies'"):
            await task.options(copies=1).dispatch()
        with pytest.raises(UnsupportedCapability, match="does not know the option 'copies'"):
            plain.task(name="late", copies=1)(function)
        assert plain.tasks.get("late") is None
        await (await task.dispatch()).result(timeout=60)


def test_a_fallback_has_none(bus: Any) -> None:
    def strangers(message: Message) -> None: ...

    with pytest.raises(ConfigurationError, match="'stop' says how jobs are sent; a fallback only gets them"):
        bus.fallback(queue="lost", stop="north")(strangers)


async def test_a_test_worker_takes_them_and_tells_of_them(plain: Any) -> None:
    task = plain.task(name="f", stop="north")(function)
    async with TestWorker(plain) as worker:
        await task.options(copies=2).dispatch()
        worker.assert_dispatched(task, options={"stop": "north", "copies": 2})
        await worker.run_due()
        worker.assert_all_succeeded()


# What a plugin may offer


@attrs.frozen
class Route:
    """Where to, and how."""

    key: str
    hops: int = 1


def options_of(*offered: Any) -> SimpleNamespace:
    return SimpleNamespace(camora_task_options=hookimpl(lambda: list(offered)))


def loaded(*modules: Any) -> Catalog:
    return plugins.load([source(module, f"p{number}", f"camora-p{number}") for number, module in enumerate(modules)])


def test_the_type_of_an_option_is_that_of_a_setting() -> None:
    pause, stop = TaskOption("pause", Duration), TaskOption("stop", Route | None)
    assert pause.checked("2m") == 120.0
    assert pause.checked(pause.checked("2m")) == 120.0
    assert stop.checked({"key": "north"}) == Route("north")
    assert TaskOption("stop", Route).checked(Route("north", 2)) == Route("north", 2)
    with pytest.raises(ValueError, match="expected a duration"):
        pause.checked("soon")
    with pytest.raises(ValueError, match="unknown setting 'kye': did you mean 'key'"):
        stop.checked({"kye": "north"})


@pytest.mark.parametrize("name", ["queue", "delay", "job_id", "name", "owned"])
def test_an_option_of_the_core_cannot_be_offered(name: str) -> None:
    with pytest.raises(PluginLoadError) as error:
        loaded(options_of(TaskOption(name, str)))
    assert str(error.value) == (
        f"plugin p0 (camora-p0 1.0): camora_task_options: the option {name!r} is the core's own; give yours another "
        "name"
    )


def test_two_plugins_cannot_offer_the_same_option() -> None:
    with pytest.raises(PluginConflict, match="both offer the name 'copies'"):
        loaded(options_of(TaskOption("copies", int)), options_of(TaskOption("copies", str)))


def test_what_is_no_option_is_refused() -> None:
    with pytest.raises(PluginLoadError, match="camora_task_options returned a list with 'copies', expected TaskOption"):
        loaded(options_of("copies"))
    with pytest.raises(ConfigurationError, match="task option 'wait-replicas': its name must be one that a keyword"):
        TaskOption("wait-replicas", int)


def test_loading_notes_who_offers_an_option(catalog: Catalog) -> None:
    assert catalog.owners["camora_task_options", "name copies"] == "bus (camora-bus 1.0)"
    [info] = [info for info in catalog.plugins if info.name == "bus"]
    assert info.provides["camora_task_options"] == ("copies", "stop")
    assert info.provides["camora_queue_kinds"] == ("bus",)
