"""A job's rows and its completion in one commit, in a MariaDB: a second delivery of it does nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any
from uuid import uuid4

import pytest
from camora import Camora, Context, dependency
from camora_sql import Inbox
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from tests.servers.mariadb import shared
from tests.sql.processes import PATIENCE

PAY = text("INSERT INTO payments (job, amount) VALUES (:job, :amount)")


@pytest.fixture
async def database() -> AsyncIterator[tuple[str, Engine, AsyncEngine]]:
    name = f"inbox_{uuid4().hex[:12]}"
    shared().sql(f"CREATE DATABASE {name}", database="")
    shared().sql("CREATE TABLE payments (job VARCHAR(64), amount INT)", database=name)
    url = shared().url_of(name)
    rest = url.partition("://")[2]
    engine, async_engine = create_engine(f"mariadb+pymysql://{rest}"), create_async_engine(f"mysql+asyncmy://{rest}")
    yield url, engine, async_engine
    await async_engine.dispose()
    engine.dispose()
    shared().sql(f"DROP DATABASE {name}", database="")


def app_on(database: tuple[str, Engine, AsyncEngine], broker: str) -> Camora:
    _, engine, async_engine = database

    def session() -> Iterator[Session]:
        with Session(engine) as made:
            yield made

    async def async_session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(async_engine) as made:
            yield made

    return Camora(broker, dependencies=[dependency(made, scope="job") for made in (session, async_session)])


async def test_a_job_that_runs_twice_at_once_pays_once(database: tuple[str, Engine, AsyncEngine]) -> None:
    url, engine, _ = database
    # The broker is another one: only the rows and the mark are here, and two workers are given the same job.
    first, second = app_on(database, "memory://"), app_on(database, "memory://")
    both = asyncio.Barrier(2)
    tasks: list[Any] = []
    for app in (first, second):

        @app.task(name="pay")
        async def pay(ctx: Context, amount: int, session: Annotated[AsyncSession, Inbox]) -> int:
            await both.wait()
            await session.execute(PAY, {"job": ctx.id, "amount": amount})
            return amount

        @app.task(name="pay_in_thread")
        def pay_in_thread(ctx: Context, amount: int, session: Annotated[Session, Inbox]) -> int:
            session.execute(PAY, {"job": ctx.id, "amount": amount})
            return amount

        tasks.append((pay, pay_in_thread))
    async with Camora(url) as schema:
        assert schema.broker
    async with first, second, first.worker(), second.worker():
        jobs = [await task.options(job_id="same").dispatch(7) for task, _ in tasks]
        assert [await job.result(PATIENCE) for job in jobs] == [7, 7]
        jobs = [await task.options(job_id="other").dispatch(8) for _, task in tasks]
        assert [await job.result(PATIENCE) for job in jobs] == [8, 8]
    with engine.connect() as connection:
        assert connection.execute(text("SELECT job, amount FROM payments ORDER BY amount")).all() == [
            ("same", 7),
            ("other", 8),
        ]
        assert connection.execute(text("SELECT count(*) FROM camora_inbox")).scalar() == 2
