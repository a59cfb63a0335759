"""Faults of a MariaDB and of the network before it, on real workers: the ledger says that nothing was lost."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pymysql
import pytest
from camora import Camora
from camora.errors import BrokerUnavailable, ConfigurationError, DispatchUncertain
from camora.interfaces.broker import ConsumerSettings
from camora.message import Envelope
from camora.outcome import Action, Settlement

from tests.faults.rig import LEASE, eventually, next_finish
from tests.servers.mariadb import MariadbServer
from tests.sql.faults.mariadb import Rig, rigged


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with rigged(tmp_path) as made:
        yield made


FIVE = ("--concurrency", "5")


@pytest.mark.parametrize("step", ["received", "running", "ran", "before settle", "after settle"])
async def test_a_worker_killed_at_any_step_loses_nothing(rig: Rig, step: str) -> None:
    async with rig.app() as app:
        await rig.load(app, 30)
    first = rig.worker(*FIVE, SHOP_CRASH=step)
    assert await asyncio.to_thread(first.end) == -signal.SIGKILL
    rig.workers.remove(first)
    rig.faults += 1
    rig.worker(*FIVE, SHOP_CRASH=step).ready()
    found = await rig.balance(duplicates=10)
    assert found.longest_recovery < 1.5 * LEASE + 15
    rig.alive()


async def test_connections_that_are_cut_and_ended_again_and_again(rig: Rig) -> None:
    rig.worker(*FIVE, through=True).ready()
    rig.worker(*FIVE).ready()
    async with rig.app(through=True) as app:
        for turn in range(8):
            await rig.load(app, 16)
            if turn % 2:
                assert rig.terminate()
            else:
                rig.proxy.cut()
            rig.faults += 1
    await rig.balance(duplicates=8 * 10)
    rig.alive()


async def test_a_server_that_only_reads_for_a_while(rig: Rig) -> None:
    """As after a failover, when the old primary is a replica now."""
    # Who may write all the same is not hindered by it; Camora's user shall be.
    rig.server.sql("CREATE USER shop@'%' IDENTIFIED BY 'secret'")
    rig.server.sql("GRANT ALL ON camora.* TO shop@'%'")
    worker = rig.worker(*FIVE, user="shop:secret").ready()
    async with Camora(rig.url(user="shop:secret", busy_timeout=0.2)) as app:
        jobs = [rig.noted(await app.dispatch("work", number=number)) for number in range(10)]
        await eventually(lambda: rig.finished() >= len(jobs), "the first jobs")
        rig.server.sql("SET GLOBAL read_only = 1")
        rig.faults += 1
        with pytest.raises(BrokerUnavailable, match="only reads.*name the primary"):
            await app.broker.publish([Envelope(id="no", task="work", queue="default", body=b"{}")])
        rig.server.sql("SET GLOBAL read_only = 0")
        await rig.load(app, 10)
    await rig.balance(duplicates=10)
    rig.alive()
    assert "Traceback" not in worker.text()


async def test_a_dispatch_whose_answer_is_lost_makes_one_job(rig: Rig) -> None:
    rig.worker(*FIVE).ready()
    sorts: dict[str, dict[str, Any]] = {"plain": {}, "urgent": {"priority": 3}, "delayed": {"delay": 0.5}}
    async with rig.app(through=True) as app:
        await rig.dispatch(app, "work", number=0)
        for number, (sort, options) in enumerate({**sorts, "keyed": {"key": "k"}}.items()):
            lost = rig.proxy.drop_next_reply(f"lost-{sort}".encode())
            rig.noted(await app.options(job_id=f"lost-{sort}", **options).dispatch("work", number=number))
            assert lost.is_set()
            rig.faults += 1
    await rig.balance(duplicates=0)


async def test_a_commit_whose_answer_is_lost_is_said_to_be_uncertain(rig: Rig) -> None:
    async with rig.app(patience=1.0) as near, rig.app(through=True, patience=1.0) as far:
        await rig.dispatch(far, "work", number=0)
        lost = rig.proxy.drop_next_reply(b"COMMIT")
        with pytest.raises(DispatchUncertain, match="cannot double it"):
            await far.broker.publish([Envelope(id="sure", task="work", queue="default", body=b"{}")])
        assert lost.is_set()
        assert await far.broker.publish([Envelope(id="sure", task="work", queue="default", body=b"{}")]) == ["sure"]
        counts = await near.broker.queues.counts()
        assert counts["default"] == {"ready": 2}
        # A settlement, which is two trips: what it changes goes with the commit.
        consumer = await far.broker.consumer(ConsumerSettings(queues=("default",), worker="deaf", lease=30))
        deliveries = await consumer.receive(2, 5.0)
        lost = rig.proxy.drop_next_reply(b"DELETE FROM camora_jobs")
        settlements = [Settlement(delivery=one, action=Action.ACK) for one in deliveries]
        with pytest.raises(BrokerUnavailable):
            await consumer.settle(settlements)
        assert lost.is_set()
        # The server has done all of it or nothing, and whoever repeats it finds out.
        left = [one for queue in (await near.broker.queues.counts()).values() for one in queue.items()]
        assert left in ([], [("leased", 2)])
        # It may even have been about to, when it was asked what is left.
        answers = list(await consumer.settle(settlements))
        assert answers in ([[False] * 2, [True] * 2] if left else [[False] * 2])
        assert not any((await near.broker.queues.counts()).values())
        await consumer.close()


class Hostile(threading.Thread):
    """Somebody who locks random jobs in random order, for moments, again and again, until it is stopped."""

    def __init__(self, server: MariadbServer) -> None:
        super().__init__()
        self._server = server
        self._stopped = threading.Event()
        self.deadlocks = 0

    def run(self) -> None:
        while not self._stopped.is_set():
            connection = pymysql.connect(
                host=self._server.host, port=self._server.port, user="camora", password="secret", database="camora"
            )
            try:
                with connection.cursor() as cursor:
                    for _ in range(4):
                        cursor.execute("SELECT seq FROM camora_jobs ORDER BY RAND() LIMIT 1")
                        for (seq,) in cursor.fetchall():
                            cursor.execute("UPDATE camora_jobs SET worker = CONCAT(worker, '') WHERE seq = %s", [seq])
                        cursor.execute("SELECT SLEEP(0.005)")
                connection.commit()
            except pymysql.err.OperationalError as error:
                if error.args[0] not in (1205, 1213):
                    raise
                self.deadlocks += 1
            finally:
                connection.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self.join()


async def test_somebody_who_locks_jobs_in_any_order(rig: Rig) -> None:
    rig.worker("--concurrency", "20").ready()
    rig.worker("--concurrency", "20").ready()
    async with rig.app() as app:
        with Hostile(rig.server) as first, Hostile(rig.server) as second:
            for rounds in itertools.count(1):
                await asyncio.gather(*(rig.load(app, 40) for _ in range(2)))
                rig.faults += 1
                [(_, waits)] = rig.server.sql("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_waits'")
                if rounds >= 4 and int(waits):
                    break
                assert rounds < 100, "they never met"
    [(_, deadlocks)] = rig.server.sql("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")
    print(f"waits {waits}, deadlocks {deadlocks}, of the hostile {first.deadlocks + second.deadlocks}")
    await rig.balance(duplicates=0)
    rig.alive()


async def test_the_whole_table_is_locked_for_longer_than_a_lease(rig: Rig) -> None:
    worker = rig.worker(*FIVE).ready()
    async with rig.app() as app:
        await rig.load(app, 20)
        long = rig.noted(await app.dispatch("work_for", seconds=0.5))
        await eventually(lambda: rig.ran(long), "its start")
        with rig.somebody() as other:
            other.execute("LOCK TABLES camora_jobs WRITE")
            rig.faults += 1
            late = asyncio.create_task(rig.load(app, 20))
            await asyncio.sleep(2 * LEASE)  # that is the fault
            other.execute("UNLOCK TABLES")
        assert await next_finish(rig) < 10
        await late
    await rig.balance(duplicates=10)
    rig.alive()
    assert "Traceback" not in worker.text()


async def test_one_job_that_somebody_holds_keeps_up_no_other(rig: Rig) -> None:
    """Its row is locked, for as long as it likes, by somebody who has forgotten his transaction."""
    rig.worker("--concurrency", "10").ready()
    async with rig.app() as app:
        held = rig.noted(await app.dispatch("work_for", seconds=2.0))
        await eventually(lambda: rig.ran(held), "its start")
        with rig.somebody() as other:
            while True:
                with contextlib.suppress(pymysql.err.OperationalError):  # the victim of a deadlock with its lease
                    other.execute("SELECT * FROM camora_jobs WHERE id = %s FOR UPDATE", [held.id])
                    break
            jobs = [rig.noted(await app.dispatch("work", number=number)) for number in range(10)]
            for job in jobs:
                await job.result(60)
            assert not (await held.info()).status.finished
        await held.result(60)
    await rig.balance(duplicates=1)
    rig.alive()


async def test_a_transaction_that_somebody_has_forgotten_hinders_nobody(rig: Rig) -> None:
    """It keeps the server from cleaning up: what has ended stays in the way of whoever looks."""
    rig.worker("--concurrency", "50").ready()
    async with rig.app() as app:

        async def drained() -> float:
            since = time.monotonic()
            for job in await asyncio.gather(*[app.dispatch("work", number=number) for number in range(300)]):
                rig.noted(job)
            await eventually(lambda: rig.idle(app.broker), "the end of all")
            return time.monotonic() - since

        await drained()
        quick = await drained()
        with rig.somebody() as other:
            other.execute("SELECT count(*) FROM camora_jobs")
            times = [await drained() for _ in range(4)]
            print(f"{quick:.2f} s before, then {', '.join(f'{one:.2f} s' for one in times)}")
            assert max(times) < 10 * quick + 2
    await rig.balance(duplicates=0)
    rig.alive()


async def test_a_server_without_connections_says_so(tmp_path: Path) -> None:
    with rigged(tmp_path, settings=["max-connections=12"]) as rig:
        rig.server.sql("CREATE USER others@'%' IDENTIFIED BY 'secret'")
        rig.server.sql("GRANT ALL ON camora.* TO others@'%'")
        async with Camora(rig.url(user="others:secret")) as app:
            await app.broker.publish([Envelope(id="here", task="work", queue="default", body=b"{}")])
            with contextlib.ExitStack() as stack:
                with contextlib.suppress(pymysql.err.OperationalError):
                    while True:
                        connection = pymysql.connect(
                            host=rig.server.host, port=rig.server.port, user="others", password="secret"
                        )
                        stack.callback(connection.close)
                with pytest.raises(BrokerUnavailable, match="no connection left.*max_connections"):
                    await Camora(rig.url(user="others:secret")).broker.open()
                # Whoever has one goes on with it.
                await app.broker.publish([Envelope(id="there", task="work", queue="default", body=b"{}")])
            assert (await app.broker.queues.counts())["default"] == {"ready": 2}


async def test_what_is_wrong_with_an_address_is_said_at_once(rig: Rig) -> None:
    rig.server.sql("CREATE DATABASE empty")
    rig.server.sql("CREATE USER poor@'%' IDENTIFIED BY 'secret'")
    rig.server.sql("GRANT SELECT ON empty.* TO poor@'%'")
    cases = [
        (rig.server.url_of(user="camora:wrong"), "the user name or the password is wrong"),
        (rig.server.url_of("none"), "create it: CREATE DATABASE `none`"),
        (rig.server.url_of(user="poor:secret"), "GRANT ALL ON `camora`"),
        (rig.server.url_of("empty", user="poor:secret"), "lacks a right.*GRANT ALL ON `empty`"),
    ]
    for url, text in cases:
        broker = Camora(url).broker
        with pytest.raises(ConfigurationError, match=text) as raised:
            await broker.open()
        assert "secret" not in str(raised.value)
        await broker.close()
    with pytest.raises(BrokerUnavailable, match="cannot be reached.*is the server running"):
        await Camora("mariadb://camora@127.0.0.1:1/camora").broker.open()
