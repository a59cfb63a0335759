"""The schema on PostgreSQL: made by itself, migrated and printed by commands, by many at once, killed half-way."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from camora import Camora
from camora.errors import ConfigurationError
from camora.interfaces.broker import Broker, ConsumerSettings
from camora.interfaces.schedule import ScheduleRecord
from camora.outcome import Action, DeadLetter, JobRecord, Settlement, Status
from camora_sql import migrating, opening
from camora_sql.blocking import BlockingSession
from camora_sql.schema import HEAD
from camora_sql.store import Store

from tests import forked
from tests.servers.fixtures import shared_postgres
from tests.sql.databases import new_database
from tests.sql.processes import message, playing


@pytest.fixture
def url() -> Iterator[str]:
    """Of an empty database."""
    with new_database() as name:
        yield shared_postgres().url_of(name)


def camora(*args: str) -> subprocess.CompletedProcess[str]:
    return forked.run([sys.executable, "-m", "camora", *args], capture_output=True, text=True, timeout=60, check=False)


def rows(url: str, query: str) -> list[Any]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


def migrate(url: str, until: str = HEAD) -> None:
    """By the migrations, whatever an empty database would be given at once."""
    store = Store(url)
    session = BlockingSession(store)
    try:
        session.run(lambda session: migrating.migrate(session, store, until))
    finally:
        session.close()


def shape(url: str, schema: str, prefix: str) -> dict[str, list[Any]]:
    """All that is in a schema, under the names that it would have elsewhere."""
    asked = {
        "columns": "SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, column_default, "
        f"collation_name, is_identity FROM information_schema.columns WHERE table_schema = '{schema}'",
        "indexes": f"SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = '{schema}'",
        "constraints": "SELECT conname, contype, pg_get_constraintdef(oid) FROM pg_constraint "
        f"WHERE connamespace = '{schema}'::regnamespace",
        "functions": "SELECT proname, pg_get_functiondef(oid) FROM pg_proc "
        f"WHERE pronamespace = '{schema}'::regnamespace",
    }

    def renamed(value: Any) -> Any:
        return value.replace(f"{schema}.", "").replace(prefix, "~") if isinstance(value, str) else value

    return {
        what: sorted((tuple(map(renamed, row)) for row in rows(url, query)), key=repr) for what, query in asked.items()
    }


async def use(broker: Broker) -> None:
    """Publish, take, keep, settle, and read again."""
    await broker.open()
    await broker.publish([message("one", key="k"), message("two")])
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me"))
    taken = await consumer.receive(2, 5.0)
    record = JobRecord(id="one", status=Status.SUCCEEDED, value=b"42", ttl=3600)
    settlements = [
        Settlement(delivery=one, action=Action.ACK, record=record if one.id == "one" else None) for one in taken
    ]
    assert list(await consumer.settle(settlements)) == [True, True]
    results = broker.own_results()
    assert results is not None
    await results.open()
    assert [one and one.value for one in await results.fetch(["one"])] == [b"42"]
    await results.close()
    await consumer.close()
    await broker.close()


async def test_what_is_made_at_once_is_what_migrations_lead_to(url: str) -> None:
    rows(url, "CREATE SCHEMA made")
    rows(url, "CREATE SCHEMA migrated")
    broker = Camora(f"{url}?schema=made&prefix=made_").broker
    await broker.open()
    await broker.close()
    await asyncio.to_thread(migrate, f"{url}?schema=migrated&prefix=moved_")
    made, migrated = shape(url, "made", "made_"), shape(url, "migrated", "moved_")
    assert all(made.values()), "something of everything"
    for what in made:
        assert made[what] == migrated[what]
    facts = [
        rows(url, f"SELECT name, value FROM {name}facts ORDER BY name") for name in ("made.made_", "migrated.moved_")
    ]
    assert facts[0] == facts[1]


@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_prefixes_and_schemas_are_stores_of_their_own(url: str, driver: str) -> None:
    rows(url, "CREATE SCHEMA other")
    spoken = url.replace("postgresql", f"postgresql+{driver}")
    brokers = [
        Camora(f"{spoken}{more}").broker for more in ("", "?prefix=b_", "?schema=other", "?schema=other&prefix=b_")
    ]
    assert len({broker.database.dialect.url for broker in brokers}) == 4  # type: ignore[attr-defined]
    for number, broker in enumerate(brokers):
        await broker.open()
        await broker.publish([message(f"job-{part}", key="k") for part in range(number + 1)])
        await broker.publish([message(f"more-{part}") for part in range(number)])
    assert [await broker.queues.counts() for broker in brokers] == [{"work": {"ready": n + 1}} for n in range(4)]
    for broker in brokers:
        await broker.close()


async def test_a_path_of_schemas_in_the_url_is_the_driver_s(url: str) -> None:
    """Whoever has the tables elsewhere by the server's own means finds them there."""
    rows(url, "CREATE SCHEMA elsewhere")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            f"ALTER ROLE camora IN DATABASE {url.rpartition('/')[2]} SET search_path = elsewhere".encode()
        )
    await use(Camora(url).broker)
    assert rows(url, "SELECT count(*) FROM elsewhere.camora_alembic_version") == [(1,)]


async def test_many_who_open_an_empty_database_at_once_make_it_once(url: str) -> None:
    with playing("open_first", 8, url) as processes:
        for process in processes:
            process.go()
        assert [process.hears() for process in processes] == ["done"] * 8
    assert rows(url, "SELECT version_num FROM camora_alembic_version") == [(HEAD,)]
    assert rows(url, "SELECT count(*) FROM camora_jobs") == [(8,)]


def test_status_creates_nothing_and_migrate_may_be_repeated(url: str) -> None:
    status = camora("sql", "status", "--url", url)
    assert status.returncode == 1
    assert "revision none" in status.stdout
    assert not rows(url, "SELECT 1 FROM pg_tables WHERE schemaname = 'public'")
    for told in ("upgraded from nothing", "is up to date"):
        migrated = camora("sql", "migrate", "--url", url)
        assert migrated.returncode == 0, migrated.stderr
        assert told in migrated.stdout
    assert camora("sql", "status", "--url", url).returncode == 0


@pytest.mark.parametrize("more", ["", "?schema=jobs&prefix=mine_"], ids=["plain", "named"])
@pytest.mark.parametrize("since", ["", "0001"], ids=["empty", "earlier"])
async def test_the_printed_statements_make_a_database_that_works(url: str, since: str, more: str) -> None:
    rows(url, "CREATE SCHEMA jobs")
    if since:
        await asyncio.to_thread(migrate, f"{url}{more}", since)
    # It connects nowhere: neither the user nor the server need to be there.
    printed = camora("sql", "sql", "--url", f"postgresql://nobody@127.0.0.1:1/nowhere{more}", "--since", since)
    assert printed.returncode == 0, printed.stderr
    rows(url, printed.stdout)
    status = camora("sql", "status", "--url", f"{url}{more}")
    assert (status.returncode, status.stderr) == (0, "")
    await use(Camora(f"{url}{more}").broker)


_DYING = """
import os, signal, sys
from camora_sql.blocking import BlockingSession
from camora_sql.dialects.postgresql import PostgresqlDialect
from camora_sql.opening import prepare
from camora_sql.store import Store
PostgresqlDialect.commit = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
store = Store(sys.argv[1])
BlockingSession(store).run(lambda session: prepare(session, store))
"""


@pytest.mark.parametrize("since", ["", "0001"], ids=["empty", "earlier"])
async def test_who_is_killed_half_way_leaves_what_there_was(url: str, since: str) -> None:
    if since:
        await asyncio.to_thread(migrate, url, since)
    tables = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
    before = rows(url, tables)
    # All is done but the commit.
    died = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", _DYING, url], timeout=60)
    assert died.returncode == -signal.SIGKILL
    assert rows(url, tables) == before
    # Nor does its lock hold up the next one.
    await use(Camora(url).broker)
    assert rows(url, "SELECT version_num FROM camora_alembic_version") == [(HEAD,)]


# An earlier revision

_FIRST = ("jobs", "keys", "done", "dead_letters", "results", "queues", "facts")


def everything(url: str) -> dict[str, list[Any]]:
    """All rows of all tables of the first revision."""
    found = {name: rows(url, f"SELECT * FROM camora_{name} ORDER BY 1") for name in _FIRST}
    # The revision notes there what can work with it.
    found["facts"] = [row for row in found["facts"] if row[0] != "works_with"]
    return found


def revision(url: str) -> str:
    [(found,)] = rows(url, "SELECT version_num FROM camora_alembic_version")
    return str(found)


@pytest.fixture
def old(url: str) -> str:
    """The URL of a database as the first version made it."""
    migrate(url, "0001")
    return url


async def fill(url: str) -> None:
    """Something of all that the first revision keeps."""
    broker = Camora(url).broker
    await broker.open()
    far = 4_000_000_000_000
    await broker.publish([message("ready", priority=3, key="k"), message("far", due=far, expires=far + 1)])
    await broker.publish([message(name) for name in ("done", "dead", "marked", "leased")])
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="me", lease=3600))
    taken = {one.id: one for one in await consumer.receive(5, 5.0)}
    letter = DeadLetter(id="dead", queue="work", task="a.task", body=b"{}", reason="failed", died=1)
    record = JobRecord(id="done", status=Status.SUCCEEDED, value=b"42", ttl=3600)
    settlements = [
        Settlement(delivery=taken["ready"], action=Action.RELEASE, delay=3600),
        Settlement(delivery=taken["marked"], action=Action.ACK),
        Settlement(delivery=taken["done"], action=Action.ACK, record=record),
        Settlement(delivery=taken["dead"], action=Action.REJECT, letter=letter),
    ]
    assert all(await consumer.settle(settlements))
    await broker.queues.pause("closed")
    await consumer.close()
    await broker.close()


async def test_everything_is_there_after_the_upgrade(old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(opening, "HEAD", "0001")
        await fill(old)
    assert revision(old) == "0001"
    before = everything(old)
    assert all(before[name] for name in _FIRST if name != "facts"), "something of everything"
    broker = Camora(old).broker
    await broker.open()
    assert revision(old) == HEAD
    assert everything(old) == before
    # It is lent as before, the new tables work, and the record answers.
    assert await broker.queues.counts() == {"work": {"scheduled": 2, "leased": 1, "dead": 1}}
    assert await broker.dead_letters.requeue("dead")
    consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="new"))
    assert [one.id for one in await consumer.receive(9, 0.0)] == ["dead"]
    published = await broker.publish([message("second", key="k"), message("done"), message("marked")])
    assert published == ["ready", "done", "marked"]
    assert not await consumer.receive(9, 0.0)
    schedules = broker.own_schedules()
    assert schedules is not None
    await schedules.open()
    await schedules.put([ScheduleRecord(key="nightly", next=1)])
    assert [record.key for record in await schedules.list()] == ["nightly"]
    for opened in (schedules, consumer, broker):
        await opened.close()


async def test_processes_of_both_versions_work_on_one_database(old: str) -> None:
    count = 60
    with playing("publish_and_drain_as_earlier", 2, old, count) as earlier:
        for process in earlier:
            process.go()
            assert process.hears() == "begun"
        assert revision(old) == "0001"
        # While they are at it, a process of this version comes, upgrades, and works along.
        broker = Camora(old).broker
        await broker.open()
        assert revision(old) == HEAD
        consumer = await broker.consumer(ConsumerSettings(queues=("work",), worker="new"))
        await broker.publish([message(f"new-{number}") for number in range(count)])
        for process in earlier:
            process.go()
        done: list[str] = []

        async def drain() -> None:
            while deliveries := await consumer.receive(7, 0.0):
                assert all(await consumer.settle([Settlement(delivery=one, action=Action.ACK) for one in deliveries]))
                done.extend(one.id for one in deliveries)

        await drain()
        for process in earlier:
            done += process.hears()
        # What they published after everybody had looked for the last time.
        await drain()
        assert sorted(done) == sorted(
            [f"new-{number}" for number in range(count)]
            + [f"{process.pid}-{number}" for process in earlier for number in range(count)]
        )
        await consumer.close()
        await broker.close()


async def test_many_who_open_an_old_database_at_once_upgrade_it_once(old: str) -> None:
    with playing("open_first", 4, old) as processes:
        for process in processes:
            process.go()
        assert [process.hears() for process in processes] == ["done"] * 4
    assert revision(old) == HEAD
    assert rows(old, "SELECT count(*) FROM camora_jobs") == [(4,)]


async def test_a_database_of_a_newer_version_is_refused_and_left_alone(url: str) -> None:
    await use(Camora(url).broker)
    rows(url, "UPDATE camora_alembic_version SET version_num = '9999'")
    rows(url, "UPDATE camora_facts SET value = '9999' WHERE name = 'works_with'")
    with pytest.raises(ConfigurationError, match="9999.*upgrade"):
        await Camora(url).broker.open()
    assert revision(url) == "9999"
    failed = camora("sql", "status", "--url", url)
    assert failed.returncode != 0
    assert "9999" in failed.stderr
    assert "Traceback" not in failed.stderr


async def test_a_newer_version_that_left_what_we_know_is_worked_beside(url: str) -> None:
    """As during a deploy: the newer one has been here, and noted that we can go on."""
    await use(Camora(url).broker)
    rows(url, "UPDATE camora_alembic_version SET version_num = '9999'")
    rows(url, f"UPDATE camora_facts SET value = '{HEAD}' WHERE name = 'works_with'")
    broker = Camora(url).broker
    await broker.open()
    await broker.publish([message("three")])
    assert await broker.queues.counts() == {"work": {"ready": 1}}
    await broker.close()
