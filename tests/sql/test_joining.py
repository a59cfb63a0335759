"""Dispatching inside a transaction of the caller's own: it exists if and only if that transaction does."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from camora import Camora, Job, Middleware, Status
from camora.errors import BrokerUnavailable, ConfigurationError, EncodeError, UnsupportedCapability
from camora.interfaces.broker import ConsumerSettings
from camora_sql.broker import SqlBroker
from camora_sql.schema import HEAD
from camora_sql.wakeup import Topic
from msgspec.structs import replace
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_scoped_session, async_sessionmaker
from sqlalchemy.ext.asyncio import create_async_engine as make_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from tests import forked
from tests.sql.processes import PATIENCE, message


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shop.db"


@pytest.fixture
def engine(path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT UNIQUE)"))
    yield engine
    engine.dispose()


@pytest.fixture
async def async_engine(engine: Engine, path: Path) -> AsyncIterator[AsyncEngine]:
    made = make_async_engine(f"sqlite+aiosqlite:///{path}")
    yield made
    await made.dispose()


@pytest.fixture
async def broker(path: Path) -> AsyncIterator[SqlBroker]:
    broker = SqlBroker(f"sqlite:///{path}?synchronous=normal")
    await broker.open()
    yield broker
    await broker.close()


@pytest.fixture
def tables(engine: Engine, path: Path) -> None:
    """Camora's tables are in the file, made by another process."""
    forked.run([sys.executable, "-m", "camora", "sql", "migrate", "--url", f"sqlite:///{path}"], check=True)


def make_app(path: Path, **more: Any) -> Any:
    """An app with a task that says which orders it sees."""
    app = Camora(f"sqlite:///{path}?synchronous=normal", **more)

    @app.task(name="ship")
    def ship(item: str) -> list[str]:
        with sqlite3.connect(path) as database:
            found = [row[0] for row in database.execute("SELECT item FROM orders WHERE item = ?", (item,))]
        database.close()
        return found

    return app


def order(item: str) -> Any:
    return text("INSERT INTO orders (item) VALUES (:item)").bindparams(item=item)


def state(path: Path) -> tuple[list[str], int]:
    """The orders, and how many jobs there are."""
    database = sqlite3.connect(path)
    try:
        orders = [row[0] for row in database.execute("SELECT item FROM orders ORDER BY id")]
        [(jobs,)] = database.execute("SELECT count(*) FROM camora_jobs")
    finally:
        database.close()
    return orders, jobs


# Every kind of connection and session


async def test_an_asynchronous_connection(path: Path, async_engine: AsyncEngine) -> None:
    app = make_app(path)
    async with app, app.worker():
        async with async_engine.begin() as connection:
            await connection.execute(order("cup"))
            job = await app.tasks.get("ship").options(connection=connection).dispatch("cup")
            assert await job.status() is Status.UNKNOWN
        assert await job.result(PATIENCE) == ["cup"]


async def test_an_asynchronous_session(path: Path, async_engine: AsyncEngine) -> None:
    app = make_app(path)
    async with app, app.worker():
        async with AsyncSession(async_engine) as session:
            await session.execute(order("cup"))
            job = await app.tasks.get("ship").options(connection=session).dispatch("cup")
            await session.commit()
            assert await job.result(PATIENCE) == ["cup"]
            other = await app.tasks.get("ship").options(connection=session).dispatch("none")
            await session.rollback()
        assert await other.status() is Status.UNKNOWN


async def test_a_connection_and_a_session_from_a_coroutine(path: Path, engine: Engine) -> None:
    app = make_app(path)
    async with app, app.worker():
        with engine.begin() as connection:
            connection.execute(order("cup"))
            first = await app.tasks.get("ship").options(connection=connection).dispatch("cup")
        with Session(engine) as session:
            session.execute(order("pot"))
            second = await app.tasks.get("ship").options(connection=session).dispatch("pot")
            session.commit()
        assert [await first.result(PATIENCE), await second.result(PATIENCE)] == [["cup"], ["pot"]]


def test_a_connection_and_a_session_without_an_event_loop(path: Path, engine: Engine, tables: None) -> None:
    app = make_app(path)
    ship = app.tasks.get("ship")
    with engine.begin() as connection:
        connection.execute(order("cup"))
        ship.options(connection=connection).dispatch_sync("cup")
    with Session(engine) as session, session.begin():
        session.execute(order("pot"))
        ship.options(connection=session).dispatch_sync("pot")
    with engine.connect() as connection:
        connection.execute(order("never"))
        ship.options(connection=connection).dispatch_sync("never")
    assert state(path) == (["cup", "pot"], 2)
    app.close_sync()


def test_the_first_dispatch_after_a_reboot_does_not_wait_for_its_own_transaction(
    path: Path, engine: Engine, tables: None
) -> None:
    with engine.begin() as connection:
        connection.execute(text("UPDATE camora_facts SET value = 'an earlier boot' WHERE name = 'lease_epoch'"))
    app = make_app(path)
    with engine.begin() as connection:
        connection.execute(order("cup"))
        app.tasks.get("ship").options(connection=connection).dispatch_sync("cup")
    assert state(path) == (["cup"], 1)
    app.close_sync()


async def test_scoped_sessions(path: Path, engine: Engine, async_engine: AsyncEngine, broker: SqlBroker) -> None:
    scoped = scoped_session(sessionmaker(engine))
    await broker.publish_within(scoped, [message("one")])
    scoped.commit()
    scoped.remove()
    async_scoped = async_scoped_session(async_sessionmaker(async_engine), asyncio.current_task)
    await broker.publish_within(async_scoped, [message("two")])
    await async_scoped.commit()
    await async_scoped.remove()
    assert state(path) == ([], 2)


# Together or not at all


async def test_rolled_back_it_never_existed(path: Path, engine: Engine, broker: SqlBroker) -> None:
    with engine.connect() as connection:
        connection.execute(order("cup"))
        assert await broker.publish_within(connection, [message("one", key="cup")]) == ["one"]
        connection.rollback()
        assert state(path) == ([], 0)
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


async def test_savepoints(path: Path, engine: Engine, broker: SqlBroker) -> None:
    with engine.begin() as connection:
        await broker.publish_within(connection, [message("kept")])
        with connection.begin_nested() as savepoint:
            connection.execute(order("gone"))
            await broker.publish_within(connection, [message("gone")])
            savepoint.rollback()
        with connection.begin_nested():
            await broker.publish_within(connection, [message("kept, too")])
    assert await broker.queues.find("kept") is not None
    assert await broker.queues.find("gone") is None
    assert await broker.queues.find("kept, too") is not None
    with Session(engine) as session:
        with session.begin_nested():
            await broker.publish_within(session, [message("of a session")])
        nested = session.begin_nested()
        await broker.publish_within(session, [message("gone of a session")])
        nested.rollback()
        session.commit()
    assert await broker.queues.find("of a session") is not None
    assert await broker.queues.find("gone of a session") is None


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


async def test_an_error_leaves_nothing_of_a_batch_in_a_transaction_that_goes_on(
    path: Path, engine: Engine, broker: SqlBroker
) -> None:
    bad = replace(message("bad"), priority=2**80)
    with engine.begin() as connection:
        connection.execute(order("cup"))
        with pytest.raises(EncodeError):
            await broker.publish_within(connection, [message("good", key="k"), bad])
        assert await broker.publish_within(connection, [message("better", key="k")]) == ["better"]
    assert state(path) == (["cup"], 1)


async def test_a_commit_that_the_database_refuses_leaves_no_job(path: Path, engine: Engine, broker: SqlBroker) -> None:
    announced: list[int] = []
    broker.database.dialect.announce = lambda: announced.append(1)  # type: ignore[method-assign]
    with engine.connect() as connection:
        connection.execute(text("PRAGMA foreign_keys = ON"))
        connection.execute(text("CREATE TABLE items (of INTEGER REFERENCES orders (id) DEFERRABLE INITIALLY DEFERRED)"))
        connection.commit()
        connection.execute(text("INSERT INTO items VALUES (404)"))
        await broker.publish_within(connection, [message("one")])
        with pytest.raises(IntegrityError):
            connection.commit()
        connection.rollback()
    assert state(path) == ([], 0)
    assert announced == []


# Waking


@pytest.mark.parametrize("kind", ["connection", "session", "asynchronous"])
async def test_a_waiting_worker_is_woken_by_the_commit_and_not_before(
    engine: Engine, async_engine: AsyncEngine, broker: SqlBroker, kind: str
) -> None:
    woken = asyncio.Event()
    twin = broker.twin()
    await twin.open()
    # Only announcements wake this: no clock, no look of its own.
    unsubscribe = twin._link.wakeups.subscribe(Topic.JOBS, woken.set)
    found: list[Any] = []

    async def look() -> None:
        await woken.wait()
        found.append(await twin.queues.find("one"))

    looking = asyncio.create_task(look())
    await asyncio.sleep(0)
    if kind == "asynchronous":
        async with async_engine.begin() as asynchronous:
            await broker.publish_within(asynchronous, [message("one")])
            assert not woken.is_set()
    elif kind == "session":
        with Session(engine) as session, session.begin():
            await broker.publish_within(session, [message("one")])
    else:
        with engine.begin() as connection:
            await broker.publish_within(connection, [message("one")])
            await broker.publish_within(connection, [message("two")])
    async with asyncio.timeout(PATIENCE):
        await looking
    assert found[0] is not None, "woken before the commit could be seen"
    unsubscribe()
    await twin.close()


async def test_what_is_lent_again_by_the_pool_commits_as_before(engine: Engine, broker: SqlBroker) -> None:
    announced: list[int] = []
    dialect = broker._store.dialect
    dialect.announce = lambda: announced.append(1)  # type: ignore[method-assign]
    for _ in range(3):
        with engine.begin() as connection:
            connection.execute(text("SELECT 1"))
    with engine.begin() as connection:
        await broker.publish_within(connection, [message("one")])
        await broker.publish_within(connection, [message("two")])
    assert announced == [1]
    with engine.connect() as connection:
        await broker.publish_within(connection, [message("three")])
        connection.commit()
        connection.execute(order("cup"))
        connection.commit()
    assert announced == [1, 1]
    with engine.connect() as connection:
        await broker.publish_within(connection, [message("four")])
    with engine.begin() as connection:
        connection.execute(order("pot"))
    assert announced == [1, 1]


# Where it must be


async def test_another_database_is_refused_and_named(tmp_path: Path, path: Path, broker: SqlBroker) -> None:
    for url, told in ((f"sqlite:///{tmp_path}/other.db", "other.db"), ("sqlite://", "in memory")):
        other = create_engine(url)
        with other.begin() as connection, pytest.raises(ConfigurationError) as error:
            await broker.publish_within(connection, [message("one")])
        assert told in str(error.value)
        assert str(path) in str(error.value)
        other.dispose()


async def test_another_name_of_the_same_file_is_the_same_database(
    tmp_path: Path, path: Path, broker: SqlBroker
) -> None:
    (tmp_path / "link.db").symlink_to(path)
    engine = create_engine(f"sqlite:///{tmp_path}/link.db")
    with engine.begin() as connection:
        await broker.publish_within(connection, [message("one")])
    assert await broker.queues.find("one") is not None
    engine.dispose()


async def test_an_attached_file_is_found_by_its_name(tmp_path: Path, path: Path, broker: SqlBroker) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/mine.db", poolclass=NullPool)
    event.listen(engine, "connect", lambda raw, _: raw.execute(f"ATTACH DATABASE '{path}' AS \"their jobs\""))
    await broker.publish([message("holder", key="k")])
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE orders (item TEXT)"))
        connection.execute(order("cup"))
        # Tables of the same names here are none of Camora's.
        connection.execute(text("CREATE TABLE camora_jobs (id TEXT)"))
        answers = await broker.publish_within(connection, [message("one"), message("two", key="k")])
        assert answers == ["one", "holder"]
    assert await broker.queues.find("one") is not None
    with engine.connect() as connection:
        await broker.publish_within(connection, [message("gone")])
        connection.rollback()
        assert connection.execute(text("SELECT count(*) FROM main.camora_jobs")).scalar() == 0
    assert await broker.queues.find("gone") is None
    engine.dispose()


async def test_a_map_of_schemas_of_the_caller_s_does_not_lead_astray(engine: Engine, broker: SqlBroker) -> None:
    with engine.connect().execution_options(schema_translate_map={None: "tenant"}) as connection:
        await broker.publish_within(connection, [message("one")])
        connection.commit()
    assert await broker.queues.find("one") is not None


async def test_missing_tables_and_other_revisions_are_named(path: Path, engine: Engine) -> None:
    broker = SqlBroker(f"sqlite:///{path}")
    with engine.begin() as connection, pytest.raises(ConfigurationError, match="no tables of Camora"):
        await broker.publish_within(connection, [message("one")])
    await broker.open()
    with engine.begin() as connection:
        connection.execute(text("UPDATE camora_alembic_version SET version_num = '0001'"))
        with pytest.raises(ConfigurationError, match=rf"revision 0001.*{HEAD}.*camora sql migrate"):
            await broker.publish_within(connection, [message("one")])
        connection.rollback()
    await broker.close()


async def test_a_connection_that_may_only_read_is_told_so(path: Path, broker: SqlBroker) -> None:
    engine = create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")
    with engine.connect() as connection, pytest.raises(ConfigurationError, match="only read"):
        await broker.publish_within(connection, [message("one")])
    engine.dispose()
    writing = create_engine(f"sqlite:///{path}")
    with writing.connect() as connection:
        connection.execute(text("PRAGMA query_only = 1"))
        with pytest.raises(ConfigurationError, match="only read"):
            await broker.publish_within(connection, [message("one")])
    writing.dispose()


async def test_autocommit_is_refused_before_anything_is_written(path: Path, engine: Engine, broker: SqlBroker) -> None:
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(ConfigurationError, match="autocommit"),
    ):
        await broker.publish_within(connection, [message("one", key="k")])
    assert state(path) == ([], 0)
    assert await broker.publish([message("two", key="k")]) == ["two"]


async def test_transactions_begun_by_hand_are_transactions(path: Path, engine: Engine, broker: SqlBroker) -> None:
    # What SQLAlchemy's manual says to do for transactions that include reading.
    event.listen(engine, "connect", lambda raw, _: setattr(raw, "isolation_level", None))
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    engine.dispose()
    with engine.begin() as connection:
        connection.execute(order("cup"))
        await broker.publish_within(connection, [message("one")])
    with engine.connect() as connection:
        connection.execute(order("pot"))
        await broker.publish_within(connection, [message("two")])
        connection.rollback()
    assert state(path) == (["cup"], 1)
    with engine.connect() as connection:
        connection.execute(text("SELECT * FROM orders")).all()
        await broker.publish([message("three")])
        with pytest.raises(BrokerUnavailable, match="roll it back and begin again"):
            await broker.publish_within(connection, [message("four")])


async def test_a_writer_in_the_way_is_named(path: Path, engine: Engine, broker: SqlBroker) -> None:
    impatient = create_engine(f"sqlite:///{path}", connect_args={"timeout": 0})
    with engine.begin() as first:
        first.execute(order("cup"))
        with impatient.connect() as second, pytest.raises(BrokerUnavailable, match="others were writing"):
            await broker.publish_within(second, [message("one")])
    impatient.dispose()


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda engine: engine, "must be a Connection"),
        (lambda engine: "a text", "must be a Connection"),
        (lambda engine: sqlite3.Connection, "must be a Connection"),
        (lambda engine: _closed(engine), "closed"),
        (lambda engine: Session(), "not bound to a single Engine"),
    ],
    ids=["engine", "text", "class", "closed", "unbound session"],
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


async def test_a_transaction_that_has_ended_is_refused(path: Path, engine: Engine, broker: SqlBroker) -> None:
    with engine.connect() as connection, connection.begin() as transaction:
        transaction.rollback()
        with pytest.raises(ConfigurationError, match="closed transaction"):
            await broker.publish_within(connection, [message("one")])
    assert state(path) == ([], 0)


async def test_an_asynchronous_connection_that_was_not_started_is_refused(
    async_engine: AsyncEngine, broker: SqlBroker
) -> None:
    with pytest.raises(ConfigurationError, match="not been started"):
        await broker.publish_within(async_engine.connect(), [message("one")])


async def test_another_kind_of_database_is_refused(broker: SqlBroker) -> None:
    class Elsewhere:
        name = "postgresql"

    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        connection.dialect = Elsewhere()  # type: ignore[assignment]
        with pytest.raises(ConfigurationError, match="postgresql"):
            await broker.publish_within(connection, [message("one")])
        del connection.dialect
    engine.dispose()


# As a whole


async def test_a_broker_without_transactions_refuses(engine: Engine) -> None:
    app = Camora()
    assert not app.broker.capabilities.transactions

    @app.task
    async def work() -> None: ...

    async with app:
        with engine.begin() as connection, pytest.raises(UnsupportedCapability, match="camora-sql"):
            await work.options(connection=connection).dispatch()


async def test_middleware_and_options_apply_within_a_transaction_too(path: Path, engine: Engine) -> None:
    seen: list[str] = []

    class Stamp(Middleware):
        async def dispatch(self, message: Any, call_next: Any) -> Any:
            seen.append(message.task)
            return await call_next(message)

    app = make_app(path, middleware=[Stamp()])
    async with app:
        with engine.begin() as connection:
            bound = app.tasks.get("ship").options(connection=connection, key="cup", delay=3600)
            first: Job[Any] = await bound.dispatch("cup")
            again: Job[Any] = await bound.dispatch("cup")
        assert first.id == again.id
        assert seen == ["ship", "ship"]
        assert await first.status() is Status.SCHEDULED
        many = [app.tasks.get("ship").s(f"{number}").options(delay=3600) for number in range(3)]
        assert len(await app.dispatch_many(many)) == 3


def test_threads_with_connections_of_their_own(path: Path, engine: Engine, tables: None) -> None:
    app = make_app(path)
    errors: list[BaseException] = []

    def work(worker: int) -> None:
        own = create_engine(f"sqlite:///{path}", connect_args={"timeout": PATIENCE})
        try:
            for number in range(10):
                with own.connect() as connection:
                    connection.execute(order(f"{worker}-{number}"))
                    app.tasks.get("ship").options(connection=connection).dispatch_sync(f"{worker}-{number}")
                    if number % 2:
                        connection.commit()
        except BaseException as error:
            errors.append(error)
        finally:
            own.dispose()

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    orders, jobs = state(path)
    assert len(orders) == jobs == 20
    app.close_sync()
