"""A job's rows and its completion in one commit."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import attrs
import pytest
from camora import Camora, Context, Failure, RetryPolicy, Status, dependency
from camora.errors import ConfigurationError, JobFailed
from camora.signals import Recorded
from camora_sql import Inbox
from camora_sql.broker import SqlBroker
from processes import workers
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from tests.servers.fixtures import fresh_postgres_url


@attrs.frozen
class Database:
    """The user's, with Camora's tables in it."""

    url: str
    engine: Engine
    async_engine: AsyncEngine
    prefix: str

    def rows(self) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(text(f"SELECT job, amount FROM {self.table} ORDER BY amount")))

    @property
    def table(self) -> str:
        return "payments"


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/shop.db"
        sync, other = url, url.replace("sqlite://", "sqlite+aiosqlite://")
    else:
        url, _, query = fresh_postgres_url().partition("?")
        schema = query.removeprefix("prefix=").rstrip("_")
        plain = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
        with plain.begin() as connection:
            connection.execute(text(f"CREATE SCHEMA {schema}"))
        plain.dispose()
        sync = f"{url.replace('postgresql://', 'postgresql+psycopg://')}?options=-csearch_path%3D{schema}"
        other = sync.replace("psycopg", "psycopg_async")
        url = f"{url}?options=-csearch_path%3D{schema}"
    engine, async_engine = create_engine(sync), create_async_engine(other)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE payments (job VARCHAR(64), amount INTEGER UNIQUE)"))
    broker = SqlBroker(url.replace("postgresql://", "postgresql+psycopg://"))
    await broker.open()
    await broker.close()
    yield Database(url, engine, async_engine, "camora_")
    await async_engine.dispose()
    engine.dispose()


def app_on(database: Database, broker: str = "memory://") -> Camora:
    def session() -> Iterator[Session]:
        with Session(database.engine) as made:
            yield made

    async def async_session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(database.async_engine) as made:
            yield made

    async def async_connection() -> AsyncIterator[AsyncConnection]:
        async with database.async_engine.connect() as made:
            yield made

    return Camora(
        broker, dependencies=[dependency(made, scope="job") for made in (session, async_session, async_connection)]
    )


PAY = text("INSERT INTO payments (job, amount) VALUES (:job, :amount)")


async def test_rows_and_completion_are_committed_together(database: Database) -> None:
    app = app_on(database)

    @app.task
    async def pay(ctx: Context, amount: int, session: Annotated[AsyncSession, Inbox]) -> int:
        await session.execute(PAY, {"job": ctx.id, "amount": amount})
        return amount

    @app.task
    def pay_in_thread(ctx: Context, amount: int, session: Annotated[Session, Inbox]) -> int:
        session.execute(PAY, {"job": ctx.id, "amount": amount})
        return amount

    @app.task
    async def pay_by_connection(ctx: Context, amount: int, connection: Annotated[AsyncConnection, Inbox]) -> int:
        await connection.execute(PAY, {"job": ctx.id, "amount": amount})
        return amount

    async with app, app.worker():
        jobs = [await task.dispatch(number) for number, task in enumerate((pay, pay_in_thread, pay_by_connection))]  # type: ignore[operator]
        assert [await job.result(timeout=60) for job in jobs] == [0, 1, 2]
    assert database.rows() == [(job.id, number) for number, job in enumerate(jobs)]
    with database.engine.connect() as connection:
        marks = {row[0] for row in connection.execute(text("SELECT id FROM camora_inbox"))}
    assert marks == {job.id for job in jobs}


async def test_what_fails_leaves_nothing(database: Database) -> None:
    app = app_on(database)
    tries: list[int] = []

    @app.task(retry_policy=RetryPolicy(max_tries=2, delay=0))
    async def pay(ctx: Context, amount: int, session: Annotated[AsyncSession, Inbox]) -> Any:
        await session.execute(PAY, {"job": ctx.id, "amount": amount})
        tries.append(amount)
        if amount == 1:
            raise ValueError("no money")
        if amount == 2:
            return Failure("no money at all")
        if amount == 3:
            return object()  # which cannot be stored
        if amount == 4 and tries.count(4) == 1:
            raise ValueError("not yet")
        return amount

    async with app, app.worker():
        jobs = [await pay.dispatch(amount) for amount in (1, 2, 3, 4)]
        for job in jobs[:3]:
            with pytest.raises(JobFailed):
                await job.result(timeout=60)
        assert await jobs[3].result(timeout=60) == 4
    assert database.rows() == [(jobs[3].id, 4)]


async def test_a_clash_of_the_users_own_rows_is_the_jobs_failure(database: Database) -> None:
    app = app_on(database)

    @app.task
    def pay(ctx: Context, amount: int, session: Annotated[Session, Inbox]) -> int:
        session.execute(PAY, {"job": ctx.id, "amount": amount})
        return amount

    async with app, app.worker():
        first = await pay.dispatch(1)
        assert await first.result(timeout=60) == 1
        second = await pay.dispatch(1)
        with pytest.raises(JobFailed, match="IntegrityError"):
            await second.result(timeout=60)
    assert database.rows() == [(first.id, 1)]


@attrs.define
class Running:
    """As much of a running job as a marker sees."""

    id: str

    def encode_result(self, value: Any) -> bytes | None:
        return str(value).encode()


async def test_of_two_runs_of_one_job_one_commits(database: Database) -> None:
    marker, running = Inbox(), Running("twice")
    both_in = asyncio.Barrier(2)

    def paying(session: AsyncSession, amount: int) -> Callable[[], Any]:
        async def pay() -> int:
            if database.engine.dialect.name == "postgresql":  # SQLite has one writer at a time
                await session.execute(PAY, {"job": "twice", "amount": amount})
            await both_in.wait()  # both have looked, and found nothing
            return 7

        return pay

    async with AsyncSession(database.async_engine) as one, AsyncSession(database.async_engine) as other:
        answers = await asyncio.gather(
            *[marker.around(running, each, paying(each, number)) for number, each in enumerate((one, other))]
        )
        assert sorted(map(str, answers)) == ["7", str(Recorded(b"7"))]
        # And a third one does not run at all.
        assert await marker.around(running, one, pytest.fail) == Recorded(b"7")
    assert len(database.rows()) == (1 if database.engine.dialect.name == "postgresql" else 0)


@pytest.mark.parametrize("task", ["pay", "pay_async"])
async def test_a_worker_killed_after_the_commit_pays_once(database: Database, tmp_path: Path, task: str) -> None:
    broker = f"sqlite:///{tmp_path}/jobs.db"
    urls = {
        "TILL_DATABASE": database.engine.url.render_as_string(hide_password=False),
        "TILL_ASYNC_DATABASE": database.async_engine.url.render_as_string(hide_password=False),
    }
    async with Camora(broker) as app:
        job = await app.dispatch(task, amount=5)
        with workers() as start:
            assert start(tmp_path, broker, app="till:app", SHOP_CRASH="after commit", **urls).end() == -signal.SIGKILL
            assert database.rows() == [(job.id, 5)]
            start(tmp_path, broker, app="till:app", **urls).ready()
            assert await job.result(timeout=30) == 5
            info = await job.info()
            assert info.status is Status.SUCCEEDED
    assert database.rows() == [(job.id, 5)]


async def test_a_database_without_the_table_says_what_to_do(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/bare.db")
    with Session(engine) as session, pytest.raises(ConfigurationError, match="camora_inbox.*camora sql migrate"):
        await Inbox().around(Running("one"), session, pytest.fail)
    engine.dispose()


async def test_what_is_no_session_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="got a dict.*Session, Connection, AsyncSession"):
        await Inbox().around(Running("one"), {}, pytest.fail)
    with pytest.raises(ConfigurationError, match="keep=0"):
        Inbox(keep=0)


async def test_a_process_pool_is_refused_at_the_start(tmp_path: Path) -> None:
    app = Camora("memory://", dependencies=())

    def session() -> Session:
        raise NotImplementedError

    app.injector.add(session)

    @app.task(execution="process")
    def pay(session: Annotated[Session, Inbox]) -> None:
        raise NotImplementedError

    with pytest.raises(ConfigurationError, match="'session' is marked to wrap the run.*another execution"):
        async with app, app.worker():
            pass


async def test_old_marks_are_swept(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camora_sql.inbox._SWEEP", 1.0)

    async def work() -> int:
        return 1

    for number in range(3):
        async with AsyncSession(database.async_engine) as session:
            await Inbox(keep=0.001).around(Running(f"job-{number}"), session, work)
        await asyncio.sleep(0.005)  # its time is over when the clock says so
    with database.engine.connect() as connection:
        assert [row[0] for row in connection.execute(text("SELECT id FROM camora_inbox"))] == ["job-2"]
