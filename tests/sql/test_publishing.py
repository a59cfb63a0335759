"""Publishing: what ids and keys that clash come to, and what somebody's open transaction keeps up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from camora import Camora
from camora.interfaces.broker import ConsumerSettings
from camora.outcome import Action, DeadLetter, Settlement
from camora_sql.broker import SqlBroker
from sqlalchemy import create_engine, event
from sqlalchemy.ext.asyncio import async_scoped_session, async_sessionmaker, create_async_engine

from tests.servers import mariadb
from tests.servers.fixtures import shared_postgres
from tests.sql.databases import new_database
from tests.sql.processes import message


@pytest.fixture
def postgres_url() -> Iterator[str]:
    with new_database() as name:
        yield shared_postgres().url_of(name)


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SqlBroker]:
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    else:
        url = f"sqlite:///{tmp_path}/camora.db" if request.param == "sqlite" else mariadb.fresh_url()
    made = SqlBroker(url)
    await made.open()
    yield made
    await made.close()


async def end_all(broker: SqlBroker) -> list[str]:
    """Take and acknowledge everything; the ids."""
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="w"))
    taken = await consumer.receive(100, 0.0)
    assert all(await consumer.settle([Settlement(delivery=one, action=Action.ACK) for one in taken]))
    await consumer.close()
    return [one.id for one in taken]


async def test_of_an_id_with_two_keys_the_first_place_counts(broker: SqlBroker) -> None:
    assert await broker.publish([message("a", key="a1"), message("a", key="a2")]) == ["a", "a"]
    assert await broker.publish([message("b"), message("b", key="b2")]) == ["b", "b"]
    both = [broker.publish([message("c", key="c1")]), broker.publish([message("c", key="c2")])]
    assert await asyncio.gather(*both) == [["c"], ["c"]]
    # Somebody else has the first key, so the second place is the first that counts.
    assert await broker.publish([message("d", key="a1"), message("d", key="d2")]) == ["a", "d"]
    assert sorted(await end_all(broker)) == ["a", "b", "c", "d"]
    keys = ["a1", "a2", "b2", "c1", "c2", "d2"]
    assert await broker.publish([message(f"new {key}", key=key) for key in keys]) == [f"new {key}" for key in keys]


async def test_ids_that_are_there_already_keep_up_no_new_ones(broker: SqlBroker) -> None:
    await broker.publish([message(f"job {number}") for number in range(0, 300, 3)])
    await end_all(broker)
    await broker.publish([message(f"job {number}") for number in range(0, 300, 2)])
    await broker.publish([message(f"job {number}") for number in range(300)])
    taken = []
    while some := await end_all(broker):
        taken += some
    assert sorted(taken) == sorted(f"job {number}" for number in range(300) if number % 3)


async def test_a_key_in_an_open_transaction_keeps_up_nobody_else(postgres_url: str) -> None:
    app = Camora(postgres_url)

    @app.task
    async def work(number: int) -> int:
        return number

    async with app:
        await work.dispatch(0)
        with psycopg.connect(postgres_url) as somebody:
            somebody.execute("INSERT INTO camora_keys (key, job) VALUES ('k', 'theirs')")
            held = asyncio.create_task(work.options(key="k").dispatch(1))
            others = [work.dispatch(number) for number in range(20)]
            async with asyncio.timeout(4):
                await asyncio.gather(*others)
            assert not held.done()
            somebody.rollback()
        assert await app.broker.queues.find((await held).id) is not None


async def test_what_was_cancelled_before_its_turn_is_not_published(postgres_url: str) -> None:
    app = Camora(postgres_url)

    @app.task
    async def work(number: int) -> int:
        return number

    async with app:
        await work.dispatch(0)
        with psycopg.connect(postgres_url) as somebody:
            somebody.execute("LOCK TABLE camora_jobs IN EXCLUSIVE MODE")
            first = asyncio.create_task(work.dispatch(1))
            await _until_waiting(somebody)
            second = asyncio.create_task(work.dispatch(2))
            await asyncio.sleep(0)
            second.cancel()
            await asyncio.wait([second])
            somebody.rollback()
        await first
        await work.dispatch(3)
        assert sum((await app.broker.queues.counts())["default"].values()) == 3


async def _until_waiting(connection: psycopg.Connection[Any]) -> None:
    async with asyncio.timeout(30):
        while not connection.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall():
            await asyncio.sleep(0.005)


async def test_a_scoped_session_is_that_of_the_task_which_dispatches_many(postgres_url: str) -> None:
    app = Camora(postgres_url)

    @app.task
    async def work(number: int) -> int:
        return number

    engine = create_async_engine(postgres_url.replace("postgresql:", "postgresql+asyncpg:"))
    async with app:
        session = async_scoped_session(async_sessionmaker(engine), asyncio.current_task)
        jobs = await app.dispatch_many(work.options(connection=session).s(number) for number in range(3))
        await session.commit()
        await session.remove()
        assert all([await app.broker.queues.find(job.id) for job in jobs])
    await engine.dispose()


async def test_a_joined_dispatch_leaves_alone_what_it_has_not_stored(postgres_url: str) -> None:
    """The job of that id dies, and is requeued, in the middle of it."""
    broker = SqlBroker(postgres_url)
    await broker.open()
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="w"))
    await broker.publish([message("a")])
    [held] = await consumer.receive(1, 0.0)
    letter = DeadLetter(id="a", queue="work", body=b"x", reason="failed", error=None, deliveries=1, died=1)
    loop, steps = asyncio.get_running_loop(), []

    def now(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    engine = create_engine(postgres_url.replace("postgresql:", "postgresql+psycopg:"))

    @event.listens_for(engine, "after_cursor_execute")
    def after(*given: Any) -> None:
        if given[2].startswith("INSERT INTO") and not steps:
            steps.append(now(consumer.settle([Settlement(delivery=held, action=Action.REJECT, letter=letter)])))
            steps.append(now(broker.dead_letters.requeue("a")))

    def join() -> None:
        with engine.begin() as connection:
            asyncio.run(broker.publish_within(connection, [message("a")]))

    await asyncio.to_thread(join)
    assert steps == [[True], True]
    assert await broker.queues.find("a") is not None
    engine.dispose()
    await consumer.close()
    await broker.close()
