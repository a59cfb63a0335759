"""Deadlocks of which Camora is sure to be the victim, and isolation levels that others have chosen for it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from camora.errors import BrokerUnavailable
from camora.interfaces.broker import Consumer, ConsumerSettings
from camora.message import Envelope
from camora.outcome import Action, JobRecord, Settlement, Status
from camora_sql.broker import SqlBroker
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from tests.servers.mariadb import fresh_url as fresh_mariadb_url
from tests.servers.mariadb import shared as shared_mariadb
from tests.servers.postgres import PostgresServer, need
from tests.sql.faults import mariadb
from tests.sql.faults.rig import eventually, rigged

ROUNDS = 20
"""A deadlock that comes too late for the victim to be found is made once more."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """Whoever has waited so long looks for a deadlock, and is the victim of the one he finds."""
    with PostgresServer(need(), settings=["deadlock_timeout = 100ms"]) as started:
        yield started


@pytest.fixture
async def broker(server: PostgresServer) -> AsyncIterator[SqlBroker]:
    made = SqlBroker(server.url)
    await made.open()
    yield made
    await made.close()
    server.sql("TRUNCATE camora_jobs, camora_keys, camora_results, camora_done, camora_dead_letters")


class Opponent:
    """Somebody who has one thing, and wants another one as soon as anybody waits for him."""

    def __init__(self, server: PostgresServer, has: str, wants: str) -> None:
        self._server = server
        self._has = has
        self._wants = wants
        self._before = self.victims()

    def victims(self) -> list[str]:
        """The statements of all victims so far, in order."""
        lines = self._server.log.splitlines()
        found = [number for number, line in enumerate(lines) if "deadlock detected" in line]
        return [next(line for line in lines[at:] if "STATEMENT:" in line) for at in found]

    def found(self) -> list[str]:
        """Those since it began."""
        return self.victims()[len(self._before) :]

    def met(self, what: str) -> bool:
        """Whether there were any since it began, all with this in their statements.

        More than one, where a busy machine wakes the opponent later than the victim tries again.
        """
        assert all(what in statement for statement in self.found())
        return bool(self.found())

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with psycopg.connect(self._server.url, autocommit=True) as connection:
            # It is never he who looks.
            connection.execute("SET deadlock_timeout = '1min'")
            connection.execute("BEGIN")
            connection.execute(self._has.encode())
            thread = threading.Thread(target=self._want, args=(connection,))
            thread.start()
            try:
                yield
            finally:
                thread.join()

    def _want(self, connection: psycopg.Connection[Any]) -> None:
        """In the server, which is quicker than anybody who asks it over and over."""
        wait = "WHILE NOT EXISTS (SELECT 1 FROM pg_locks WHERE NOT granted) LOOP PERFORM pg_sleep(0.001); END LOOP;"
        connection.execute(f"DO $$ BEGIN {wait} {self._wants}; END $$".encode())
        connection.execute("ROLLBACK")


def lock(job_id: str) -> str:
    return f"PERFORM 1 FROM camora_jobs WHERE id = '{job_id}' FOR UPDATE"


def key(name: str) -> str:
    return f"INSERT INTO camora_keys (key, job) VALUES ('{name}', 'another')"


def message(name: str, **changes: Any) -> Envelope:
    return Envelope(id=name, task="t", queue="q", body=b"{}", **changes)


async def counts(broker: SqlBroker) -> dict[str, dict[str, int]]:
    return {name: dict(states) for name, states in (await broker.queues.counts()).items()}


async def test_a_settlement_is_repeated(server: PostgresServer, broker: SqlBroker) -> None:
    consumer = await broker.consumer(ConsumerSettings(queues=("q",), worker="w", lease=30))
    for turn in range(ROUNDS):
        await broker.publish([message(f"first-{turn}"), message(f"second-{turn}")])
        first, second = await consumer.receive(2, 10.0)
        settlements = [
            Settlement(delivery=first, action=Action.ACK, record=JobRecord(id=first.id, status=Status.SUCCEEDED)),
            Settlement(delivery=second, action=Action.RETRY, envelope=message(second.id, due=2**50)),
        ]
        # Acknowledgements come first in the statement.
        opponent = Opponent(server, lock(second.id).replace("PERFORM", "SELECT"), lock(first.id))
        with opponent():
            assert await _settled(consumer, settlements) == [True, True]
        assert await broker.queues.find(first.id) is None
        waiting = await broker.queues.find(second.id)
        assert waiting is not None
        assert (waiting.state, waiting.deliveries) == ("scheduled", 0)
        if opponent.met("camora_settle"):
            break
    assert opponent.met("camora_settle")
    await consumer.close()


async def _settled(consumer: Consumer, settlements: list[Settlement]) -> list[bool | None]:
    """As a worker does it: on a busy machine the deadlock alone takes longer than one settlement may."""
    while True:
        with contextlib.suppress(BrokerUnavailable):
            return list(await consumer.settle(settlements))


async def test_a_publication_with_keys_is_repeated(server: PostgresServer, broker: SqlBroker) -> None:
    for turn in range(ROUNDS):
        jobs = [message(f"job-{name}-{turn}", key=f"{name}-{turn}") for name in "ab"]
        opponent = Opponent(server, key(f"b-{turn}"), key(f"a-{turn}"))
        with opponent():
            assert await broker.publish(jobs) == [job.id for job in jobs]
        assert await counts(broker) == {"q": {"ready": 2 * (turn + 1)}}
        if opponent.met("camora_publish"):
            break
    assert opponent.met("camora_publish")


@pytest.mark.parametrize("kind", ["session", "asyncpg", "psycopg"])
async def test_a_dispatch_into_a_transaction_is_repeated_in_it(
    server: PostgresServer, broker: SqlBroker, kind: str
) -> None:
    """It is undone by itself, so that others get what they want; the transaction around it goes on."""
    server.sql("CREATE TABLE IF NOT EXISTS orders (item text)")
    server.sql("TRUNCATE orders")
    for turn in range(ROUNDS):
        jobs = [message(f"job-{name}-{turn}", key=f"{name}-{turn}") for name in "ab"]
        opponent = Opponent(server, key(f"b-{turn}"), key(f"a-{turn}"))
        order = text("INSERT INTO orders VALUES ('cup')")
        if kind == "session":
            engine = create_engine(server.url.replace("postgresql:", "postgresql+psycopg:"))
            with Session(engine) as session, opponent():
                session.execute(order)
                assert await _in_thread(broker, session, jobs) == [job.id for job in jobs]
                session.commit()
            engine.dispose()
        else:
            async_engine = create_async_engine(server.url.replace("postgresql:", f"postgresql+{kind}:"))
            async with AsyncSession(async_engine) as async_session:
                with opponent():
                    await async_session.execute(order)
                    assert await broker.publish_within(async_session, jobs) == [job.id for job in jobs]
                    await async_session.commit()
            await async_engine.dispose()
        assert await counts(broker) == {"q": {"ready": 2 * (turn + 1)}}
        assert server.sql("SELECT count(*) FROM orders") == [(turn + 1,)]
        if opponent.met("camora_keys"):
            break
    assert opponent.met("camora_keys")


async def test_a_transaction_that_holds_what_others_want_is_to_be_begun_again(
    server: PostgresServer, broker: SqlBroker
) -> None:
    server.sql("CREATE TABLE IF NOT EXISTS stock (item text PRIMARY KEY)")
    server.sql("INSERT INTO stock VALUES ('cup') ON CONFLICT DO NOTHING")
    engine = create_engine(server.url.replace("postgresql:", "postgresql+psycopg:"))
    held = text("SELECT item FROM stock FOR UPDATE")
    for turn in range(ROUNDS):
        job = message(f"job-{turn}", key=f"key-{turn}")
        opponent = Opponent(server, key(f"key-{turn}"), "PERFORM 1 FROM stock FOR UPDATE")
        with Session(engine) as session:
            with opponent():
                session.execute(held)
                try:
                    with pytest.raises(BrokerUnavailable, match="nothing was enqueued.*roll it back and begin again"):
                        await _in_thread(broker, session, [job])
                finally:
                    session.rollback()
            session.execute(held)
            assert await _in_thread(broker, session, [job]) == [job.id]
            session.commit()
        assert await counts(broker) == {"q": {"ready": turn + 1}}
        # Each try of the dispatch is one.
        if len(opponent.found()) == 3:
            break
    engine.dispose()
    assert ["camora_keys" in statement for statement in opponent.found()] == [True] * 3


async def test_a_conflict_in_a_transaction_that_repeats_its_reads(server: PostgresServer, broker: SqlBroker) -> None:
    engine = create_engine(server.url.replace("postgresql:", "postgresql+psycopg:"))
    repeatable = engine.execution_options(isolation_level="REPEATABLE READ")
    with Session(repeatable) as session:
        session.execute(text("SELECT 1"))
        # After it began; and when it looks, the key's job has ended.
        await broker.publish([message("first", key="k", key_ttl=0.001)])
        consumer = await broker.consumer(ConsumerSettings(queues=("q",), worker="w", lease=30))
        [one] = await consumer.receive(1, 10.0)
        assert list(await consumer.settle([Settlement(delivery=one, action=Action.ACK)])) == [True]
        with pytest.raises(BrokerUnavailable, match="nothing was enqueued.*roll it back and begin again"):
            await _in_thread(broker, session, [message("second", key="k")])
        session.rollback()
        assert await _in_thread(broker, session, [message("second", key="k")]) == ["second"]
        session.commit()
        await consumer.close()
    engine.dispose()
    assert await counts(broker) == {"q": {"ready": 1}}


async def test_a_key_that_has_become_free_since_a_transaction_began(server: PostgresServer, broker: SqlBroker) -> None:
    """A transaction that repeats its reads sees who had it, and itself."""
    engine = create_engine(server.url.replace("postgresql:", "postgresql+psycopg:"))
    await broker.publish([message("first", key="k")])
    with Session(engine.execution_options(isolation_level="REPEATABLE READ")) as session:
        session.execute(text("SELECT 1 FROM camora_keys"))
        assert await broker.queues.purge("q") == 1
        assert await _in_thread(broker, session, [message("second", key="k")]) == ["second"]
        assert await _in_thread(broker, session, [message("third", key="k")]) == ["second"]
        session.commit()
    engine.dispose()
    assert await broker.publish([message("fourth", key="k")]) == ["second"]
    assert await counts(broker) == {"q": {"ready": 1}}


async def _in_thread(broker: SqlBroker, session: Session, jobs: list[Envelope]) -> list[str]:
    """As `dispatch_sync` does it: nothing in it waits for the loop."""
    return await asyncio.to_thread(lambda: list(asyncio.run(broker.publish_within(session, jobs))))


async def test_a_publication_with_keys_is_repeated_on_mariadb() -> None:
    """There, the one of the two that has changed fewer rows is the victim."""
    url = fresh_mariadb_url()
    keys = f"{url.rpartition('prefix=')[2]}keys"
    broker = SqlBroker(url)
    await broker.open()
    jobs = [message(f"job-{name}", key=name) for name in "ab"]
    heavy = ", ".join(f"('other-{number}', 'another')" for number in range(500))
    server = shared_mariadb()
    other = pymysql.connect(
        host=server.host, port=server.port, user="camora", password="secret", database="camora", autocommit=False
    )
    try:
        with other.cursor() as cursor:
            cursor.execute(f"INSERT INTO {keys} (`key`, job) VALUES ('b', 'another'), {heavy}")
            before, waits = told("Innodb_deadlocks"), told("Innodb_row_lock_waits")
            publishing = asyncio.create_task(broker.publish(jobs))
            await eventually(lambda: told("Innodb_row_lock_waits") > waits, "somebody who waits")
            await asyncio.to_thread(cursor.execute, f"INSERT INTO {keys} (`key`, job) VALUES ('a', 'another')")
            other.rollback()
    finally:
        other.close()
    assert await publishing == [job.id for job in jobs]
    assert told("Innodb_deadlocks") == before + 1
    assert await counts(broker) == {"q": {"ready": 2}}
    await broker.close()


def told(name: str) -> int:
    """A number of the server's."""
    [(_, count)] = shared_mariadb().sql("SHOW GLOBAL STATUS LIKE %s", name)
    return int(count)


@pytest.mark.parametrize(("driver", "level"), [("asyncpg", "serializable"), ("psycopg", "repeatable read")])
async def test_isolation_that_somebody_has_set_for_all_makes_no_difference(
    tmp_path: Path, level: str, driver: str
) -> None:
    """Workers, dispatchers, transactions of the user's: the database is stricter than Camora asks for."""
    with rigged(tmp_path) as rig:
        rig.driver = driver
        rig.server.sql(f"ALTER DATABASE postgres SET default_transaction_isolation = '{level}'")
        assert rig.server.sql("SHOW default_transaction_isolation") == [(level,)]
        for _ in range(2):
            rig.worker("--concurrency", "20").ready()
        engine = create_async_engine(rig.server.url.replace("postgresql:", f"postgresql+{driver}:"))
        async with rig.app() as app, rig.app() as other:
            await asyncio.gather(*(rig.load(one, 30) for one in (app, other) for _ in range(2)))

            refusals: list[str] = []

            async def joined(number: int) -> None:
                """As everybody must who chooses such a level: a transaction that fails is begun again."""
                while True:
                    try:
                        async with AsyncSession(engine) as session:
                            options = app.options(
                                connection=session, job_id=f"joined-{number}", key=f"key-{number % 3}"
                            )
                            job = await options.dispatch("work", number=number)
                            await session.commit()
                    except (BrokerUnavailable, DBAPIError) as error:
                        refusals.append(str(error))
                    else:
                        if job.id == f"joined-{number}":
                            rig.noted(job)
                        return

            await asyncio.gather(*(joined(number) for number in range(20)))
        await engine.dispose()
        assert all("roll it back" in told or "could not serialize" in told for told in refusals), refusals
        await rig.balance(duplicates=0)
        rig.alive()
        for worker in rig.workers:
            assert "broker away" not in worker.text()
            assert "Traceback" not in worker.text()


async def test_isolation_that_somebody_has_set_for_all_makes_no_difference_on_mariadb(tmp_path: Path) -> None:
    with mariadb.rigged(tmp_path, settings=["transaction-isolation=SERIALIZABLE"]) as rig:
        assert rig.server.sql("SELECT @@tx_isolation") == [("SERIALIZABLE",)]
        for _ in range(2):
            rig.worker("--concurrency", "20").ready()
        async with rig.app() as app, rig.app() as other:
            await asyncio.gather(*(rig.load(one, 30) for one in (app, other) for _ in range(2)))
        await rig.balance(duplicates=0)
        rig.alive()
        for worker in rig.workers:
            assert "broker away" not in worker.text()
            assert "Traceback" not in worker.text()
