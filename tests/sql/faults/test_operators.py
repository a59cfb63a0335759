"""What others do to a server in use: connections ended, locks held, only reading allowed, no connection left."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import psycopg
import pytest
from camora import Camora
from camora.errors import BrokerUnavailable
from camora.interfaces.broker import ConsumerSettings
from camora.message import Envelope
from camora.outcome import Action, Settlement

from tests.sql.faults.rig import LEASE, Rig, eventually, next_finish, rigged


async def test_all_connections_are_ended_again_and_again(either_rig: Rig) -> None:
    rig = either_rig
    rig.worker().ready()
    rig.worker().ready()
    async with rig.app() as app:
        for _ in range(5):
            await rig.load(app, 20)
            assert rig.terminate()
            rig.faults += 1
    await rig.balance(duplicates=5 * 10)
    rig.alive()


async def test_a_server_that_only_reads_for_a_while(rig: Rig) -> None:
    """As after a failover, when the old primary is a standby now."""
    worker = rig.worker().ready()
    async with rig.app() as app:
        await rig.load(app, 20)
        await next_finish(rig)
        _set(rig, "default_transaction_read_only = on")
        rig.faults += 1
        late = asyncio.create_task(rig.load(app, 20))
        await rig.noticed(worker)
        async with rig.app(busy_timeout=0.2) as impatient:
            # The broker itself: a dispatch goes on trying, and its time may be over in the middle of a try.
            await impatient.broker.open()
            with pytest.raises(BrokerUnavailable, match="only reads.*target_session_attrs=read-write"):
                await impatient.broker.publish([Envelope(id="never", task="work", queue="default", body=b"{}")])
        _set(rig, "default_transaction_read_only = off")
        await late
    # Leases could not be extended, nor jobs settled.
    await rig.balance(duplicates=10)
    rig.alive()


def _set(rig: Rig, setting: str) -> None:
    with psycopg.connect(rig.server.url, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER SYSTEM SET {setting}".encode())
        connection.execute("SELECT pg_reload_conf()")


class Hostile(threading.Thread):
    """Somebody who locks random jobs in random order, for moments, again and again, until it is stopped."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self._stopped = threading.Event()
        self.deadlocks = 0
        self.conflicts = 0

    def run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            connection.execute("SET deadlock_timeout = '20ms'")
            connection.execute("SET default_transaction_isolation = 'repeatable read'")
            while not self._stopped.is_set():
                try:
                    with connection.transaction():
                        for _ in range(4):
                            connection.execute(
                                "UPDATE camora_jobs SET worker = worker "
                                "WHERE seq = (SELECT seq FROM camora_jobs ORDER BY random() LIMIT 1)"
                            )
                            connection.execute("SELECT pg_sleep(0.005)")
                except psycopg.errors.DeadlockDetected:
                    self.deadlocks += 1
                except psycopg.errors.SerializationFailure:
                    self.conflicts += 1

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self.join()


async def test_somebody_who_locks_jobs_in_any_order(tmp_path: Path) -> None:
    with rigged(tmp_path, settings=["deadlock_timeout = 20ms"]) as rig:
        rig.worker("--concurrency", "20").ready()
        rig.worker("--concurrency", "20").ready()
        async with rig.app() as app:
            with Hostile(rig.server.url) as first, Hostile(rig.server.url) as second:
                for _ in range(4):
                    await asyncio.gather(*(rig.load(app, 40) for _ in range(2)))
                    rig.faults += 1
        found = rig.server.sql("SELECT deadlocks FROM pg_stat_database WHERE datname = 'postgres'")
        print(f"deadlocks {found[0][0]}, of the hostile {first.deadlocks + second.deadlocks}, "
              f"conflicts of theirs {first.conflicts + second.conflicts}")  # fmt: skip
        assert first.conflicts + second.conflicts + found[0][0] > 0
        await rig.balance(duplicates=0)
        rig.alive()


async def test_the_whole_table_is_locked_for_longer_than_a_lease(rig: Rig) -> None:
    worker = rig.worker().ready()
    async with rig.app() as app:
        jobs = await rig.load(app, 20)
        long = rig.noted(await app.dispatch("work_for", seconds=0.5))
        await eventually(lambda: rig.ran(long), "its start")
        with rig.somebody() as other:
            other.execute("LOCK TABLE camora_jobs IN ACCESS EXCLUSIVE MODE")
            rig.faults += 1
            late = asyncio.create_task(rig.load(app, 20))
            await asyncio.sleep(2 * LEASE)  # that is the fault
        assert await next_finish(rig) < 6
        await late
        await eventually(lambda: rig.finished() >= len(jobs), "their ends")
    await rig.balance(duplicates=10)
    rig.alive()
    assert "Traceback" not in worker.text()


async def test_one_job_that_somebody_holds_keeps_up_no_other(rig: Rig) -> None:
    """Its row is locked, for as long as it likes, by somebody who has forgotten his transaction."""
    worker = rig.worker("--concurrency", "10").ready()
    async with rig.app() as app:
        held = rig.noted(await app.dispatch("work_for", seconds=0.3))
        await eventually(lambda: rig.ran(held), "its start")
        with rig.somebody() as other:
            other.execute("SELECT * FROM camora_jobs WHERE id = %s FOR UPDATE", [held.id])
            await eventually(lambda: rig.finished() == 1, "its end, which cannot be settled")
            jobs = [rig.noted(await app.dispatch("work", number=number)) for number in range(10)]
            for job in jobs:
                await job.result(60)
            assert not (await held.info()).status.finished
            assert worker.text().count("jobs wait to be settled") == 1
        await held.result(60)
    await rig.balance(duplicates=1)
    rig.alive()


async def test_a_transaction_that_somebody_has_forgotten_hinders_nobody(rig: Rig) -> None:
    """It keeps the server from cleaning up: what has ended stays in the way of whoever looks."""
    rig.worker("--concurrency", "50").ready()
    async with rig.app() as app:

        async def drained() -> float:
            jobs = [app.dispatch("work", number=number) for number in range(300)]
            since = time.monotonic()
            for job in await asyncio.gather(*jobs):
                rig.noted(job)
            await eventually(lambda: rig.idle(app.broker), "the end of all")
            return time.monotonic() - since

        await drained()
        quick = await drained()
        with rig.somebody() as other:
            other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            other.execute("SELECT count(*) FROM camora_jobs")
            times = [await drained() for _ in range(4)]
            print(f"{quick:.2f} s before, then {', '.join(f'{one:.2f} s' for one in times)}")
            assert max(times) < 10 * quick + 2
    await rig.balance(duplicates=0)
    rig.alive()


_MANY = 50_000
_CLAIM = 100


async def test_claims_stay_short_beside_an_old_snapshot_and_many_jobs(rig: Rig) -> None:
    """Nothing of what is claimed and ends can be cleaned up while somebody might still look at it."""
    async with rig.app():
        """The tables are made."""
    rig.server.sql("ALTER TABLE camora_jobs SET (autovacuum_enabled = off)")  # what it reads is counted, too
    await enqueue(rig, "before")
    usual = await reads_of_claims(rig)
    await enqueue(rig, "beside")
    with rig.somebody() as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT 1 FROM camora_jobs LIMIT 1")
        beside = await reads_of_claims(rig, others=1)
        [(seen,)] = other.execute("SELECT count(*) FROM camora_jobs").fetchall()
    assert seen == _MANY  # so it was in the way until the end
    print(f"entries that were read: {usual}, and beside it {beside}")
    # A look at all of it comes now and then. Whoever walked each time over what was claimed before would read this:
    walked = _MANY // _CLAIM * _MANY // 2
    assert beside - usual < walked / 2


async def enqueue(rig: Rig, name: str) -> None:
    async with rig.app() as app:
        for start in range(0, _MANY, 2000):
            jobs = [Envelope(id=f"{name}-{start + at}", task="t", queue="q", body=b"{}") for at in range(2000)]
            await app.broker.publish(jobs)


async def reads_of_claims(rig: Rig, *, others: int = 0) -> int:
    """Take and acknowledge all jobs; how many entries of indexes the server read for that."""
    before = await reads(rig, others)
    async with rig.app() as app:
        consumer = await app.broker.consumer(ConsumerSettings(queues=("q",), worker="w", lease=30))
        ids: set[str] = set()
        while taken := await consumer.receive(_CLAIM, 0.0):
            ids.update(one.id for one in taken)
            assert all(await consumer.settle([Settlement(delivery=one, action=Action.ACK) for one in taken]))
        await consumer.close()
    assert len(ids) == _MANY
    return await reads(rig, others) - before


async def reads(rig: Rig, others: int) -> int:
    """All so far. A connection that ends has told of its share."""
    await eventually(lambda: rig.backends() == others, "the end of all connections")
    [(count,)] = rig.server.sql("SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'camora_jobs'")
    return int(count)


@contextlib.contextmanager
def others_have_all(rig: Rig) -> Iterator[None]:
    """Others take every connection that is left. One stays for the tests' own questions: the superuser's."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                stack.enter_context(psycopg.connect(rig.server.url_of(user="others")))
        yield


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Rig]:
    with rigged(tmp_path, settings=["max_connections = 20", "superuser_reserved_connections = 3"]) as rig:
        rig.server.sql("CREATE ROLE others LOGIN")
        # Not a superuser, for whom some connections are always kept.
        rig.server.sql("CREATE ROLE shop LOGIN")
        rig.server.sql("GRANT ALL ON SCHEMA public TO shop")
        yield rig


async def test_a_server_whose_connections_others_have_taken(narrow: Rig) -> None:
    rig = narrow
    worker = rig.worker("--concurrency", "5", user="shop").ready()
    async with rig.app() as app:
        await rig.load(app, 20)
        await eventually(lambda: rig.idle(app.broker), "the first jobs")
        long = rig.noted(await app.dispatch("work_for", seconds=3 * LEASE))
        await eventually(lambda: rig.ran(long), "its start")
        # Until the keeper of leases has a connection, too.
        await asyncio.sleep(LEASE / 2)
        with others_have_all(rig):
            # It goes on with what it has: jobs are taken and settled, leases are kept.
            jobs = await rig.load(app, 20)
            for job in jobs:
                await job.result(60)
            await long.result(60)
            # And whoever has none is told so.
            with pytest.raises(BrokerUnavailable, match="no connection left.*max_connections"):
                await Camora(rig.url(user="shop")).broker.open()
            late = rig.worker("--concurrency", "5", user="shop")
            await asyncio.to_thread(late.wait_for, "no connection left")
        late.ready()
        await rig.load(app, 20)
    await rig.balance(duplicates=0)
    rig.alive()
    assert "lost its lease" not in worker.text()


async def test_connections_are_ended_while_others_wait_to_take_them(narrow: Rig) -> None:
    """What the worker loses others have at once; when they go, it finds its own again."""
    rig = narrow
    worker = rig.worker("--concurrency", "5", user="shop").ready()
    async with rig.app() as app:
        await rig.load(app, 20)
        await eventually(lambda: rig.idle(app.broker), "the first jobs")
        with others_have_all(rig):
            rig.server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'shop'")
            with others_have_all(rig):
                await rig.load(app, 8)
                await rig.noticed(worker)
        await rig.load(app, 20)
    await rig.balance(duplicates=0)
    rig.alive()


@pytest.mark.parametrize(
    ("change", "back"),
    [
        ("ALTER ROLE shop PASSWORD 'other'", "ALTER ROLE shop PASSWORD 'secret'"),
        ("ALTER ROLE shop NOLOGIN", "ALTER ROLE shop LOGIN"),
        (
            "REVOKE UPDATE, DELETE ON ALL TABLES IN SCHEMA public FROM shop",
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO shop",
        ),
        ("ALTER TABLE camora_jobs RENAME TO mislaid", "ALTER TABLE mislaid RENAME TO camora_jobs"),
    ],
    ids=["password", "login", "rights", "table"],
)
async def test_rights_and_tables_that_are_taken_and_given_back(rig: Rig, change: str, back: str) -> None:
    """What worked yesterday is no mistake of the set-up: whoever mends it need not start anything again."""
    rig.server.sql("CREATE ROLE shop LOGIN PASSWORD 'secret'")
    (rig.server.data / "pg_hba.conf").write_text(
        "host all camora 127.0.0.1/32 trust\nhost all shop 127.0.0.1/32 scram-sha-256\n"
    )
    rig.server.sql("SELECT pg_reload_conf()")
    async with rig.app() as app:
        await app.broker.queues.counts()
        rig.server.sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO shop")
        rig.server.sql("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO shop")
        worker = rig.worker(user="shop:secret").ready()
        await rig.load(app, 20)
        await next_finish(rig)
        rig.server.sql(change)
        rig.server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'shop'")
        rig.faults += 1
        late = asyncio.create_task(rig.load(app, 20))
        await rig.noticed(worker)
        rig.server.sql(back)
        await late
    await rig.balance(duplicates=20)
    rig.alive()
    assert "Traceback" not in worker.text(), worker.text()
