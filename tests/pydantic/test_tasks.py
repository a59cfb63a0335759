"""Models through an app: dispatched, run, returned; refused on both sides."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import pytest
from camora import BaseTask, Camora
from camora.errors import ConfigurationError, JobDiscarded, JobFailed, PayloadError
from camora_pydantic import PydanticTask
from pydantic import BaseModel, SecretStr, ValidationError

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["json", "msgpack"])
def app(request: pytest.FixtureRequest, broker_url: str, orders: ModuleType) -> Camora:
    made: Camora = orders.make_app(broker_url, request.param)
    return made


async def test_models_are_arguments_and_results(app: Camora, orders: ModuleType) -> None:
    order = orders.Order(id=1, items=[orders.Item(sku="pen", price=2.5)])
    async with app, app.worker():
        job = await app.tasks.get("total").dispatch(order, discount=0.5)
        assert await job.result(60) == orders.Receipt(order=order, total=1.25, process=os.getpid())
        job = await app.tasks.get("split").dispatch([order, order.model_copy(update={"id": 2})])
        assert await job.result(60) == {"1": order.items, "2": order.items}
        assert await app.run_now(app.tasks.get("split").s([order])) == {"1": order.items}


async def test_a_task_class_is_dispatched_as_object_as_class_and_by_name(app: Camora, orders: ModuleType) -> None:
    order = orders.Order(id=1, items=[])
    ship = orders.Ship(order=order, to=orders.Address("Main St"), times=2, password=SecretStr("hunter2"))
    expected = orders.Receipt(order=order, total=2, process=os.getpid(), address=orders.Address("Main St"))
    async with app, app.worker():
        job = await app.dispatch(ship)
        assert await job.result(60) == expected
        job = await app.dispatch(
            orders.Ship, order={"id": 1, "items": []}, to=orders.Address("Main St"), times=2, password="hunter2"
        )
        assert await job.result(60) == expected
        job = await app.dispatch("Ship", order=order, to=orders.Address("Main St"), times=2, password="hunter2")
        assert await job.result(60) == expected
        assert await app.run_now(app.tasks.get("Ship").s(ship)) == expected
        [job] = await app.dispatch_many([app.tasks.get("Ship").s(ship)])
        assert await job.result(60) == expected


async def test_a_name_is_enough_for_an_app_that_does_not_know_the_class(orders: ModuleType, tmp_path: Any) -> None:
    url = f"sqlite:///{tmp_path}/camora.db"
    here, there = Camora(url), orders.make_app(url)
    async with here, there, there.worker():
        job = await here.dispatch(
            "Booking", userId=7, since="2026-01-01T00:00:00Z", until="2026-01-01T00:01:00Z", names=["a"]
        )
        assert await job.result(60) == [7, 60.0, 1]
        job = await here.dispatch("Booking", userId=7, since="2026-01-02T00:00:00Z", until="2026-01-01T00:01:00Z")
        with pytest.raises(JobFailed, match="Booking: since is after until"):
            await job.result(60)


async def test_an_object_is_sent_as_it_is_and_made_once_where_it_runs(app: Camora, orders: ModuleType) -> None:
    booking = orders.Booking(userId=7, since=NOW, until=NOW + timedelta(minutes=1), names=("a",))
    async with app, app.worker():
        job = await app.dispatch(booking)
        assert await job.result(60) == (7, 60.0, 1)


async def test_what_the_class_refuses_is_refused_at_dispatch(app: Camora, orders: ModuleType) -> None:
    async def refused(*args: Any, **kwargs: Any) -> str:
        with pytest.raises(PayloadError) as error:
            await app.dispatch(*args, **kwargs)
        return str(error.value)

    times = {"since": NOW, "until": NOW}
    async with app:
        assert await refused("Ship", order={"id": 1, "items": [{"sku": "a", "price": 0}]}) == (
            "Ship: order.items[0].price: input should be greater than 0"
        )
        assert (await refused("Booking", **times)).startswith("Booking: userId: field required")
        assert "userId: input should be a valid integer" in await refused("Booking", userId="7", **times)
        assert "Booking: colour: extra inputs" in await refused("Booking", userId=7, colour="red", **times)
        data = {"userId": 7, "since": "2026-01-02T00:00:00Z", "until": "2026-01-03T00:00:00Z"}
        assert await app.dispatch("Booking", **data)  # as a worker would read it
        assert "since: input should be a valid datetime" in await refused("Booking", **{**data, "until": NOW})
        assert "Booking: since is after until" in await refused(
            orders.Booking, userId=7, since=NOW + timedelta(1), until=NOW
        )
        assert "takes its fields by name" in await refused("Booking", 7)
        wrong = orders.Order.model_construct(id="x", items=[])
        assert "Ship: order.id: input should be a valid integer" in await refused(
            orders.Ship.model_construct(order=wrong)
        )
    with pytest.raises(ValidationError):
        orders.Ship(order=None)


async def test_what_does_not_fit_a_model_is_dead_lettered_and_never_retried(tmp_path: Any, orders: ModuleType) -> None:
    url = f"sqlite:///{tmp_path}/camora.db"
    here, there = Camora(url), orders.make_app(url)
    async with here, there, there.worker():
        job = await here.dispatch("total", order={"id": 1, "items": [{"sku": "a", "price": -1}]})
        with pytest.raises(JobFailed, match=r"total: order\.items\[0\]\.price: input should be greater than 0"):
            await job.result(60)
        assert (await job.info()).attempts == 0  # the function was never called
        [letter] = [letter async for letter in there.dead_letters()]
        assert letter.id == job.id


async def test_a_process_of_a_pool_gets_models_and_task_objects(orders: ModuleType) -> None:
    app = orders.app  # the one that the other process can import
    order = orders.Order(id=1, items=[orders.Item(sku="pen", price=1)])
    async with app, app.worker():
        receipt = await (await app.tasks.get("pack").dispatch(order)).result(60)
        assert receipt.order == order
        assert receipt.process != os.getpid()
        total, process, clerk = await (await app.dispatch(orders.Count(numbers={1, 2}))).result(60)
        assert (total, clerk) == (3, "Ada")
        assert process != os.getpid()


async def test_signals_retries_and_options_are_as_for_any_task(app: Camora, orders: ModuleType) -> None:
    async with app, app.worker():
        job = await app.options(delay=0.01, queue="default").dispatch(orders.Refuse(why="not today"))
        with pytest.raises(JobDiscarded, match="not today"):
            await job.result(60)


def test_a_task_class_is_checked_when_it_is_registered(orders: ModuleType) -> None:
    app = Camora()
    app.register(orders.Ship, key="{times}", limit_by="{order[id]}", max_concurrency=1)
    with pytest.raises(ConfigurationError, match="no parameter is called 'tiems': did you mean 'times'"):
        Camora().register(orders.Ship, key="{tiems}")

    class Nothing(PydanticTask):
        x: int

    with pytest.raises(ConfigurationError, match="Nothing has no execute method"):
        app.register(Nothing)

    class Model(BaseModel):
        async def execute(self) -> None: ...

    with pytest.raises(ConfigurationError, match="Model is no task"):
        app.register(Model)


async def test_a_key_is_made_of_fields(broker_url: str, orders: ModuleType) -> None:
    app = orders.make_app(broker_url)

    class Keyed(PydanticTask):
        order: orders.Order  # type: ignore[name-defined]

        async def execute(self) -> None: ...

    app.register(Keyed, key="order-{order[id]}")
    async with app:
        one = await app.dispatch(Keyed(order=orders.Order(id=1, items=[])))
        same = await app.dispatch(Keyed, order={"id": 1, "items": []})
        other = await app.dispatch(Keyed(order=orders.Order(id=2, items=[])))
        assert one.id == same.id != other.id


def test_a_task_class_is_a_model_like_any_other(orders: ModuleType) -> None:
    ship = orders.Ship(order=orders.Order(id=1, items=[]))
    assert isinstance(ship, BaseTask)
    assert "hunter2" not in repr(ship.model_copy(update={"password": SecretStr("hunter2")}))
    assert set(orders.Ship.model_fields) == {"order", "to", "times", "password"}
    assert orders.Booking.model_validate({"userId": 1, "since": NOW, "until": NOW}).user_id == 1
    assert "itself" not in orders.Refuse.model_json_schema()["properties"]


class Base(PydanticTask):
    name: str

    async def execute(self) -> str:
        return f"{type(self).__name__} {self.name}"


class Derived(Base):
    times: int = 2


async def test_task_classes_inherit_fields_and_execute() -> None:
    app = Camora()
    app.register(Derived)
    async with app, app.worker():
        assert await (await app.dispatch(Derived(name="a"))).result(60) == "Derived a"


async def test_without_its_plugin_a_task_class_cannot_be_used() -> None:
    from camora import plugins

    app = Camora(catalog=plugins.load(disable=["camora-pydantic"]))
    app.register(Base)
    async with app:
        with pytest.raises(ConfigurationError, match="no plugin knows how a Base travels"):
            await app.dispatch(Base(name="a"))


async def test_without_its_plugin_a_model_is_no_argument_and_the_error_says_what_to_install(orders: ModuleType) -> None:
    from camora import plugins

    app = Camora(catalog=plugins.load(disable=["camora-pydantic"]))
    task = app.register(orders.total, name="total")
    async with app:
        with pytest.raises(PayloadError, match="order: Order is no type that travels"):
            await task.dispatch(order=orders.Order(id=1, items=[]))
        with pytest.raises(ConfigurationError, match="pip install camora-pydantic"):
            async with app.worker():
                pass


async def test_an_object_is_dispatched_by_an_app_that_does_not_know_its_class(
    orders: ModuleType, tmp_path: Any
) -> None:
    url = f"sqlite:///{tmp_path}/camora.db"
    here, there = Camora(url), orders.make_app(url)
    async with here, there, there.worker():
        job = await here.dispatch(orders.Ship(order=orders.Order(id=1, items=[]), password=SecretStr("hunter2")))
        assert (await job.result(60))["total"] == 1
