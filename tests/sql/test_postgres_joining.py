"""Dispatching inside a transaction of the caller's own on PostgreSQL: it is there if and only if that one stands."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psycopg
import pytest
from camora import Camora, Status
from camora.errors import BrokerUnavailable, ConfigurationError, EncodeError
from camora.interfaces.broker import ConsumerSettings
from camora.message import Envelope
from camora.outcome import Action, Settlement
from camora_sql.broker import SqlBroker
from camora_sql.listening import ListeningWakeups
from camora_sql.schema import HEAD
from camora_sql.wakeup import Topic
from msgspec.structs import replace
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from tests import forked
from tests.servers.fixtures import shared_postgres
from tests.sql.databases import new_database
from tests.sql.processes import PATIENCE, message


@pytest.fixture
def database() -> Iterator[str]:
    """The name of a database of the test's own, with a table of orders."""
    with new_database() as name:
        shared_postgres().sql(
            "CREATE TABLE orders (id int GENERATED ALWAYS AS IDENTITY, item text UNIQUE DEFERRABLE INITIALLY DEFERRED)",
            database=name,
        )
        yield name


@pytest.fixture
def url(database: str) -> str:
    return shared_postgres().url_of(database)


def named(url: str, driver: str) -> str:
    return url.replace("postgresql:", f"postgresql+{driver}:")


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    made = create_engine(named(url, "psycopg"))
    yield made
    made.dispose()


@pytest.fixture(params=["asyncpg", "psycopg"])
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


def make_app(url: str) -> Any:
    """An app with a task that says which orders it sees."""
    app = Camora(url)

    @app.task(name="ship", execution="thread")
    def ship(item: str) -> list[str]:
        with psycopg.connect(url) as connection:
            return [row[0] for row in connection.execute("SELECT item FROM orders WHERE item = %s", [item])]

    return app


def order(item: str) -> Any:
    return text("INSERT INTO orders (item) VALUES (:item)").bindparams(item=item)


def state(url: str) -> tuple[list[str], int]:
    """The orders, and how many jobs there are."""
    with psycopg.connect(url) as connection:
        orders = [row[0] for row in connection.execute("SELECT item FROM orders ORDER BY id")]
        [(jobs,)] = connection.execute("SELECT count(*) FROM camora_jobs").fetchall()
    return orders, jobs


# Every kind of connection and session


async def test_a_connection_and_a_session(url: str, engine: Engine) -> None:
    app = make_app(url)
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


async def test_an_asynchronous_connection_and_session(url: str, async_engine: AsyncEngine) -> None:
    app = make_app(url)
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


def test_a_connection_without_an_event_loop(url: str, engine: Engine) -> None:
    forked.run([sys.executable, "-m", "camora", "sql", "migrate", "--url", url], check=True)
    app = make_app(url)
    ship = app.tasks.get("ship")
    with engine.begin() as connection:
        connection.execute(order("cup"))
        ship.options(connection=connection).dispatch_sync("cup")
    with engine.connect() as connection:
        connection.execute(order("never"))
        ship.options(connection=connection).dispatch_sync("never")
    assert state(url) == (["cup"], 1)
    app.close_sync()


# Together or not at all


async def test_rolled_back_it_never_existed(url: str, engine: Engine, broker: SqlBroker) -> None:
    with engine.connect() as connection:
        connection.execute(order("cup"))
        assert await broker.publish_within(connection, [message("one", key="cup")]) == ["one"]
        connection.rollback()
        assert state(url) == ([], 0)
        # Neither its id nor its key is taken.
        assert await broker.publish_within(connection, [message("one")]) == ["one"]
        assert await broker.publish_within(connection, [message("two", key="cup")]) == ["two"]
        connection.commit()
    assert await broker.queues.counts() == {"work": {"ready": 2}}


async def test_nobody_else_sees_it_before_the_commit(engine: Engine, broker: SqlBroker) -> None:
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
    with engine.begin() as connection:
        await broker.publish_within(connection, [message("one")])
        assert await broker.queues.find("one") is None
        assert not await consumer.receive(1, 0.0)
    assert [one.id for one in await consumer.receive(1, 0.0)] == ["one"]
    await consumer.close()


async def test_savepoints(engine: Engine, async_engine: AsyncEngine, broker: SqlBroker) -> None:
    with engine.begin() as connection:
        await broker.publish_within(connection, [message("kept")])
        with connection.begin_nested() as savepoint:
            connection.execute(order("gone"))
            await broker.publish_within(connection, [message("gone")])
            savepoint.rollback()
    async with AsyncSession(async_engine) as session:
        async with session.begin_nested():
            await broker.publish_within(session, [message("of a session")])
        nested = await session.begin_nested()
        await broker.publish_within(session, [message("gone of a session")])
        await nested.rollback()
        await session.commit()
    found = {name: await broker.queues.find(name) for name in ("kept", "gone", "of a session", "gone of a session")}
    assert {name for name, one in found.items() if one is not None} == {"kept", "of a session"}


async def test_many_in_one_transaction_with_all_that_a_message_may_have(engine: Engine, broker: SqlBroker) -> None:
    await broker.publish([message("there"), message("holder", key="taken")])
    envelopes = [replace(message(f"job-{number:03}"), body=bytes([number % 256])) for number in range(300)]
    special = [
        message("there"),
        message("second", key="taken"),
        message("first", key="free"),
        message("again", key="free"),
        message("later", due=4_000_000_000_000, priority=9, expires=4_000_000_000_001),
    ]
    with engine.begin() as connection:
        answers = await broker.publish_within(connection, [*envelopes, *special])
    assert answers == [*(one.id for one in envelopes), "there", "holder", "first", "first", "later"]
    assert await broker.queues.counts() == {"work": {"ready": 303, "scheduled": 1}}


async def test_what_has_ended_is_known_within_a_transaction_too(engine: Engine, broker: SqlBroker) -> None:
    await broker.publish([message("ended")])
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
    [one] = await consumer.receive(1, PATIENCE)
    assert list(await consumer.settle([Settlement(delivery=one, action=Action.ACK)])) == [True]
    with engine.begin() as connection:
        assert await broker.publish_within(connection, [message("ended")]) == ["ended"]
    assert await broker.queues.counts() in ({}, {"work": {}})
    await consumer.close()


async def test_an_error_leaves_nothing_of_a_batch_in_a_transaction_that_goes_on(
    url: str, engine: Engine, async_engine: AsyncEngine, broker: SqlBroker
) -> None:
    bad = replace(message("bad"), priority=2**80)
    with engine.begin() as connection:
        connection.execute(order("cup"))
        with pytest.raises((EncodeError, BrokerUnavailable)):
            await broker.publish_within(connection, [message("good", key="k"), bad])
        assert await broker.publish_within(connection, [message("better", key="k")]) == ["better"]
    async with async_engine.begin() as asynchronous:
        await asynchronous.execute(order("pot"))
        with pytest.raises((EncodeError, BrokerUnavailable)):
            await broker.publish_within(asynchronous, [message("good", key="l"), bad])
        assert await broker.publish_within(asynchronous, [message("best", key="l")]) == ["best"]
    assert state(url) == (["cup", "pot"], 2)


async def test_a_commit_that_the_database_refuses_leaves_no_job(url: str, engine: Engine, broker: SqlBroker) -> None:
    with engine.connect() as connection:
        connection.execute(order("cup"))
        connection.execute(order("cup"))  # looked at with the commit
        await broker.publish_within(connection, [message("one")])
        with pytest.raises(IntegrityError):
            connection.commit()
        connection.rollback()
    assert state(url) == ([], 0)


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
async def test_every_level_of_isolation(url: str, engine: Engine, broker: SqlBroker, level: Any) -> None:
    with engine.connect().execution_options(isolation_level=level) as connection:
        connection.execute(order("cup"))
        await broker.publish([message("meanwhile", key="m")])
        assert await broker.publish_within(connection, [message("one", key="k")]) == ["one"]
        connection.commit()
    assert state(url) == (["cup"], 2)


async def test_a_key_that_an_open_transaction_holds_is_waited_for(engine: Engine, broker: SqlBroker) -> None:
    """Of two who want a key, one gets it: which, is known at the end of the first one's transaction."""
    for end, holder in (("rollback", "second"), ("commit", "first")):
        with engine.connect() as connection:
            await broker.publish_within(connection, [message(f"first-{end}", key=end)])
            waiting = asyncio.create_task(broker.publish([message(f"second-{end}", key=end)]))
            await asyncio.sleep(0.1)
            assert not waiting.done()
            await asyncio.to_thread(getattr(connection, end))
            assert await waiting == [f"{holder}-{end}"]
    counts = await broker.queues.counts()
    assert counts == {"work": {"ready": 2}}


# Waking


@pytest.mark.parametrize("kind", ["connection", "session", "asynchronous"])
async def test_a_waiting_worker_is_woken_by_the_commit_and_not_before(
    engine: Engine, async_engine: AsyncEngine, broker: SqlBroker, kind: str
) -> None:
    woken = asyncio.Event()
    # Only announcements wake this: no clock, no look of its own.
    unsubscribe = broker._link.wakeups.subscribe(Topic.JOBS, woken.set)
    wakeups = broker._link.wakeups
    assert isinstance(wakeups, ListeningWakeups)
    async with asyncio.timeout(PATIENCE):
        while wakeups._listener is None:
            await asyncio.sleep(0.01)
    woken.clear()
    if kind == "asynchronous":
        async with async_engine.begin() as asynchronous:
            await broker.publish_within(asynchronous, [message("one")])
            await asyncio.sleep(0.1)
            assert not woken.is_set()
    elif kind == "session":
        with Session(engine) as session, session.begin():
            await broker.publish_within(session, [message("one")])
            await asyncio.sleep(0.1)
            assert not woken.is_set()
    else:
        with engine.connect() as connection:
            await broker.publish_within(connection, [message("gone")])
            connection.rollback()
            await broker.publish_within(connection, [message("one")])
            await asyncio.sleep(0.1)
            assert not woken.is_set()
            connection.commit()
    async with asyncio.timeout(PATIENCE):
        await woken.wait()
    assert await broker.queues.find("one") is not None, "woken before the commit could be seen"
    unsubscribe()


# Where it must be


async def test_another_database_is_refused_and_named(database: str, broker: SqlBroker) -> None:
    elsewhere = create_engine(named(shared_postgres().url, "psycopg"))
    with elsewhere.begin() as connection, pytest.raises(ConfigurationError) as error:
        await broker.publish_within(connection, [message("one")])
    assert "'postgres'" in str(error.value)
    assert database in str(error.value)
    elsewhere.dispose()
    lite = create_engine("sqlite://")
    with lite.begin() as connection, pytest.raises(ConfigurationError, match=f"sqlite.*{database}"):
        await broker.publish_within(connection, [message("one")])
    lite.dispose()


async def test_a_schema_and_a_prefix_of_their_own(url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("CREATE SCHEMA jobs"))
    broker = SqlBroker(f"{url}?schema=jobs&prefix=mine_")
    await broker.open()
    with engine.begin() as connection:
        connection.execute(order("cup"))
        await broker.publish_within(connection, [message("one", key="k")])
    with engine.connect().execution_options(schema_translate_map={None: "tenant"}) as connection:
        await broker.publish_within(connection, [message("two")])
        connection.commit()
        assert connection.execute(text("SELECT count(*) FROM jobs.mine_jobs")).scalar() == 2
    assert await broker.queues.counts() == {"work": {"ready": 2}}
    await broker.close()


async def test_missing_tables_and_other_revisions_are_named(url: str, engine: Engine) -> None:
    broker = SqlBroker(url)
    with engine.begin() as connection, pytest.raises(ConfigurationError, match="no tables of Camora"):
        await broker.publish_within(connection, [message("one")])
    await broker.open()
    with engine.begin() as connection:
        connection.execute(text("UPDATE camora_alembic_version SET version_num = '0001'"))
        with pytest.raises(ConfigurationError, match=rf"revision 0001.*{HEAD}.*camora sql migrate"):
            await broker.publish_within(connection, [message("one")])
        connection.rollback()
    await broker.close()


async def test_autocommit_is_refused_before_anything_is_written(
    url: str, engine: Engine, async_engine: AsyncEngine, broker: SqlBroker
) -> None:
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(ConfigurationError, match="autocommit"),
    ):
        await broker.publish_within(connection, [message("one", key="k")])
    asynchronous = await async_engine.connect()
    await asynchronous.execution_options(isolation_level="AUTOCOMMIT")
    with pytest.raises(ConfigurationError, match="autocommit"):
        await broker.publish_within(asynchronous, [message("one", key="k")])
    await asynchronous.close()
    assert state(url) == ([], 0)
    assert await broker.publish([message("two", key="k")]) == ["two"]


async def test_a_transaction_that_may_only_read_or_has_failed_is_told_so(engine: Engine, broker: SqlBroker) -> None:
    with engine.connect() as connection:
        connection.execute(text("SET TRANSACTION READ ONLY"))
        with pytest.raises(ConfigurationError, match="only read"):
            await broker.publish_within(connection, [message("one")])
        connection.rollback()
        with pytest.raises(Exception, match="no_such_table"):
            connection.execute(text("SELECT * FROM no_such_table"))
        with pytest.raises(BrokerUnavailable, match="roll it back and begin again"):
            await broker.publish_within(connection, [message("one")])
        connection.rollback()
        assert await broker.publish_within(connection, [message("one")]) == ["one"]
        connection.commit()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda engine: engine, "must be a Connection"),
        (lambda engine: _closed(engine), "closed"),
        (lambda engine: psycopg.Connection, "must be a Connection"),
    ],
    ids=["engine", "closed", "driver"],
)
async def test_what_is_no_open_connection_is_refused(
    engine: Engine, broker: SqlBroker, make: Callable[[Engine], Any], told: str
) -> None:
    with pytest.raises(ConfigurationError, match=told):
        await broker.publish_within(make(engine), [message("one")])


def _closed(engine: Engine) -> Connection:
    connection = engine.connect()
    connection.close()
    return connection


async def test_orders_and_jobs_agree_while_their_connections_are_ended(
    database: str, url: str, engine: Engine, broker: SqlBroker
) -> None:
    """Transactions end in commits, rollbacks, and in the middle: workers see the jobs of committed orders alone."""
    killed = 0

    def enqueue(number: int) -> None:
        nonlocal killed
        item = f"order-{number:03}"
        with engine.connect() as connection:
            try:
                connection.execute(order(item))
                job = Envelope(id=item, task="t", queue="work", body=b"{}")
                asyncio.run(broker.publish_within(connection, [job]))
                if number % 5 == 1:
                    pid = connection.execute(text("SELECT pg_backend_pid()")).scalar()
                    shared_postgres().sql("SELECT pg_terminate_backend(%s)", pid)
                    killed += 1
                if number % 5 == 2:
                    connection.rollback()
                else:
                    connection.commit()
            except Exception:
                connection.invalidate()

    await asyncio.gather(*(asyncio.to_thread(enqueue, number) for number in range(50)))
    assert killed == 10
    orders, jobs = state(url)
    assert len(orders) == jobs == 30
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
    taken = [one.id for one in await consumer.receive(100, PATIENCE)]
    assert sorted(taken) == sorted(orders)
    await consumer.close()
