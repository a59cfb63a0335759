"""Dispatching inside a transaction of the caller's own on MariaDB: it is there if and only if that one stands."""

from __future__ import annotations

import asyncio
import itertools
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import pytest
from camora import Camora, Status
from camora.errors import BrokerUnavailable, ConfigurationError, EncodeError
from camora.interfaces.broker import ConsumerSettings
from camora_sql.broker import SqlBroker
from msgspec.structs import replace
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from tests import forked
from tests.servers.mariadb import shared
from tests.sql.processes import PATIENCE, message

_numbers = itertools.count()


@pytest.fixture
def database() -> Iterator[str]:
    """The name of a database of the test's own, with a table of orders."""
    name = f"joining_{uuid4().hex[:8]}_{next(_numbers)}"
    shared().sql(f"CREATE DATABASE {name}", database="")
    shared().sql("CREATE TABLE orders (id INT PRIMARY KEY AUTO_INCREMENT, item VARCHAR(50) UNIQUE)", database=name)
    yield name
    shared().sql(f"DROP DATABASE {name}", database="")


@pytest.fixture
def url(database: str) -> str:
    return shared().url_of(database)


def named(url: str, scheme: str) -> str:
    return url.replace("mariadb:", f"{scheme}:")


# Either name may stand before either driver, whatever the server is.
@pytest.fixture(params=["mysql+pymysql", "mariadb+pymysql"])
def engine(request: pytest.FixtureRequest, url: str) -> Iterator[Engine]:
    made = create_engine(named(url, request.param))
    yield made
    made.dispose()


@pytest.fixture(params=["mysql+asyncmy", "mariadb+asyncmy"])
async def async_engine(request: pytest.FixtureRequest, url: str) -> AsyncIterator[AsyncEngine]:
    made = create_async_engine(named(url, request.param))
    yield made
    await made.dispose()


@pytest.fixture
async def broker(url: str) -> AsyncIterator[SqlBroker]:
    made = SqlBroker(url)
    await made.open()
    yield made
    await made.close()


def make_app(url: str, database: str) -> Any:
    """An app with a task that says which orders it sees."""
    app = Camora(url)

    @app.task(name="ship", execution="thread")
    def ship(item: str) -> list[str]:
        return [row[0] for row in shared().sql("SELECT item FROM orders WHERE item = %s", item, database=database)]

    return app


def order(item: str) -> Any:
    return text("INSERT INTO orders (item) VALUES (:item)").bindparams(item=item)


def state(database: str) -> tuple[list[str], int]:
    """The orders, and how many jobs there are."""
    orders = [row[0] for row in shared().sql("SELECT item FROM orders ORDER BY id", database=database)]
    [(jobs,)] = shared().sql("SELECT count(*) FROM camora_jobs", database=database)
    return orders, jobs


async def test_a_connection_and_a_session(url: str, database: str, engine: Engine) -> None:
    app = make_app(url, database)
    async with app, app.worker():
        ship = app.tasks.get("ship")
        with engine.begin() as connection:
            connection.execute(order("cup"))
            first = await ship.options(connection=connection).dispatch("cup")
            assert await first.status() is Status.UNKNOWN
        with Session(engine) as session:
            session.execute(order("pot"))
            second = await ship.options(connection=session).dispatch("pot")
            session.commit()
            third = await ship.options(connection=session).dispatch("none")
            session.rollback()
        assert [await first.result(PATIENCE), await second.result(PATIENCE)] == [["cup"], ["pot"]]
        assert await third.status() is Status.UNKNOWN


async def test_an_asynchronous_connection_and_a_session(url: str, database: str, async_engine: AsyncEngine) -> None:
    app = make_app(url, database)
    async with app, app.worker():
        ship = app.tasks.get("ship")
        async with async_engine.begin() as connection:
            await connection.execute(order("cup"))
            first = await ship.options(connection=connection).dispatch("cup")
            assert await first.status() is Status.UNKNOWN
        async with AsyncSession(async_engine) as session:
            await session.execute(order("pot"))
            second = await ship.options(connection=session).dispatch("pot")
            await session.commit()
            third = await ship.options(connection=session).dispatch("none")
            await session.rollback()
        assert [await first.result(PATIENCE), await second.result(PATIENCE)] == [["cup"], ["pot"]]
        assert await third.status() is Status.UNKNOWN


@pytest.mark.usefixtures("broker")
def test_without_an_event_loop_and_with_a_failure_afterwards(url: str, database: str, engine: Engine) -> None:
    ship = make_app(url, database).tasks.get("ship")
    with engine.begin() as connection:
        connection.execute(order("cup"))
        ship.options(connection=connection).dispatch_sync("cup")
    with pytest.raises(IntegrityError), engine.begin() as connection:
        ship.options(connection=connection).dispatch_sync("cup")
        connection.execute(order("cup"))
    assert state(database) == (["cup"], 1)


async def test_the_commit_wakes_who_waits_in_this_process(broker: SqlBroker, engine: Engine) -> None:
    """Not the dispatch, which nobody sees yet; and not only the next look, which would come, too."""
    woken: list[float] = []
    loop = asyncio.get_running_loop()
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
    receiving = asyncio.ensure_future(consumer.receive(1, PATIENCE))
    pace: Any = broker.database.dialect
    announced = pace.pace.announce
    pace.pace.announce = lambda: (woken.append(loop.time()), announced())[1]
    with engine.begin() as connection:
        await broker.publish_within(connection, [message("job")])
        assert not woken
        assert not receiving.done()
    assert woken
    assert [one.id for one in await receiving] == ["job"]
    await consumer.close()


async def test_part_of_a_transaction_that_is_undone(broker: SqlBroker, database: str, engine: Engine) -> None:
    with engine.begin() as connection:
        await broker.publish_within(connection, [message("kept")])
        inner = connection.begin_nested()
        await broker.publish_within(connection, [message("undone")])
        inner.rollback()
        # All of a batch or nothing of it, also for somebody who goes on after an error.
        with pytest.raises((EncodeError, BrokerUnavailable)):
            await broker.publish_within(connection, [message("fine"), replace(message("wrong"), queue="q" * 300)])
        assert await broker.publish_within(connection, [message("kept"), message("more")]) == ["kept", "more"]
    assert state(database) == ([], 2)


async def test_keys_are_read_as_they_are_though_the_transaction_repeats_its_reads(
    broker: SqlBroker, engine: Engine
) -> None:
    with engine.connect() as connection:
        assert connection.execute(text("SELECT @@tx_isolation")).scalar() == "REPEATABLE-READ"
        connection.execute(text("SELECT count(*) FROM camora_keys")).scalar()  # it sees what is there until now
        await broker.publish([replace(message("theirs"), key="k")])
        assert await broker.publish_within(connection, [replace(message("mine"), key="k")]) == ["theirs"]
        assert await broker.publish_within(connection, [message("theirs")]) == ["theirs"]
        connection.commit()
    assert (await broker.queues.counts())["work"] == {"ready": 1}


async def test_a_transaction_that_is_open_keeps_up_no_other(broker: SqlBroker, engine: Engine) -> None:
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
    with engine.begin() as connection:
        await broker.publish_within(connection, [message(f"mine-{number}") for number in range(10)])
        async with asyncio.timeout(4):  # less than others would wait for a lock
            await broker.publish([message(f"theirs-{number}") for number in range(10)])
            deliveries = await consumer.receive(20, 0)
            assert {one.id for one in deliveries} == {f"theirs-{number}" for number in range(10)}
    assert len(await consumer.receive(20, 1)) == 10
    await consumer.close()


@pytest.mark.usefixtures("broker")
async def test_what_cannot_be_is_refused(url: str, database: str, engine: Engine) -> None:
    app = Camora(url)

    @app.task(name="ship")
    async def ship(item: str) -> None:
        """Never run here."""

    async with app:
        other = create_engine(named(shared().url, "mysql+pymysql"))
        wrong = pytest.raises(ConfigurationError, match=f"to the database 'camora'.*{database}")
        with other.begin() as connection, wrong:
            await ship.options(connection=connection).dispatch("cup")
        other.dispose()
        committing = engine.execution_options(isolation_level="AUTOCOMMIT")
        with committing.connect() as connection, pytest.raises(ConfigurationError, match="autocommit"):
            await ship.options(connection=connection).dispatch("cup")
        with engine.connect() as connection:
            connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            with pytest.raises(ConfigurationError, match="may only read"):
                await ship.options(connection=connection).dispatch("cup")
        sqlite = create_engine("sqlite://")
        with sqlite.begin() as connection, pytest.raises(ConfigurationError, match="a connection to sqlite"):
            await ship.options(connection=connection).dispatch("cup")
        sqlite.dispose()
    assert state(database) == ([], 0)


async def test_tables_that_are_missing_are_named(url: str, engine: Engine) -> None:
    unopened = SqlBroker(url)
    missing = pytest.raises(ConfigurationError, match=r"no tables of Camora.*camora sql migrate")
    with engine.begin() as connection, missing:
        await unopened.publish_within(connection, [message("job")])


def test_many_threads_dispatch_each_in_its_transaction(url: str, database: str, engine: Engine) -> None:
    forked.run([sys.executable, "-m", "camora", "sql", "migrate", "--url", url], check=True)
    app = make_app(url, database)
    ship = app.tasks.get("ship")
    failed: list[BaseException] = []

    def dispatch(part: int) -> None:
        try:
            for number in range(10):
                with engine.connect() as connection:
                    item = f"{part}-{number}"
                    connection.execute(order(item))
                    ship.options(connection=connection).dispatch_sync(item)
                    connection.rollback() if number % 2 else connection.commit()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=dispatch, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    orders, jobs = state(database)
    assert (len(orders), jobs) == (20, 20)
