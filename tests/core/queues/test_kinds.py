"""Queues that are more than a name: declared anywhere, told to brokers, and refused where nobody serves them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from camora import Camora, Message, Queue
from camora.builtin.memory import MemoryBroker
from camora.errors import ConfigurationError, UnsupportedCapability
from camora.plugins import Catalog
from camora.queue import distribution_of, queue_text
from camora.testing import TestWorker
from camora_sql.broker import SqlBroker

from tests.core.queues.bus_plugin import BusBroker, BusQueue

REFUSED = (
    "queue 'bus' is a BusQueue, a kind of queue that MemoryBroker('memory://', new) does not serve: it serves Queue. "
    "Use a broker that does, or make it a plain queue"
)


def hear(app: Camora, name: str = "hear", **options: Any) -> Any:
    @app.task(name=name, **options)
    async def task() -> str:
        return "heard"

    return task


def broker_of(app: Camora) -> BusBroker:
    assert isinstance(app.broker, BusBroker)
    return app.broker


# The object itself


def test_a_queue_is_shown_as_one_would_write_it() -> None:
    assert queue_text(Queue("mail")) == "Queue('mail')"
    assert queue_text(BusQueue("bus", True, concurrency=3, rate_limit="5/s")) == (
        "BusQueue('bus', concurrency=3, rate_limit='5/s', loud=True)"
    )


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Queue("a b"), "queue name 'a b': ' ' is not allowed in it"),
        (lambda: BusQueue(""), "queue name '': must be a text of at least one character"),
        (lambda: BusQueue("bus", concurrency=0), "concurrency=0: a whole number from 1 to 1000000"),
        (lambda: Queue("mail", rate_limit="many"), "rate_limit="),
    ],
    ids=["space", "empty", "concurrency", "rate"],
)
def test_an_impossible_queue_is_refused_where_it_is_written(make: Any, text: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        make()
    assert str(error.value).startswith(text)


def test_the_distribution_that_offers_a_kind_is_found() -> None:
    assert distribution_of(SqlBroker) == "camora-sql"
    assert distribution_of(Queue) == "camora"
    assert distribution_of(BusQueue) == ""


# Declaring


async def test_a_queue_may_stand_wherever_a_name_may(bus: Camora) -> None:
    def strangers(message: Message) -> None: ...

    bus.fallback(queue=BusQueue("lost"))(strangers)
    task = hear(bus, queue=BusQueue("bus", loud=True))
    assert task.config.queue == "bus"
    assert bus.tasks.queues() == ("bus", "default", "lost")
    async with bus.worker(queues=[BusQueue("extra"), "default", Queue("mail", concurrency=2)]) as worker:
        assert sorted(worker.queues) == ["default", "extra", "mail"]
        await task.options(queue=BusQueue("spoken")).dispatch()
        await bus.options(queue=BusQueue("said")).dispatch("hear")
        await task.dispatch()
    assert [one.queue for one in broker_of(bus).published] == ["spoken", "said", "bus"]
    assert set(bus.queues) == {
        BusQueue("lost"),
        BusQueue("bus", loud=True),
        BusQueue("extra"),
        Queue("mail", concurrency=2),
        BusQueue("spoken"),
        BusQueue("said"),
    }


async def test_only_the_name_travels(bus: Camora) -> None:
    hear(bus, queue=BusQueue("bus", loud=True))
    async with bus:
        await bus.dispatch("hear")
    [envelope] = broker_of(bus).published
    assert type(envelope.queue) is str
    assert bus.codec.decode(envelope.body).queue == "bus"
    assert b"loud" not in envelope.body


async def test_a_plain_name_is_whatever_it_is_declared_as(catalog: Catalog) -> None:
    app = Camora("bus://", queues=["bus", Queue("mail", concurrency=2)], catalog=catalog)
    assert app.queues == (Queue("bus"), Queue("mail", concurrency=2))
    hear(app, queue="bus")
    hear(app, "loudly", queue=BusQueue("bus", loud=True))
    hear(app, "again", queue=BusQueue("bus", loud=True))
    assert app.queues == (BusQueue("bus", loud=True), Queue("mail", concurrency=2))
    async with app:
        assert broker_of(app).told == [app.queues]


async def test_a_declared_queue_brings_its_concurrency_and_its_rate(bus: Camora) -> None:
    hear(bus, queue=BusQueue("bus", concurrency=3))
    hear(bus, "other", queue=BusQueue("slow", rate_limit="9/s"))
    lanes = {lane.queues: lane.concurrency for lane in bus.make_worker(concurrency=7)._parts.lanes}
    assert lanes == {("default",): 7, ("bus",): 3, ("slow",): 7}


def test_two_declarations_of_one_name_that_differ_are_refused(bus: Camora) -> None:
    hear(bus, queue=BusQueue("bus"))
    with pytest.raises(ConfigurationError) as error:
        hear(bus, "loudly", queue=BusQueue("bus", loud=True))
    assert str(error.value) == (
        "queue 'bus' is declared twice: BusQueue('bus') in task 'hear', and BusQueue('bus', loud=True) in task "
        "'loudly'. Declare it once, and give its name, 'bus', elsewhere"
    )
    assert bus.tasks.get("loudly") is None
    for declare in (
        lambda: bus.fallback(queue=Queue("bus")),
        lambda: bus.make_worker(queues=[BusQueue("bus", concurrency=1)]),
    ):
        with pytest.raises(ConfigurationError, match="queue 'bus' is declared twice"):
            declare()
    with pytest.raises(ConfigurationError, match=r"Queue\('a', concurrency=1\) in Camora\(queues=\[…\]\)"):
        Camora(queues=[Queue("a", concurrency=1), Queue("a")])


async def test_a_dispatch_whose_queue_differs_from_the_declared_one_is_refused(bus: Camora) -> None:
    task = hear(bus, queue=BusQueue("bus"))
    with pytest.raises(ConfigurationError, match=r"in task 'hear', and Queue\('bus'\) in a dispatch of 'hear'"):
        await task.options(queue=Queue("bus")).dispatch()
    assert broker_of(bus).published == []
    await bus.close()


# What brokers hear


async def test_a_broker_hears_of_all_queues_before_it_is_opened_and_of_later_ones_at_once(bus: Camora) -> None:
    broker = broker_of(bus)
    hear(bus, queue=BusQueue("bus"))
    assert broker.told == []
    async with bus:
        assert broker.told == [(BusQueue("bus"),)]
        hear(bus, "late", queue=BusQueue("late"))
        assert broker.told[1:] == [(BusQueue("bus"), BusQueue("late"))]
        await bus.options(queue=BusQueue("now")).dispatch("hear")
        await bus.options(queue=BusQueue("now")).dispatch("hear")
        assert broker.told[2:] == [(BusQueue("bus"), BusQueue("late"), BusQueue("now"))]
    hear(bus, "after", queue=BusQueue("after"))
    assert len(broker.told) == 3  # it is closed


def test_twins_of_other_loops_hear_of_them_too(bus: Camora) -> None:
    hear(bus, queue=BusQueue("bus"))

    async def main() -> None:
        async with bus:
            await asyncio.to_thread(bus.dispatch_sync, "hear")
            [twin] = broker_of(bus).twins
            assert twin.told == [(BusQueue("bus"),)]
            hear(bus, "late", queue=BusQueue("late"))
            assert [one.told[-1] for one in (broker_of(bus), twin)] == [(BusQueue("bus"), BusQueue("late"))] * 2

    asyncio.run(main())


# What is refused


async def test_a_kind_that_the_broker_does_not_serve_is_refused_at_start_and_at_dispatch(plain: Camora) -> None:
    task = hear(plain, queue=BusQueue("bus"))
    with pytest.raises(UnsupportedCapability) as at_dispatch:
        await task.dispatch()
    with pytest.raises(UnsupportedCapability) as at_start:
        async with plain.worker():
            raise AssertionError("it must not start")
    with pytest.raises(UnsupportedCapability) as blocking:
        await asyncio.to_thread(task.dispatch_sync)
    assert [str(error.value) for error in (at_dispatch, at_start, blocking)] == [REFUSED] * 3
    assert at_dispatch.value.capability == "queue_kinds"
    await plain.close()


async def test_sqlite_refuses_it_too(tmp_path: Path, catalog: Catalog) -> None:
    app = Camora(f"sqlite:///{tmp_path}/jobs.db", queues=[BusQueue("bus")], catalog=catalog)
    task = hear(app)
    with pytest.raises(UnsupportedCapability, match=r"queue 'bus' is a BusQueue, .*SqlBroker\(.*does not serve"):
        await task.dispatch()
    assert not (tmp_path / "jobs.db").exists()  # refused before anything was opened


async def test_a_dispatch_into_a_transaction_is_refused_before_the_transaction_is_touched(
    tmp_path: Path, catalog: Catalog
) -> None:
    app = Camora(f"sqlite:///{tmp_path}/jobs.db", catalog=catalog)
    task = hear(app, queue=BusQueue("bus"))
    into = task.options(connection=object())
    with pytest.raises(UnsupportedCapability, match="queue 'bus' is a BusQueue"):
        await into.dispatch()
    with pytest.raises(UnsupportedCapability, match="queue 'bus' is a BusQueue"):
        into.dispatch_sync()


async def test_what_is_refused_while_the_app_runs_is_not_declared(plain: Camora) -> None:
    task = hear(plain)
    async with plain, plain.worker():
        with pytest.raises(UnsupportedCapability, match="queue 'bus' is a BusQueue"):
            hear(plain, "late", queue=BusQueue("bus"))
        with pytest.raises(UnsupportedCapability, match="queue 'now' is a BusQueue"):
            await task.options(queue=BusQueue("now")).dispatch()
        assert plain.tasks.get("late") is None
        assert plain.queues == ()
        assert await (await task.dispatch()).result(timeout=60) == "heard"


async def test_a_dispatch_to_an_unserved_kind_does_not_spoil_the_others(plain: Camora) -> None:
    task = hear(plain)
    with pytest.raises(UnsupportedCapability, match="queue 'bus' is a BusQueue"):
        await task.options(queue=BusQueue("bus")).dispatch()  # nothing is open yet
    async with plain, plain.worker():
        assert await (await task.dispatch()).result(timeout=60) == "heard"


async def test_a_test_worker_serves_every_kind(plain: Camora) -> None:
    task = hear(plain, queue=BusQueue("bus"))
    async with TestWorker(plain, queues=[BusQueue("bus")]) as worker:
        await task.dispatch()
        await worker.run_due()
        worker.assert_dispatched(task, options={"queue": "bus"})
        worker.assert_all_succeeded()
    assert isinstance(plain.broker, MemoryBroker)
    with pytest.raises(UnsupportedCapability):
        await task.dispatch()  # outside, the app's own broker counts
    await plain.close()


# Worker processes


def test_processes_are_told_names_so_a_queue_must_be_declared_elsewhere(bus: Camora) -> None:
    with pytest.raises(ConfigurationError) as error:
        bus.run(queues=[BusQueue("bus")])
    assert str(error.value) == (
        "run(queues=[…]): other processes are told the names of queues alone, and nothing declares BusQueue('bus'): "
        "give it to Camora(queues=[…]) or to a task"
    )
    hear(bus, queue=BusQueue("bus"))
    with pytest.raises(ConfigurationError, match="queue 'bus' is declared twice"):
        bus.start_processes(queues=[BusQueue("bus", loud=True)])
    assert bus._in_words({"queues": [BusQueue("bus"), "default", Queue("mail")], "burst": True}) == {
        "queues": ["bus", "default", "mail"],
        "burst": True,
    }
