"""Connections of a process: no more than it was told, each used for one thing at a time, given up when in doubt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from camora import Camora
from camora.errors import BrokerUnavailable
from processes import WorkerProcess, workers

from tests.servers.fixtures import private_postgres
from tests.servers.postgres import PostgresServer
from tests.sql.processes import message

__all__ = ["private_postgres"]

POOL = 3
DRIVERS = pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])


@pytest.fixture
def server(private_postgres: Callable[..., PostgresServer]) -> PostgresServer:
    made = private_postgres(settings=["max_connections = 20", "superuser_reserved_connections = 3"])
    made.sql("CREATE ROLE shop LOGIN")
    made.sql("CREATE ROLE others LOGIN")
    made.sql("GRANT ALL ON SCHEMA public TO shop")
    return made


@pytest.fixture
def start() -> Iterator[Callable[..., WorkerProcess]]:
    with workers() as made:
        yield made


def url_of(server: PostgresServer, driver: str = "asyncpg") -> str:
    return f"{server.url_of(user='shop').replace('postgresql', f'postgresql+{driver}')}?pool_size={POOL}"


def count(server: PostgresServer) -> int:
    [(found,)] = server.sql("SELECT count(*) FROM pg_stat_activity WHERE usename = 'shop'")
    return int(found)


@pytest.fixture
async def most(server: PostgresServer) -> AsyncIterator[Callable[[], int]]:
    """Counts all the time how many connections there are; answers the highest number so far."""
    highest = 0

    async def watch() -> None:
        nonlocal highest
        async with await psycopg.AsyncConnection.connect(server.url, autocommit=True) as connection:
            while True:
                rows = await connection.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = 'shop'")
                [found] = await rows.fetchone() or [0]
                highest = max(highest, found)
                await asyncio.sleep(0.002)

    watching = asyncio.create_task(watch())
    yield lambda: highest
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching


@DRIVERS
async def test_a_process_has_no_more_connections_than_it_was_told(
    server: PostgresServer, most: Callable[[], int], driver: str
) -> None:
    """Dispatching, inspecting and waiting, all at the same moment, by all parts of an app."""
    app = Camora(url_of(server, driver))

    @app.task(name="work")
    async def work(number: int) -> int:
        return number

    async with app, app.worker(concurrency=20):
        for _ in range(3):
            jobs = await asyncio.gather(*(work.dispatch(number) for number in range(60)))
            looks = [app.broker.queues.counts() for _ in range(30)]
            answers = await asyncio.gather(*(job.result(30) for job in jobs), *looks)
            assert answers[:60] == list(range(60))
        # The pool, one that keeps leases, one that listens.
        assert 2 < most() <= POOL + 2
    async with asyncio.timeout(30):
        while count(server):
            await asyncio.sleep(0.01)


async def test_a_worker_s_process_has_no_more_connections_than_it_was_told(
    server: PostgresServer, most: Callable[[], int], start: Callable[..., WorkerProcess], tmp_path: Path
) -> None:
    worker = start(tmp_path, url_of(server), "--concurrency", "20").ready()
    async with Camora(server.url) as app:
        jobs = [await app.dispatch(name, number=1) for name in ("work", "flaky") for _ in range(100)]
        jobs.append(await app.dispatch("work_for", seconds=1.0))  # long enough to be extended
        for job in jobs:
            await job.result(30)
    assert 2 < most() <= POOL + 2
    worker.process.terminate()
    assert worker.end() == 0


@DRIVERS
async def test_who_gets_no_more_connections_goes_on_with_those_that_there_are(
    server: PostgresServer, driver: str
) -> None:
    """One connection is enough for all that is asked for at the same moment, one after the other."""
    broker = Camora(url_of(server, driver)).broker
    await broker.open()
    with ExitStack() as stack:
        with suppress(psycopg.OperationalError):
            while True:
                stack.enter_context(psycopg.connect(server.url_of(user="others")))
        assert count(server) == 1
        failed = 0
        for number in range(20):
            calls: list[Any] = [broker.queues.counts() for _ in range(8)]
            calls += [broker.publish([message(f"job-{number}-{part}")]) for part in range(8)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            errors = [one for one in answers if isinstance(one, BaseException)]
            assert all(isinstance(error, BrokerUnavailable) for error in errors)
            assert all("max_connections" in str(error) for error in errors)
            failed += len(errors)
        # Whoever finds out that there are no more is told so, once in a while; the others wait for their turn.
        assert failed <= 20
        assert count(server) == 1
    # When there are some again, they are made.
    async with asyncio.timeout(30):
        while count(server) < POOL:
            await asyncio.gather(*(broker.queues.counts() for _ in range(20)))
    await broker.close()


@DRIVERS
async def test_connections_that_were_ended_while_nobody_used_them_are_made_anew(
    server: PostgresServer, driver: str
) -> None:
    broker = Camora(url_of(server, driver)).broker
    await broker.open()
    await asyncio.gather(*(broker.queues.counts() for _ in range(20)))
    assert count(server) == POOL
    for number in range(3):
        server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'shop'")
        await asyncio.gather(*(broker.publish([message(f"job-{number}-{part}")]) for part in range(5)))
    assert await broker.queues.counts() == {"work": {"ready": 15}}
    await broker.close()


@DRIVERS
async def test_closing_waits_for_what_was_asked_for_and_leaves_no_connection(
    server: PostgresServer, driver: str
) -> None:
    broker = Camora(url_of(server, driver)).broker
    await broker.open()
    asked = [asyncio.ensure_future(broker.publish([message(f"job-{number}")])) for number in range(50)]
    await asyncio.sleep(0)
    await broker.close()
    for one in asked:
        await one
    async with asyncio.timeout(30):
        while count(server):
            await asyncio.sleep(0.01)
    [(found,)] = server.sql("SELECT count(*) FROM camora_jobs")
    assert found == 50


async def test_what_was_never_sent_is_not_called_uncertain(server: PostgresServer) -> None:
    """The server has said goodbye to a connection before it was used again."""
    broker = Camora(url_of(server)).broker
    await broker.open()
    hub = broker._link._bridge._hub  # type: ignore[attr-defined]
    server.stop()
    async with asyncio.timeout(30):
        while not all(session._driver._raw.is_closed() for session in hub._idle):
            await asyncio.sleep(0.01)
    with pytest.raises(BrokerUnavailable, match="cannot be reached"):
        await broker.publish([message("one")])
    await broker.close()
